"""Small mails whose outcome is known, for tests that build their own mailboxes."""

from collections.abc import Iterator

from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.parse import Split, split, unquoted

OURS = b"Agile Telecom <smsin@agiletelecom.com>"


def sms_mail(number: int, text: str | None = None, *, line_end: bytes = b"\n") -> bytes:
    """Return the mail of SMS `number`, which says `text number` unless it is given."""
    clock = f"{number // 3600 % 24:02}{number // 60 % 60:02}{number % 60:02}"
    body = (
        f"From: +39335{number:07}\nTo: +393331234333\nDate/Time: 20240108{clock}\n"
        f"Body: {f'text {number}' if text is None else text}\n"
    )
    mail = (
        b"From: " + OURS + b"\nTo: sms@example.org\nSubject: Agile Telecom -- SMS received\n"
        b"Message-ID: <%d@agiletelecom.com>\nDate: Mon, 08 Jan 2024 09:00:00 +0100\nMIME-Version: 1.0\n"
        b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" % number
    )  # fmt: skip
    return (mail + body.encode()).replace(b"\n", line_end)


def foreign_mail(number: int, body: bytes = b"Lunch?\n") -> bytes:
    """Return a mail of somebody else."""
    return (
        b"From: friend%d@example.net\nTo: me@example.org\nSubject: lunch\nMessage-ID: <f%d@example.net>\n\n"
        % (number, number)
    ) + body


def broken_mail(number: int) -> bytes:
    """Return a mail of ours without a Body label."""
    return sms_mail(number).replace(b"Body: ", b"")


def mbox_of(
    *mails: bytes, separator: bytes = b"From smsin@agiletelecom.com Mon Jan  8 09:00:00 2024\n"
) -> bytes:
    """Return `mails` as an mbox (mboxrd)."""
    import re

    quoted = [re.sub(rb"(?m)^(>*From )", rb">\1", mail) for mail in mails]
    return b"".join(separator + mail + (b"" if mail.endswith(b"\n") else b"\n") + b"\n" for mail in quoted)


def mails(data: bytes, dialect: Dialect = Dialect.MBOX) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, mail) of each mail in an mbox."""
    for start, end, verbatim in split(data, dialect).mails:
        yield start, unquoted(data[start:end], dialect, verbatim=verbatim)


def covered(parts: Split) -> int:
    """Return how many bytes of a stretch have their place: it must be its length."""
    inside = sum(end - start for start, end, _ in parts.mails)
    return inside + parts.separators + sum(length for _, length, _ in parts.gaps)
