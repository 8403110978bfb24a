"""Sample mailboxes: realistic Agile Telecom mails, mails of other people, decoys, repeats and broken ones.

Everything follows from the seed, so the demo, the tests and the benchmarks all know the right answer.
The weights of the variants are those of the corpus the design was measured on.
"""

import base64
import binascii
import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random
from zoneinfo import ZoneInfo

from tests.sample_texts import draw_text

NUMBERS = ("+393331234333", "+393331234334")
"""The rented numbers all sample SMS were sent to."""

ZONE = ZoneInfo("Europe/Rome")
FIRST_MOMENT = datetime(2024, 1, 8, 7, 30, tzinfo=UTC)

VARIANTS = {
    "7bit": 34, "qp": 18, "base64": 16, "alternative": 12, "8bit": 6, "cp1252-qp": 6, "cp1252-8bit": 3,
    "html": 5,
}  # fmt: skip
UNRELATED = (
    "private",
    "newsletter",
    "display-name",
    "sub-domain",
    "other-subject",
    "other-sender",
    "two-from",
)
BROKEN = ("missing-to", "no-body", "impossible-date", "empty", "broken-base64", "nested")


@dataclass(frozen=True, slots=True)
class SampleMail:
    """One mail as a server would hand it out (CRLF), and what must become of it.

    `kind` is `sms`, `unrelated` or `broken`; `expected` holds originator, destination, date_time and text
    of an `sms` as the archive must show them, and is None for the others.
    """

    raw: bytes = field(repr=False)
    kind: str
    variant: str
    expected: dict[str, str] | None = field(repr=False)


def generate(
    count: int,
    seed: int = 1,
    *,
    unrelated: float = 0.30,
    duplicates: float = 0.02,
    broken: float = 0.01,
    first: datetime = FIRST_MOMENT,
) -> Iterator[SampleMail]:
    """Yield `count` mails, the same for the same arguments, about 3.6 KB each, in order of their dates.

    `unrelated`, `duplicates` and `broken` are shares of the whole. Half of the duplicates repeat a mail to
    the byte, the other half bring an earlier SMS again in a new mail. `first` (aware) is the first moment.
    """
    random = Random(seed)
    earlier: list[SampleMail] = []
    moment = first
    for number in range(count):
        moment += timedelta(seconds=random.randint(20, 900))
        chance = random.random()
        if chance < unrelated:
            yield _unrelated(random, number, moment)
        elif chance < unrelated + broken:
            yield _broken(random, number, moment)
        elif chance < unrelated + broken + duplicates and earlier:
            yield _again(random, number, moment, random.choice(earlier))
        else:
            mail = sms_mail(random, number, moment)
            if len(earlier) < 500:
                earlier.append(mail)
            yield mail


def sms_mail(
    random: Random, number: int, moment: datetime, variant: str | None = None, text: str | None = None
) -> SampleMail:
    """Return one mail with an SMS received a few seconds before `moment` (aware)."""
    if variant is None:
        variant = random.choices(tuple(VARIANTS), tuple(VARIANTS.values()))[0]
    if text is None:
        charset = "ascii" if variant == "7bit" else "cp1252" if variant.startswith("cp1252") else "utf-8"
        text = draw_text(random, charset=charset)
    sent = (moment - timedelta(seconds=random.randint(1, 15))).astimezone(ZONE)
    expected = {
        "originator": _originator(random),
        "destination": random.choice(NUMBERS),
        "date_time": sent.strftime("%Y%m%d%H%M%S"),
        "text": text,
    }
    return SampleMail(_compose(random, number, moment, variant, expected), "sms", variant, expected)


def _originator(random: Random) -> str:
    chance = random.random()
    if chance < 0.03:
        return random.choice(("TIM", "Agile", "MyShop24", "Poste Info"))
    if chance < 0.05:
        return random.choice(("48888", "4770", "119"))
    prefix = random.choice(("+39335", "+39347", "+39320", "+39388", "+41794", "+491511", "+3859162"))
    return f"{prefix}{random.randint(10**6, 10**7 - 1)}"


def _again(random: Random, number: int, moment: datetime, mail: SampleMail) -> SampleMail:
    if random.random() < 0.5 or mail.expected is None:
        return replace(mail)
    return replace(mail, raw=_compose(random, number, moment, mail.variant, mail.expected))


def _compose(random: Random, number: int, moment: datetime, variant: str, sms: dict[str, str]) -> bytes:
    structure, body = _BODIES[variant](random, _block(random, sms), sms)
    subject = random.choices(_SUBJECTS, (90, 4, 3, 3))[0]
    head = _head(random, number, moment, "Agile Telecom <smsin@agiletelecom.com>", subject)
    return head + structure + b"\r\n" + body


