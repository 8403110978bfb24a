"""From an item to the one row of it that the database takes: its keys, columns, JSON and packed bytes.

Every intake's items come through here, in the writer's thread or in an import's worker process. Keys begin
with a time where they can: mails come in the order of their days, and keys that come together then lie
together in the index. Without it each insert into a large archive touches pages of its own, and a million
rows took three times as long as the first hundred thousand. The time follows from what the key is taken
over, so that keys are equal exactly where they would be without it.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from ingestor.archive.items import (
    ArrivalContent,
    ContentColumns,
    Item,
    NumberColumns,
    Payload,
    PlaceColumns,
    Row,
    SmsColumns,
)
from ingestor.archive.payloads import Dictionary, compress, pack
from ingestor.providers.contract import Readable
from ingestor.record import FINGERPRINT_VERSION, REFUSED, Channel, InboundSms, fingerprint, keyed_digest
from ingestor.timestamps import iso_utc

NO_DAY: Final = bytes(4)
MAIL_KEY_BYTES: Final = 36
POST_KEY_BYTES: Final = 16

NO_PLACE: Final = b""
_PLACE_BYTES = 16
_FLAGS = re.compile(r"[:!;]2,[A-Za-z]*\Z")  # the latter two where a file system has no colon
_READ_OR_NEW = re.compile(r"(^|[/!])(?:cur|new)/([^/]*)\Z")

_NO_DIGIT = re.compile(r"[^0-9]")
_NO_TIME = bytes(6)
_MOST_SEGMENTS = 2**31 - 1
_LONGEST_HELD = 1 << 20
_HEAD = 32768
_DATE = re.compile(rb"Date:[ \t]*(?:[A-Za-z]{3},[ \t]*)?([0-9]{1,2} [A-Za-z]{3} [0-9]{4})\b")
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

_MOST_SHARED = 64
_shared_details: dict[int, tuple[Mapping[str, Any], str]] = {}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def row_of(item: Item, secret: bytes) -> Row:
    """Return the row of `item` under the archive's key; what cannot be written down becomes unreadable."""
    reading, position = item.reading, item.position
    reason = item.reason
    columns: tuple[SmsColumns, ContentColumns, NumberColumns] | tuple[None, None, None] = None, None, None
    if isinstance(reading, Readable):
        try:
            columns = _columns(reading.sms, secret)
        except (UnicodeError, OverflowError, TypeError, ValueError) as error:
            reason = f"{REFUSED}: {type(error).__name__}"
    sms, content, numbers = columns
    arrived_at = item.arrived_at
    return Row(  # in their order: by name it takes 0.8 µs more
        item.kept_key or keyed(item.content_key, secret), str(item.channel), item.number, item.source,
        reading.parser, reason, None if arrived_at is None else iso_utc(arrived_at), item.sender_verified,
        item.sender_check, item.kept_key is not None,
        PlaceColumns(
            item.kept_place or _place(item, secret), position.folder, position.uidvalidity, position.uid,
            position.offset, position.length,
        ),
        ArrivalContent(position.input, position.member, reading.message_id, reading.subject, item.peer),
        sms, content, numbers, item.payload,
    )  # fmt: skip


def _place(item: Item, secret: bytes) -> bytes:
    if item.channel is not Channel.IMPORT:
        return NO_PLACE
    return place_of(secret, item.position.input, item.position.member, item.position.copy)


def unreadable(row: Row, why: str) -> Row:
    """Return `row` as one for the quarantine, because the database takes it in no other form."""
    return row._replace(sms=None, content=None, numbers=None, reason=f"{REFUSED}: {why}")


def _columns(sms: InboundSms, secret: bytes) -> tuple[SmsColumns, ContentColumns, NumberColumns]:
    if "\0" in sms.text or "\0" in sms.originator_raw or "\0" in sms.destination_raw:
        raise ValueError  # SQLite would take a NUL, PostgreSQL would not: both refuse
    if sms.segments is not None and not 0 <= sms.segments <= _MOST_SEGMENTS:
        raise OverflowError  # likewise
    columns = SmsColumns(
        unique_key(sms, secret), FINGERPRINT_VERSION, sms.provider, str(sms.originator_kind), sms.destination,
        sms.date_time, iso_utc(sms.received_at), str(sms.time_quality), sms.provider_message_id, sms.segments,
    )  # fmt: skip
    content = ContentColumns(
        sms.originator, sms.originator_raw, sms.destination_raw, sms.text, sms.keyword, sms.clean_text,
        details_json(sms.details),
    )  # fmt: skip
    numbers = NumberColumns(number_key(sms.originator, secret), number_key(sms.destination, secret))
    return columns, content, numbers


@lru_cache(maxsize=64)
def number_key(number: str, secret: bytes) -> int:
    """Return what finds the SMS of `number` in every form that it came in: 8 bytes under the archive's key.

    Of a number its digits count, without a leading + or 00; of a name its letters, whatever their case.
    """
    digest = keyed_digest(secret, b"number\0" + number_form(number).encode())
    return int.from_bytes(digest[:8], "big", signed=True)


def number_form(number: str) -> str:
    """Return the one form of all those in which `number` may be written."""
    plain = number.strip()
    bare = plain.removeprefix("+")
    if bare.isascii() and bare.isdecimal():  # nearly all
        return bare.removeprefix("00") or plain
    if any(map(str.isalpha, plain)):
        return plain.casefold()
    digits = _NO_DIGIT.sub("", plain)
    return digits.removeprefix("00") or plain


