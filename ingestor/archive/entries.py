"""What intakes hand to the writer: items with their evidence, and the cursor that moves with them."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from ingestor.providers.contract import Readable, Unreadable
from ingestor.record import Channel, Outcome

NO_DAY = bytes(4)
MAIL_KEY_BYTES = 36
POST_KEY_BYTES = 16

_HEAD = 32768
_SURE = _HEAD // 2 - 8  # found before this, it is within the bound with either kind of line ends
_DATE = re.compile(rb"\nDate:[ \t]*(?:[A-Za-z]{3},[ \t]*)?([0-9]{1,2} [A-Za-z]{3} [0-9]{4})\b")
_MONTHS = {
    month: number
    for number, month in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}


class Payload(NamedTuple):
    """Raw bytes as they arrived. `compressed` is set where a worker has already packed them."""

    raw: bytes | None
    size: int
    sha256: bytes
    content_type: str | None = None
    compressed: bytes | None = None
    dictionary_id: int | None = None

    def __repr__(self) -> str:
        return f"Payload(size={self.size}, content_type={self.content_type!r})"


@dataclass(frozen=True, slots=True)
class Position:
    """Where in its source an item stood: a mailbox place, or a place in an input file."""

    folder: str | None = None
    uidvalidity: int | None = None
    uid: int | None = None
    input: str | None = None
    member: str | None = None
    offset: int | None = None
    length: int | None = None


class Item(NamedTuple):
    """One SMS-to-be: what it means, how it reached us, and its raw bytes.

    `content_key` makes the arrival unique within its channel together with `number`: `mail_content_key`
    for a mail, the 16 bytes of the UUID given on receipt for a POST. `number` counts the items of one
    payload from 0; only item 0 carries the payload.
    """

    reading: Readable | Unreadable
    channel: Channel
    source: str
    content_key: bytes
    arrived_at: datetime
    payload: Payload | None
    position: Position = Position()
    number: int = 0
    peer: str | None = None
    sender_verified: bool | None = None


@dataclass(frozen=True, slots=True)
class CursorMove:
    """The mailbox cursor after this submission: everything up to `last_uid` has its outcome or is pending.

    `accounts` are the names under which the mailbox was reached, a line each; `uids` and `marks` what stood
    in the folder then (`intake.mailbox.standing`). None: nothing is known of it.
    """

    mailbox: str
    folder: str
    uidvalidity: int
    last_uid: int
    accounts: str | None = None
    uids: str | None = None
    marks: bytes | None = None


class Action(StrEnum):
    """Work on the server that survives a crash in the table `pending`."""

    FETCH = "fetch"
    SEEN = "seen"
    MOVE = "move"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Pending:
    """One thing still to be fetched from, or done on, a mailbox.

    `content_key` is the archive's key of the mail that something is to be done to (`keys.keyed`).
    """

    mailbox: str
    folder: str
    uidvalidity: int
    uid: int
    action: Action
    content_key: bytes | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class InputProgress:
    """How far an input file of an import has been read: `position` in the decompressed stream, and the
    SHA-256 of all bytes before it. `since` is where the step began (None: anywhere): the archive must stand
    there still, else somebody else reads the same input for the same run."""

    input_id: int
    position: int
    sha256: bytes
    size: int | None = None
    since: int | None = None

    def after(self, earlier: "InputProgress | None") -> "InputProgress":
        """Return this step joined to the `earlier` one of the same input."""
        return self if earlier is None else replace(self, since=earlier.since)


@dataclass(frozen=True, slots=True)
class Submission:
    """What must become durable together: it is never split over two transactions.

    `ignored` and `failed` only count; they leave nothing else behind. `after_store` is the action queued
    in `pending` for every mailbox item that ends as stored or duplicate. `look_alikes` says of the ignored
    which had something of ours: (source, what they lacked, how many).
    """

    run_id: int | None
    items: tuple[Item, ...] = ()
    ignored: int = 0
    failed: int = 0
    cursor: CursorMove | None = None
    to_do: tuple[Pending, ...] = ()
    done: tuple[Pending, ...] = ()
    after_store: Action | None = None
    progress: tuple[InputProgress, ...] = ()
    look_alikes: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcomes of a submission's items, in their order; it exists only once they are committed."""

    outcomes: tuple[Outcome, ...]


def mail_content_key(raw: bytes) -> bytes:
    """Return the 36-byte content key of a mail: its day, then SHA-256 over its bytes with LF ends.

    IMAP hands a mail out with CRLF, an mbox keeps it with LF and adds a line end of its own; both are the
    same arrival, so line ends at the very end do not count.
    """
    day = mail_day(raw)
    if b"\r\n" in raw:
        raw = raw.replace(b"\r\n", b"\n")
    return day + hashlib.sha256(raw.rstrip(b"\r\n")).digest()


def mail_day(beginning: bytes) -> bytes:
    """Return the day of a mail's Date line as four bytes that sort like days, zeros where it has none.

    Mails come in the order of their days: with the day in front, keys that come together lie together in
    the index. Without it each insert into a large archive touches pages of its own, and a million rows
    took three times as long as the first hundred thousand. `beginning` is the mail, or at least its first
    32 KiB; the answer is the same for both kinds of line ends.
    """
    head = beginning
    at = -1 if head.startswith(b"Date:") else head.find(b"\nDate:", 0, _SURE)
    if at < 0:
        head = b"\n" + beginning[:_HEAD]
        if b"\r" in head:
            head = head.replace(b"\r\n", b"\n")
        at = head.find(b"\nDate:", 0, _HEAD // 2)
    match = _DATE.match(head, at) if at >= 0 else None
    return _day(match[1]) if match else NO_DAY


@lru_cache(maxsize=64)
def _day(written: bytes) -> bytes:
    day, month, year = written.split(b" ")
    return (int(year) * 10000 + _MONTHS.get(month, 0) * 100 + int(day)).to_bytes(4, "big")