_SUBJECTS = (
    "Agile Telecom -- SMS received", "=?utf-8?Q?Agile_Telecom_=E2=80=93_SMS_received?=",
    "Agile Telecom - SMS received", "Agile Telecom --\r\n SMS received",
)  # fmt: skip


def _block(random: Random, sms: dict[str, str]) -> str:
    label = "Text" if random.random() < 0.1 else "Body"
    return (
        f"From: {sms['originator']}\nTo: {sms['destination']}\nDate/Time: {sms['date_time']}\n"
        f"{label}: {sms['text']}\n"
    )


def _lines(text: str, charset: str) -> bytes:
    return text.replace("\n", "\r\n").encode(charset)


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def _type(kind: str, charset: str, encoding: str) -> bytes:
    return (
        f"Content-Type: {kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    ).encode()  # fmt: skip


def _seven_bit(_random: Random, block: str, _sms: dict[str, str]) -> tuple[bytes, bytes]:
    return _type("text/plain", "us-ascii", "7bit"), _lines(block, "ascii")


def _quoted(charset: str, name: str) -> Callable[[Random, str, dict[str, str]], tuple[bytes, bytes]]:
    def build(_random: Random, block: str, _sms: dict[str, str]) -> tuple[bytes, bytes]:
        body = binascii.b2a_qp(_lines(block, charset), istext=True)
        return _type("text/plain", name, "quoted-printable"), body

    return build


def _eight_bit(charset: str, name: str) -> Callable[[Random, str, dict[str, str]], tuple[bytes, bytes]]:
    def build(_random: Random, block: str, _sms: dict[str, str]) -> tuple[bytes, bytes]:
        return _type("text/plain", name, "8bit"), _lines(block, charset)

    return build


def _in_base64(_random: Random, block: str, _sms: dict[str, str]) -> tuple[bytes, bytes]:
    return _type("text/plain", '"UTF-8"', "base64"), _base64(_lines(block, "utf-8"))


def _html_page(random: Random, sms: dict[str, str]) -> str:
    fields = zip(("From", "To", "Date/Time", "Body"), sms.values(), strict=True)
    rows = [(label, html.escape(value).replace("\n", "<br>")) for label, value in fields]
    if random.random() < 0.5:
        inside = "".join(f"<tr><td><b>{label}:</b></td><td>{value}</td></tr>\r\n" for label, value in rows)
        inside = f'<table border="0">\r\n{inside}</table>'
    else:
        inside = "<br>\r\n".join(f"<b>{label}:</b> {value}" for label, value in rows)
    return (
        "<html><head><title>SMS</title><style>td { padding: 2px }</style></head>\r\n"
        f"<body>\r\n{inside}\r\n</body></html>\r\n"
    )


def _only_html(random: Random, _block: str, sms: dict[str, str]) -> tuple[bytes, bytes]:
    body = binascii.b2a_qp(_html_page(random, sms).encode(), istext=True)
    return _type("text/html", "utf-8", "quoted-printable"), body


def _alternative(random: Random, block: str, sms: dict[str, str]) -> tuple[bytes, bytes]:
    boundary = f"=_{random.getrandbits(96):024x}".encode()
    plain = _type("text/plain", "utf-8", "quoted-printable") + b"\r\n"
    plain += binascii.b2a_qp(_lines(block, "utf-8"), istext=True)
    page = _type("text/html", "utf-8", "base64") + b"\r\n" + _base64(_html_page(random, sms).encode())
    parts = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in (plain, page))
    structure = b'Content-Type: multipart/alternative;\r\n boundary="' + boundary + b'"\r\n'
    return (
        structure,
        b"This is a multi-part message in MIME format.\r\n" + parts + b"--" + boundary + b"--\r\n",
    )


_BODIES: dict[str, Callable[[Random, str, dict[str, str]], tuple[bytes, bytes]]] = {
    "7bit": _seven_bit,
    "qp": _quoted("utf-8", "utf-8"),
    "base64": _in_base64,
    "alternative": _alternative,
    "8bit": _eight_bit("utf-8", "UTF-8"),
    "cp1252-qp": _quoted("cp1252", "windows-1252"),
    "cp1252-8bit": _eight_bit("cp1252", '"Windows-1252"'),
    "html": _only_html,
}


def _folded(data: bytes) -> str:
    encoded = base64.b64encode(data).decode()
    return "\r\n".join("\t" + encoded[at : at + 72] for at in range(0, len(encoded), 72))


