"""The demo's mails: each usual way of writing one, repeats, a broken one, mail of others; dated today."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from itertools import cycle
from zoneinfo import ZoneInfo

PEOPLE = ("+393470001111", "+393287654321", "+4366412345678", "+33612345678", "4855", "Corriere")
NUMBERS = ("+393331234333", "+393331234334")
"""The rented numbers that all SMS of the demo were sent to."""

CONFIRMATION = "You will get no more messages from {our_number}. START undoes it."
"""What a STOP is answered."""

ZONE = ZoneInfo("Europe/Rome")
FORMS = ("7bit", "quoted-printable", "base64", "html", "alternative")
OLDEST = timedelta(hours=8)

_SENDER = "Agile Telecom <smsin@agiletelecom.com>"
_SUBJECT = "Agile Telecom -- SMS received"
_TEXTS = (
    "Confermo l'appuntamento di domani alle 9:30", "Il suo codice di verifica e 482913.", "News ON",
    "Perché non è arrivato? Così non va.", "Arrivo tra 10 minuti", "Grande! 🎉👍", "INFO",
    "Sì, alle 18 va bene. A più tardi!", "Prima riga\nSeconda riga", "SI", "Costa 12,50 € – va bene?",
    "Consegna ricevuta, tutto bene", "Lista:\n- pane\n- latte\n\n- uova", "Über die Änderung: ja, bitte",
    "Please call me back after 5pm, thanks", "Спасибо, всё получил", "Il caffè è già pagato", "OK grazie",
    "Inoltro:\nFrom: +393470000000\nBody: ciao", "Tanti auguri 🎂 a te e famiglia ❤️", "VOTO 7",
    "1+1=2 & 3<4 \"ok\" 'x'", "Più tardi… forse – non so", "Ευχαριστώ πολύ",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoMail:
    """A mail as a server hands it out (CRLF); `text` is that of its SMS, None where it is none to read."""

    raw: bytes = field(repr=False)
    text: str | None = field(default=None, repr=False)


def waiting_mails(now: datetime) -> list[DemoMail]:
    """Return what lies in the mailbox when the demo begins at `now` (aware): 24 SMS of the last hours, two of
    them twice, four mails of others and one of Agile's without its destination."""
    step = OLDEST / len(_TEXTS)
    forms = cycle(FORMS)
    sms = [
        sms_mail(text, now - OLDEST + step * number, next(forms), number)
        for number, text in enumerate(_TEXTS)
    ]
    again = sms_mail(_TEXTS[11], now - OLDEST + step * 11, "7bit", 11, mail_number=111)
    broken = _mail(_SENDER, _SUBJECT, now - step, 300, f"From: {PEOPLE[0]}\nBody: Dove siete?\n")
    others = [
        _mail(
            "Anna Rossi <anna.rossi@example.net>", "Pranzo di domenica", now - 5 * step, 301, "Ci vediamo!"
        ),
        _mail("News <news@shop.example.com>", "Offerte della settimana", now - 4 * step, 302, "Sconti"),
        _mail("Agile Telecom <info@agiletelecom.com>", "Fattura 2041", now - 3 * step, 303, "In allegato"),
        _mail("Luca <luca@example.net>", "Foto", now - 2 * step, 304, "Eccole"),
    ]
    return [*sms[:8], *others[:2], *sms[8:18], sms[3], again, *others[2:], *sms[18:], broken]


def live_mails(now: datetime) -> list[tuple[str, DemoMail]]:
    """Return what is delivered while the daemon watches, each with what a reader should know of it."""
    first = "Vorrei disdire l'appuntamento di domani, grazie 🙏"
    other = _mail("Anna <anna@example.net>", "Re: Pranzo di domenica", now, 305, "A dopo")
    return [
        ("an SMS", sms_mail(first, now, "quoted-printable", 200)),
        ("an SMS of two lines", sms_mail("Ça va très bien, à demain!\nMarie", now, "base64", 201)),
        ("the first once more, in a new mail", sms_mail(first, now, "7bit", 200, mail_number=299)),
        ("a mail of somebody else", other),
        ("an SMS that wants no more of them", sms_mail("STOP", now, "html", 204)),
    ]


def sms_mail(
    text: str, moment: datetime, form: str, number: int, *, mail_number: int | None = None
) -> DemoMail:
    """Return the mail of SMS `number`, sent at `moment`; another `mail_number` brings it in another mail."""
    originator = PEOPLE[number % len(PEOPLE)]
    fields = {
        "From": originator,
        "To": NUMBERS[number % len(NUMBERS)],
        "Date/Time": f"{moment.astimezone(ZONE):%Y%m%d%H%M%S}",
        "Body": text,
    }
    block = "".join(f"{name}: {value}\n" for name, value in fields.items())
    number = number if mail_number is None else mail_number
    mail = _mail(_SENDER, _SUBJECT, moment + timedelta(seconds=4), number, block, form)
    return DemoMail(mail.raw, text)


def _mail(
    sender: str, subject: str, moment: datetime, number: int, text: str, form: str = "7bit"
) -> DemoMail:
    mail = EmailMessage(policy=SMTP)
    mail["Date"] = format_datetime(moment.astimezone(ZONE))
    mail["From"] = sender
    mail["To"] = "sms@example.org"
    mail["Message-ID"] = f"<{number}.demo@example.org>"
    mail["Subject"] = subject
    page = "<br>\n".join(text.replace("&", "&amp;").replace("<", "&lt;").split("\n"))
    if form == "html":
        mail.set_content(f"<html><body>\n{page}\n</body></html>\n", subtype="html")
    elif form in ("7bit", "alternative"):  # the policy chooses 7bit where the text is ASCII, else 8bit
        mail.set_content(text, cte=None if text.isascii() else "8bit")
    else:
        mail.set_content(text, cte=form)
    if form == "alternative":
        mail.add_alternative(f"<html><body>\n{page}\n</body></html>\n", subtype="html")
        mail.set_boundary(f"=_demo_{number}")  # the same at every call
    return DemoMail(bytes(mail))
