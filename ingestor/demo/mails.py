"""The demo's mails, the same every time: each way of writing them, repeats, a broken one, mail of others."""

from datetime import UTC, datetime, timedelta
from random import Random

from ingestor.demo.sample_mails import VARIANTS, SampleMail, generate, sms_mail

FIRST_MOMENT = datetime(2026, 1, 12, 7, 30, tzinfo=UTC)
LIVE_MOMENT = datetime(2026, 1, 12, 14, 5, tzinfo=UTC)

_LIVE_TEXT = "Vorrei disdire l'appuntamento di domani, grazie 🙏"


def waiting_mails() -> list[SampleMail]:
    """Return what lies in the mailbox when the demo begins: 24 SMS, two of them twice, and more."""
    sms = [_sms(number, variant) for number, variant in enumerate(tuple(VARIANTS) * 3)]
    copy = sms[3]
    again = _sms(11, tuple(VARIANTS)[11 % len(VARIANTS)], mail_number=111)
    others = list(generate(6, seed=5, unrelated=1.0, duplicates=0.0, broken=0.0, first=FIRST_MOMENT))
    first, then = [*sms[:8], *others[:2], *sms[8:12]], [*sms[12:18], copy, again, *others[2:], *sms[18:]]
    return [*first, _broken(), *then]


def live_mails() -> list[tuple[str, SampleMail]]:
    """Return what is delivered while the daemon watches, each with what a reader should know of it."""
    [other] = generate(1, seed=8, unrelated=1.0, duplicates=0.0, broken=0.0, first=LIVE_MOMENT)
    return [
        ("an SMS", _sms(200, "8bit", text=_LIVE_TEXT)),
        ("an SMS of two lines", _sms(201, "base64", text="Ça va très bien, à demain!\nMarie")),
        ("the first once more, in a new mail", _sms(200, "8bit", text=_LIVE_TEXT, mail_number=299)),
        ("a mail of somebody else", other),
        ("an SMS", _sms(202, "html", text="STOP")),
    ]


def _sms(number: int, variant: str, text: str | None = None, mail_number: int | None = None) -> SampleMail:
    """Return SMS `number`; another `mail_number` brings the same SMS in another mail."""
    start, step = (LIVE_MOMENT, number - 200) if number >= 200 else (FIRST_MOMENT, number)
    random = Random(number)  # noqa: S311 - repeatable, not secret
    moment = start + timedelta(minutes=13 * step, seconds=7 * step)
    return sms_mail(random, number if mail_number is None else mail_number, moment, variant, text)


def _broken() -> SampleMail:
    """Return a mail of Agile's from which the line with the destination is missing."""
    candidates = generate(60, seed=1, unrelated=0.0, duplicates=0.0, broken=1.0, first=FIRST_MOMENT)
    return next(mail for mail in candidates if mail.variant == "missing-to")