def _head(random: Random, number: int, moment: datetime, sender: str, subject: str) -> bytes:
    """Return a header as four relays leave it, without the lines that describe the body."""
    date = format_datetime(moment.astimezone(ZONE))
    token = f"{random.getrandbits(64):016x}"
    domain = sender.rpartition("@")[2].rstrip(">\r\n ") or "example.org"
    hops = "".join(
        f"Received: from relay{hop}.{domain} (relay{hop}.{domain} [192.0.2.{random.randint(1, 254)}])\r\n"
        f"\tby mx{hop}.example.org (Postfix) with ESMTPS id {token[:10]}{hop}\r\n"
        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
        f"\tfor <sms@example.org>; {date}\r\n"
        for hop in range(4)
    )
    signature, seal = (_folded(random.randbytes(256)) for _ in range(2))
    return (
        "Return-Path: <bounce@" + domain + ">\r\nDelivered-To: sms@example.org\r\n" + hops
        + "Authentication-Results: mx0.example.org;\r\n"
        f"\tdkim=pass (2048-bit key; unprotected) header.d={domain} header.a=rsa-sha256 header.s=s1;\r\n"
        f"\tspf=pass smtp.mailfrom=bounce@{domain}; dmarc=pass (p=none) header.from={domain}\r\n"
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain};\r\n"
        "\ts=s1; h=from:to:subject:date:message-id:mime-version:content-type;\r\n"
        f"\tbh={base64.b64encode(random.randbytes(32)).decode()};\r\n\tb=\r\n{signature}\r\n"
        f"ARC-Seal: i=1; a=rsa-sha256; t={moment.timestamp():.0f}; cv=none; d={domain}; s=arc1;\r\n"
        f"\tb=\r\n{seal}\r\n"
        f"ARC-Authentication-Results: i=1; mx0.example.org; dkim=pass header.d={domain};\r\n"
        f"\tspf=pass smtp.mailfrom=bounce@{domain}; dmarc=pass (p=none) header.from={domain}\r\n"
        "X-Spam-Status: No, score=-1.2 required=5.0 tests=DKIM_SIGNED,DKIM_VALID,DKIM_VALID_AU,\r\n"
        "\tRCVD_IN_DNSWL_NONE,SPF_HELO_NONE,SPF_PASS,T_SCC_BODY_TEXT_LINE autolearn=ham\r\n"
        f"X-Virus-Scanned: Debian amavis at mx0.example.org\r\nX-Mailer: Mailer {number % 7}.1\r\n"
        f"Date: {date}\r\nFrom: {sender}\r\nTo: sms@example.org\r\n"
        f"Message-ID: <{number}.{token}@{domain}>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
    ).encode()  # fmt: skip


def _unrelated(random: Random, number: int, moment: datetime) -> SampleMail:
    variant = random.choice(UNRELATED)
    subject, sender = {
        "private": (f"Pranzo di domenica {number}", "Anna Rossi <anna.rossi@example.net>"),
        "newsletter": (f"Offerte della settimana {number}", "News <news@shop.example.com>"),
        "display-name": (_SUBJECTS[0], '"smsin@agiletelecom.com" <smsin@example.com>'),
        "sub-domain": (_SUBJECTS[0], "Agile Telecom <smsin@agiletelecom.com.example.net>"),
        "other-subject": (f"Fattura {number}", "Agile Telecom <info@agiletelecom.com>"),
        "other-sender": ("Fwd: " + _SUBJECTS[0], "Anna Rossi <anna.rossi@example.net>"),
        "two-from": (_SUBJECTS[0], "smsin@agiletelecom.com, Anna Rossi <anna.rossi@example.net>"),
    }[variant]
    body = _lines("Ciao,\n\na presto\n" * 12, "ascii")
    raw = _head(random, number, moment, sender, subject) + _type("text/plain", "us-ascii", "7bit")
    return SampleMail(raw + b"\r\n" + body, "unrelated", variant, None)


def _broken(random: Random, number: int, moment: datetime) -> SampleMail:
    variant = random.choice(BROKEN)
    sms = sms_mail(random, number, moment, "7bit").expected or {}
    block = _block(random, sms)
    structure = _type("text/plain", "us-ascii", "7bit")
    if variant == "missing-to":
        block = "\n".join(line for line in block.split("\n") if not line.startswith("To:"))
    elif variant == "no-body":
        block = "\n".join(block.split("\n")[:3]) + "\n"
    elif variant == "impossible-date":
        block = block.replace(sms["date_time"], "20260231256199", 1)
    elif variant == "empty":
        block = ""
    body = _lines(block, "ascii")
    if variant == "broken-base64":
        structure, body = _type("text/plain", "utf-8", "base64"), _base64(body)[:-7] + b"!?\r\n"
    elif variant == "nested":
        structure = b'Content-Type: multipart/mixed; boundary="b0"\r\n'
        body = b"".join(
            b'--b%d\r\nContent-Type: multipart/mixed; boundary="b%d"\r\n\r\n' % (n, n + 1) for n in range(600)
        )
    head = _head(random, number, moment, "Agile Telecom <smsin@agiletelecom.com>", _SUBJECTS[0])
    return SampleMail(head + structure + b"\r\n" + body, "broken", variant, None)
