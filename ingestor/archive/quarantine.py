"""The quarantine at work: read again with today's parsers, discard with a reason, export as an mbox."""

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, BinaryIO

from sqlalchemy import Connection, Engine, insert, select

from ingestor import providers
from ingestor.archive import tables
from ingestor.archive.engine import reading, writing
from ingestor.archive.entries import Item, Position
from ingestor.archive.inserts import inserts_for
from ingestor.archive.queries import kept_payload
from ingestor.archive.store import Store
from ingestor.archive.targets import RETRIES
from ingestor.archive.views import quarantine
from ingestor.providers import posts
from ingestor.providers.contract import (
    NEAR_MISSES,
    NO_MEMORY,
    NotOurs,
    Readable,
    Reading,
    Rules,
    Unreadable,
    near_miss_in_words,
)
from ingestor.record import Channel, Outcome

MISSING = "its raw bytes are no longer kept"
TRUNCATED = "only its beginning was kept, because it was too large"

_BATCH = 200
_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kept:
    """A quarantined arrival with its raw bytes, to be read again.

    `parser` is what could not read it, like `agile.mail/1`: its first part names the provider. `raw` is
    None where the bytes are no longer kept; `whole` is false where only their beginning is.
    """

    id: int
    channel: Channel
    parser: str
    number: int
    content_type: str | None
    arrived_at: datetime
    source: str
    reason: str
    raw: bytes | None = field(repr=False)
    whole: bool
    row: Any = field(repr=False)

    @property
    def provider(self) -> str:
        """The name of the provider whose parser could not read it."""
        return self.parser.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a quarantined arrival; `reason` is set where it stays."""

    arrival_id: int
    outcome: Outcome
    reason: str | None


Reader = Callable[[Kept], Sequence[Reading]]


def todays_reader(rules_for: Callable[[str], Rules]) -> Reader:
    """Return a reader that asks today's parser of each arrival's provider; `rules_for` takes its name."""

    def read(kept: Kept) -> Sequence[Reading]:
        rules = rules_for(kept.provider)
        raw = kept.raw or b""
        if kept.channel is Channel.WEBHOOK:
            post = posts.post_of(raw, kept.content_type, kept.arrived_at)
            again: Sequence[Reading] = providers.post_reader(kept.provider).read_post(post, rules)
            return again
        return [providers.mail_reader(kept.provider).read_mail(raw, rules)]

    return read


def reason_in_words(engine: Engine, arrival_id: int, reason: str | None) -> str | None:
    """Return why an arrival stands in the quarantine; who a stranger is, is told out of its kept bytes."""
    if reason not in NEAR_MISSES:
        return reason
    try:
        kept = kept_arrival(engine, arrival_id)
    except ValueError:  # damaged bytes: `show` and `check --deep` say so
        return near_miss_in_words(reason)
    who = providers.mail_reader(kept.provider).sender_shown(kept.raw) if kept.raw else "somebody"
    return near_miss_in_words(reason, who)


def retry(
    store: Store, reader: Reader, run_id: int | None, now: datetime, ids: Sequence[int] | None = None
) -> Iterator[Verdict]:
    """Read what stands in the quarantine again (`ids`: only these); give each verdict once it is durable.

    `reader` gets an arrival with its raw bytes and returns the readings of all items of that payload. What
    is readable now becomes an SMS with its old provenance; every verdict is a row in `retries`, no arrival
    is changed. `now` is aware UTC.
    """
    standing = standing_ids(store.engine, ids)
    for start in range(0, len(standing), _BATCH):
        numbers = standing[start : start + _BATCH]
        again = [_read_again(store.engine, reader, number) for number in numbers]
        outcomes = store.read_again(again, run_id, now)
        for number, (item, _), outcome in zip(numbers, again, outcomes, strict=True):
            yield Verdict(number, outcome, getattr(item.reading, "reason", None))


def discard(
    engine: Engine, ids: Sequence[int], reason: str, now: datetime, run_id: int | None = None
) -> list[int]:
    """Take arrivals out of the quarantine for a stated reason, bytes and all kept; return which stood there.

    Raises ValueError where the reason is blank.
    """
    if not reason.strip():
        raise ValueError("a discard needs a reason")
    with writing(engine) as connection:
        standing = _standing(connection, ids)
        if not standing:
            return []
        [numbers] = inserts_for(connection).reserve((RETRIES, len(standing)))
        verdict = {"outcome": "discarded", "reason": reason, "run_id": run_id, "retried_at": now}
        connection.execute(
            insert(tables.retries),
            [
                {"id": number, "arrival_id": arrival_id, **verdict}
                for number, arrival_id in zip(numbers, standing, strict=True)
            ],
        )
    return standing


def export_mbox(engine: Engine, out: BinaryIO, ids: Sequence[int] | None = None) -> int:
    """Write what stands in the quarantine to `out` as an mbox (mboxrd); return how many mails it has.

    A mail is written as it came, with LF ends. A POST is wrapped in a mail that says where it came from,
    its body attached. Arrivals whose bytes are no longer kept are left out.
    """
    written = 0
    for number in standing_ids(engine, ids):
        kept = kept_arrival(engine, number)
        if kept.raw is None:
            continue
        mail = kept.raw if kept.channel is not Channel.WEBHOOK else _wrapped(kept)
        mail = mail.replace(b"\r\n", b"\n")
        stamp = kept.arrived_at.strftime("%a %b %d %H:%M:%S %Y")
        out.write(b"From MAILER-DAEMON " + stamp.encode() + b"\n")
        out.write(_FROM_LINE.sub(rb">\1", mail))
        out.write(b"\n" if mail.endswith(b"\n") else b"\n\n")
        written += 1
    return written


def standing_ids(engine: Engine, ids: Sequence[int] | None = None) -> list[int]:
    """Return the ids of all arrivals that stand in the quarantine, or of those among `ids`."""
    with reading(engine) as connection:
        return _standing(connection, ids)


def _standing(connection: Connection, ids: Sequence[int] | None) -> list[int]:
    query = select(quarantine.c.id).order_by(quarantine.c.id)
    if ids is not None:
        query = query.where(quarantine.c.id.in_(ids))
    return list(connection.execute(query).scalars())


def kept_arrival(engine: Engine, arrival_id: int) -> Kept:
    """Return an arrival with its raw bytes. Raises ValueError where they are damaged."""
    a = tables.arrivals
    with reading(engine) as connection:
        row = connection.execute(select(a).where(a.c.id == arrival_id)).one()
        payload = kept_payload(connection, arrival_id)
    return Kept(
        id=row.id,
        channel=Channel(row.channel),
        parser=row.parser,
        number=row.number,
        content_type=payload.content_type if payload else None,
        arrived_at=row.arrived_at,
        source=row.source,
        reason=row.reason,
        raw=payload.raw if payload else None,
        whole=payload is not None and payload.whole,
        row=row,
    )


def _read_again(engine: Engine, reader: Reader, arrival_id: int) -> tuple[Item, bytes]:
    """Return an arrival as it reads today, with its content key; its raw bytes, many perhaps, are let go."""
    kept = kept_arrival(engine, arrival_id)
    return _item(kept, read_today(reader, kept)), bytes(kept.row.content_key)


def read_today(reader: Reader, kept: Kept) -> Readable | Unreadable:
    """Return what `reader` makes of an arrival's own item today."""
    if kept.raw is None:
        return Unreadable(MISSING, kept.parser)
    if not kept.whole:
        return Unreadable(TRUNCATED, kept.parser)
    try:
        readings = reader(kept)
    except MemoryError:
        return Unreadable(NO_MEMORY, kept.parser)
    if kept.number >= len(readings):
        return Unreadable("today's parser finds fewer items in its payload", kept.parser)
    found = readings[kept.number]
    if isinstance(found, NotOurs):
        return Unreadable("today's parser does not take it for ours", kept.parser)
    return found


def _item(kept: Kept, found: Readable | Unreadable) -> Item:
    """Return `found` with the provenance that stands in the archive; its payload is there already."""
    row = kept.row
    place = Position(
        row.folder, row.uidvalidity, row.uid, row.input, row.member, row.byte_offset, row.byte_length
    )
    return Item(
        reading=found, channel=kept.channel, source=kept.source, content_key=bytes(row.content_key),
        arrived_at=kept.arrived_at, payload=None, position=place, number=kept.number, peer=row.peer,
    )  # fmt: skip


def _wrapped(kept: Kept) -> bytes:
    mail = EmailMessage()
    mail["From"] = "quarantine@ingestor.invalid"
    mail["Date"] = format_datetime(kept.arrived_at)
    mail["Subject"] = f"Quarantined POST {kept.id}"
    mail["X-Ingestor-Source"] = _header(kept.source)
    mail["X-Ingestor-Reason"] = _header(kept.reason)
    mail["X-Ingestor-Content-Type"] = _header(kept.content_type or "none")
    mail["Content-Type"] = "application/octet-stream"
    mail["Content-Transfer-Encoding"] = "base64"
    return bytes(mail) + base64.encodebytes(kept.raw or b"")


def _header(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:200]