def details_json(details: Mapping[str, Any]) -> str:
    """Return the column `details` as JSON. Raises TypeError or ValueError where it cannot be written so."""
    if not details:
        return "{}"
    if not isinstance(details, MappingProxyType):
        return _encode(dict(details))
    # Many SMS share it. While it is kept here nothing else gets its id.
    kept = _shared_details.get(id(details))
    if kept is None:
        if len(_shared_details) >= _MOST_SHARED:
            _shared_details.clear()
        kept = _shared_details[id(details)] = details, _encode(dict(details))
    return kept[1]


def unique_key(sms: InboundSms, secret: bytes) -> bytes:
    """Return what makes `sms` unique in the archive: the time of its own clock, and its 32-byte fingerprint.

    The time sorts like the 14 digits; where the fingerprint is taken over the provider's id there is none.
    Raises ValueError or OverflowError where `date_time` is no such number.
    """
    if sms.provider_message_id is not None:
        return _NO_TIME + fingerprint(sms, secret)
    return int(sms.date_time).to_bytes(6, "big") + fingerprint(sms, secret)


def keyed(content_key: bytes, secret: bytes) -> bytes:
    """Return a content key as the archive keeps it.

    Of a mail: its day, and 16 bytes of BLAKE2b under the archive's key, because a plain hash would let the
    text of an erased mail be guessed. The UUID of a POST says nothing about its content, and stays as it is.
    """
    if len(content_key) == POST_KEY_BYTES:
        return content_key
    day = content_key[:4] if len(content_key) == MAIL_KEY_BYTES else NO_DAY
    return day + hashlib.blake2b(content_key, key=secret, digest_size=16).digest()


@lru_cache(maxsize=64)
def place_of(secret: bytes, path: str | None, member: str | None, copy: int) -> bytes:
    """Return what tells the places of an import's mail apart, beside its content key: 16 bytes, keyed.

    A Maildir's mail is the same one in `new` and in `cur`, whatever its flags. Offsets do not count, because
    they move when a file is compacted: an mbox's mail is the `copy`-th of those with its bytes in that input.
    Of mails that reach us by mailbox or webhook it is `NO_PLACE`: read again, they have not arrived again.
    """
    written = (_READ_OR_NEW.sub(r"\1\2", _FLAGS.sub("", one or "")) for one in (path, member))
    message = "\0".join(("place", *written, str(copy)))
    return hmac.digest(secret, message.encode(), "sha256")[:_PLACE_BYTES]


def keys_of_earlier_post(identity: bytes, secret: bytes) -> tuple[bytes, ...]:
    """Return the keys under which early programs wrote a POST down: their UUIDs had version 4."""
    if len(identity) != POST_KEY_BYTES or identity[6] >> 4 != 4:
        return ()
    long, short = (hashlib.blake2b(identity, key=secret, digest_size=size).digest() for size in (32, 16))
    return hmac.digest(secret, identity, "sha256"), long, NO_DAY + short


class ContentKey:
    """The content key of a mail that comes in pieces: its day, then SHA-256 over its bytes with LF ends.

    IMAP hands a mail out with CRLF, an mbox keeps it with LF and adds a line end of its own; both are the
    same arrival, so line ends at the very end do not count (up to a MiB of them: they are held in memory).
    """

    def __init__(self) -> None:
        self._beginning = b""
        self._digest = hashlib.sha256()
        self._held = b""

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        if len(self._beginning) < _HEAD:
            self._beginning += piece[:_HEAD]
        if len(self._held) > _LONGEST_HELD:
            self._digest.update(self._held.replace(b"\r\n", b"\n"))
            self._held = b""
        piece = self._held + piece
        body = piece.rstrip(b"\r\n")
        self._held = piece[len(body) :]
        self._digest.update(body.replace(b"\r\n", b"\n"))

    def digest(self) -> bytes:
        """Return the 36 bytes of the key."""
        return mail_day(self._beginning) + self._digest.digest()


def mail_content_key(raw: bytes) -> bytes:
    """Return the 36-byte content key of a whole mail."""
    key = ContentKey()
    key.feed(raw)
    return key.digest()


def packed_mail(raw: bytes, dictionary: Dictionary | None) -> tuple[bytes, Payload]:
    """Return the content key of a whole mail, and what `pack` makes of it.

    Without CR its bytes go through SHA-256 once for both: 6 µs of 20.
    """
    if b"\r" in raw:
        return mail_content_key(raw), pack(raw, dictionary=dictionary)
    body = raw.rstrip(b"\n")
    digest = hashlib.sha256(body)
    key = mail_day(raw) + digest.digest()
    digest.update(raw[len(body) :])
    number = None if dictionary is None else dictionary[0]
    return key, Payload(None, len(raw), digest.digest(), number, compress(raw, dictionary))


def mail_day(beginning: bytes) -> bytes:
    """Return the day of a mail's Date line as four bytes that sort like days, zeros where it has none.

    `beginning` is the mail, or at least its first 32 KiB; the answer is the same for both kinds of line ends.
    """
    head = beginning[:_HEAD]
    if b"\r" in head:
        head = head.replace(b"\r\n", b"\n")
    # Most headers have another field first: then this is where there is none, and the pattern finds nothing.
    at = 0 if head.startswith(b"Date:") else head.find(b"\nDate:", 0, _HEAD // 2 - 1) + 1
    match = _DATE.match(head, at)
    return _day(match[1]) if match else NO_DAY


@lru_cache(maxsize=64)
def _day(written: bytes) -> bytes:
    day, month, year = written.split(b" ")
    number = _MONTHS.index(month) + 1 if month in _MONTHS else 0
    return (int(year) * 10000 + number * 100 + int(day)).to_bytes(4, "big")
