"""What every kept archive was given: mails by mailbox and by import, POSTs, and one mail too long to keep.

It uses nothing of the program: `make.py` ran it with the code of each commit.
"""

from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)

FIRST_POSTS_OF_VERSION_7 = "7edb7ac"
"""Until then the UUID of a POST was one of version 4."""


def _mail(number: int, body: str, header: str = "", charset: str = "utf-8", label: str = "To") -> bytes:
    return (
        f"From: smsin@agiletelecom.com\r\nTo: archive@example.org\r\nMessage-ID: <{number}@example.org>\r\n"
        f"Subject: Agile Telecom -- SMS received\r\n{header}"
        f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n"
        f"From: +39333000000{number}\r\n{label}: +393331234333\r\nDate/Time: 2026030112000{number}\r\n"
        f"Body: {body}\r\n"
    ).encode(charset)


def _html(mail: bytes) -> bytes:
    header, _, body = mail.partition(b"\r\n\r\n")
    return header.replace(b"/plain", b"/html") + b"\r\n\r\n" + body.replace(b"\r\n", b"<br>\r\n")


_DATE = "Date: Sun, 01 Mar 2026 12:00:0{} +0100\r\n"

MAILS: list[bytes] = [
    _mail(0, "one line", _DATE.format(0)),
    _mail(1, "several\r\n lines \r\n\r\nand blank ones\r\n\r\n", _DATE.format(1)),
    _mail(2, "perché no? € 😀", _DATE.format(2)),
    _mail(3, "no date"),
    _mail(4, "nobody it is for", _DATE.format(4), label="Towards"),
    _mail(5, "cut perché 😀", _DATE.format(5)).replace("😀".encode(), "😀".encode()[:3]),
    _html(_mail(6, "<b>è</b>", _DATE.format(6))),
    _mail(7, "price: 10 €", "", charset="windows-1252"),
]
UNREADABLE = 4
LONG_MAIL = _mail(8, "long\r\n" * 4000, _DATE.format(8))
KEPT_OF_LONG_MAIL = 2000

BY_MAILBOX = (0, 1, 2, 3, 4, 5, 6, 7)
BY_IMPORT = (1, 2, 4, 5, 7)

PLACES: dict[int, tuple[str, str | None, int]] = {
    1: ("/mail/box/cur/1700000001.M1.host,S=400:2,RS", None, 0),
    2: ("/mail/old.zip", "box/new/1700000002.M2.host", 0),
    4: ("/mail/old.mbox", None, 4000),
    5: ("/mail/old.tar.gz", "box/old.mbox", 5000),
    7: ("/mail/seven.eml", None, 0),
}
"""Where the imported mails lay for 7ecdfed and later: file, member of it, offset. Before, all in old.mbox."""

POSTS: list[tuple[str, str, bytes]] = [
    (
        "agile", "application/x-www-form-urlencoded",
        b"originator=%2B393330000000&destination=%2B393331234333&date_time=20260301120000&text=one+line",
    ),
    (
        "agile", "application/x-www-form-urlencoded",
        b"originator=%2B393330000009&destination=%2B393331234333&date_time=20260301120009&text=only+a+POST",
    ),
    ("agile", "application/x-www-form-urlencoded", b"originator=%2B393330000009&date_time=yesterday"),
    (
        "infobip", "application/json",
        (b'{"results": [{"messageId": "1", "from": "385916242493", "to": "385921004026", "text": "QUIZ one",'
        b' "cleanText": "one", "keyword": "QUIZ", "receivedAt": "2026-03-01T09:28:39.220+0000",'
        b' "smsCount": 1}, {"messageId": "2", "from": "Agile", "to": "385921004026", "text": "ciao",'
        b' "receivedAt": "2026-03-01T09:28:39.220+0000", "smsCount": 3}, {"messageId": "3"}],'
        b' "messageCount": 3, "pendingMessageCount": 0}'),
    ),
]  # fmt: skip


def identity(number: int, version: int) -> bytes:
    """Return the UUID that POST `number` got on receipt."""
    made = bytearray(range(16 * number + 1, 16 * number + 17))
    made[6] = version << 4 | made[6] & 15
    made[8] = 0x80 | made[8] & 63
    return bytes(made)


def arrived(number: int) -> datetime:
    """Return when item `number` of its kind reached us."""
    return NOW + timedelta(minutes=number)


CALLS: tuple[tuple[str, ...], ...] = (
    ("optout", "add", "+393339990000", "--reason", "by hand"),
    ("erase", "hold", "add", "--number", "+393330000001", "--reason", "held"),
    ("erase", "plan", "--number", "+393330000009", "--basis", "asked", "--output", "PLAN"),
    ("erase", "apply", "PLAN"),
    ("send", "+393335556667", "--sender", "Shop", "--text", "Ciao"),
)
"""The commands that archives from 6668b56 on saw at their end; PLAN is a file."""
