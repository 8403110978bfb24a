"""What stands in the quarantine: to be read again, discarded with a reason, or exported as an mbox."""

import base64
import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, BinaryIO

from sqlalchemy import Connection, Engine, insert, select

from ingestor.archive import tables
from ingestor.archive.engine import reading, writing
from ingestor.archive.queries import kept_payload, unread
from ingestor.archive.rows import number_form
from ingestor.archive.views import quarantine
from ingestor.providers.contract import NO_MEMORY, NotOurs, Readable, Reading, Unreadable
from ingestor.record import Channel

MISSING = "its raw bytes are no longer kept"
TRUNCATED = "only its beginning was kept, because it was too large"

_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kept:
    """A quarantined arrival, to be read again; `raw` is None where its bytes are gone, or `damaged`."""

    id: int
    channel: Channel
    parser: str
    number: int
    content_type: str | None
    arrived_at: datetime
    source: str
    reason: str
    content_key: bytes
    place: bytes
    raw: bytes | None = field(repr=False)
    whole: bool
    sender_verified: bool | None
    damaged: str | None

    @property
    def provider(self) -> str:
        """The name of the provider whose parser could not read it."""
        return self.parser.partition(".")[0]


Reader = Callable[[Kept], Sequence[Reading]]


def discard(engine: Engine, ids: Sequence[int], reason: str, now: datetime) -> list[int]:
    """Take arrivals out of the quarantine for a reason, which is not blank; return which stood there."""
    if not reason.strip():
        raise ValueError("a discard needs a reason")
    with writing(engine) as connection:
        standing = _standing(connection, ids)
        write_discarded(connection, standing, reason, now)
    return standing


def write_discarded(connection: Connection, arrivals: Sequence[int], reason: str, now: datetime) -> None:
    """Write down that arrivals that stand in the quarantine are discarded, in the caller's transaction."""
    from ingestor.archive.inserts import reserve  # what is only looked at needs nothing that stores

    if arrivals:
        [numbers] = reserve(connection, retries=len(arrivals))
        verdict = {"outcome": "discarded", "reason": reason, "retried_at": now}
        rows = zip(numbers, arrivals, strict=True)
        connection.execute(
            insert(tables.retries), [{"id": one, "arrival_id": arrival, **verdict} for one, arrival in rows]
        )


def export_mbox(engine: Engine, out: BinaryIO, ids: Sequence[int] | None = None) -> tuple[int, list[int]]:
    """Write what stands in the quarantine as an mbox (mboxrd); return how many mails, and what is damaged."""
    written, damaged = 0, []
    for number in standing_ids(engine, ids):
        kept = kept_arrival(engine, number)
        if kept.raw is None:
            damaged += [number] if kept.damaged else []
            continue
        mail = kept.raw if kept.channel is not Channel.WEBHOOK else _wrapped(kept)
        mail = mail.replace(b"\r\n", b"\n")
        stamp = kept.arrived_at.strftime("%a %b %d %H:%M:%S %Y")
        out.write(b"From MAILER-DAEMON " + stamp.encode() + b"\n")
        out.write(_FROM_LINE.sub(rb">\1", mail))
        out.write(b"\n" if mail.endswith(b"\n") else b"\n\n")
        written += 1
    return written, damaged


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
    """Return an arrival with its raw bytes."""
    a = tables.arrivals
    payload = damaged = None
    with reading(engine) as connection:
        row = connection.execute(select(a).where(a.c.id == arrival_id)).one()
        try:
            payload = kept_payload(connection, arrival_id)
        except ValueError as fault:
            damaged = str(fault)
    as_they_are: dict[str, Any] = {name: getattr(row, name) for name in Kept.__slots__ if name in a.c}
    raw, content_type, whole = payload or (None, None, False)
    return Kept(
        **as_they_are | {"channel": Channel(row.channel)},
        content_type=content_type, raw=raw, whole=whole, damaged=damaged,
    )  # fmt: skip


def naming(engine: Engine, numbers: Sequence[str]) -> tuple[list[int], int]:
    """Return which arrivals that nobody could read name one of `numbers`, and how many were looked at."""
    content = tables.arrival_content.c
    wanted = [_written(number) for number in numbers]
    found = []
    with reading(engine) as connection:
        ids = list(connection.execute(unread().order_by(tables.arrivals.c.id)).scalars())
        for number in ids:
            subject = connection.execute(select(content.subject).where(content.arrival_id == number)).scalar()
            try:
                payload = kept_payload(connection, number)
            except ValueError:  # damaged, which `check --deep` says
                payload = None
            texts = [subject or "", *(_texts(payload.raw) if payload is not None else ())]
            if any(one.search(text) for one in wanted for text in texts):
                found.append(number)
    return found, len(ids)


def _written(number: str) -> re.Pattern[str]:
    """Return what finds `number` however it is written: with blanks, points and the like between digits."""
    form = number_form(number)
    between = r"[\s.()/-]*"
    digits = rf"(?<!\d)(?:0{between}0{between})?{between.join(form)}(?!\d)"
    return re.compile(digits if form.isdecimal() else rf"(?<!\w){re.escape(form)}(?!\w)", re.IGNORECASE)


def _texts(raw: bytes) -> Iterator[str]:
    plain = raw.decode("latin-1")
    yield plain
    yield urllib.parse.unquote_plus(plain, "latin-1")
    for part in message_from_bytes(raw).walk():
        decoded = part.get_payload(decode=True)
        if isinstance(decoded, bytes):
            yield decoded.replace(b"\0", b"").decode("utf-8", "replace")


def read_today(reader: Reader, kept: Kept) -> Readable | Unreadable:
    """Return what `reader` makes of an arrival's own item today."""
    if kept.raw is None:
        return Unreadable(kept.damaged or MISSING, kept.parser)
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
