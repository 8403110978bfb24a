"""Reading the archive for people: one SMS with all its evidence, the quarantine, counts."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Select, bindparam, func, select, text, union

from ingestor.archive import tables
from ingestor.archive.engine import reading
from ingestor.archive.tables import WholeSecond
from ingestor.archive.views import inbound_sms, quarantine
from ingestor.providers.contract import NEAR_MISSES
from ingestor.record import REFUSED, Channel

Row = Mapping[str, Any]


class Evidence(NamedTuple):
    """One SMS with its provenance: the view's row, the raw numbers and details, and every arrival.

    Each arrival has size and SHA-256 of its raw bytes where they are kept (of the whole payload).
    """

    sms: Row
    content: Row | None
    arrivals: tuple[Row, ...]


class Quarantined(NamedTuple):
    """One quarantined arrival: the table's row, its verdicts, and whether its raw bytes are kept."""

    arrival: Row
    verdicts: tuple[Row, ...]
    stands: bool


class KeptPayload(NamedTuple):
    """Raw bytes as they arrived; `whole` is false where only the beginning of a large mail was kept."""

    raw: bytes
    content_type: str | None
    whole: bool

    def __repr__(self) -> str:
        return f"KeptPayload({len(self.raw)} bytes, {self.content_type!r})"


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands in the quarantine from one source for one reason; `newest` is aware UTC."""

    source: str
    channel: str
    reason: str
    count: int
    newest: datetime


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """Ignored mails with something of ours, by what they lacked beside the sender; `newest` is aware UTC."""

    missing: str
    count: int
    newest: datetime


@dataclass(frozen=True, slots=True)
class Refusals:
    """Items that the tables did not take, the newest at `last`; `every` says that none was stored since."""

    count: int
    last: datetime
    every: bool


class Counts(NamedTuple):
    """How much the archive holds."""

    sms: int
    arrivals: int
    quarantined: int
    pending: int
    first_received: datetime | None
    last_received: datetime | None


def show(engine: Engine, sms_id: int) -> Evidence | None:
    """Return everything known about one SMS, None where there is none with that id."""
    content, a, r, p = tables.sms_content, tables.arrivals, tables.retries, tables.payloads
    # Two halves, each by its index: with OR PostgreSQL read all arrivals and all payloads.
    every = union(
        select(a.c.id).where(a.c.sms_id == sms_id), select(r.c.arrival_id).where(r.c.sms_id == sms_id)
    )
    arrivals = (
        select(
            *_of_arrival(),
            p.c.size.label("payload_size"),
            p.c.sha256.label("payload_sha256"),
            p.c.content_type,
            a.c.sms_id.is_(None).label("read_by_retry"),
        )
        .select_from(_whole_arrivals())
        .outerjoin(p, p.c.arrival_id == _payload_owner())
        .where(a.c.id.in_(every))
        .order_by(a.c.id)
    )
    with reading(engine) as connection:
        row = connection.execute(select(inbound_sms).where(inbound_sms.c.id == sms_id)).mappings().first()
        if row is None:
            return None
        kept = connection.execute(select(content).where(content.c.sms_id == sms_id)).mappings().first()
        return Evidence(
            dict(row),
            dict(kept) if kept else None,
            tuple(dict(arrival) for arrival in connection.execute(arrivals).mappings()),
        )


def raw_of_arrival(engine: Engine, arrival_id: int) -> bytes | None:
    """Return the raw bytes of `kept_payload`, which raises ValueError where they are damaged."""
    with reading(engine) as connection:
        payload = kept_payload(connection, arrival_id)
        return payload.raw if payload else None


def is_erased(kind: str, row_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether an erasure took the content of a row."""
    e = tables.erased.c
    return select(e.row_id).where(e.kind == kind, e.row_id == row_id).exists()


def unread() -> Select[int]:
    """Return the arrivals that came into the quarantine, were never read since, and are not erased."""
    a, r = tables.arrivals.c, tables.retries.c
    read = select(r.id).where(r.arrival_id == a.id, r.sms_id.is_not(None)).exists()
    return select(a.id).where(a.outcome == "quarantined", ~read, ~is_erased("arrival", a.id))


def kept_payload(connection: Connection, arrival_id: int) -> KeptPayload | None:
    """Return the payload that an arrival came with, if kept. Raises ValueError where it is damaged."""
    a, p = tables.arrivals, tables.payloads
    row = connection.execute(
        select(p).select_from(a).join(p, p.c.arrival_id == _payload_owner()).where(a.c.id == arrival_id)
    ).first()
    if row is None:
        return None
    from ingestor.archive.payloads import unpack  # no list and no count needs it

    known = dictionaries(connection) if row.dictionary_id else None
    raw = unpack(row.compressed, row.dictionary_id, known)
    if hashlib.sha256(raw).digest() != row.sha256:
        raise ValueError("the stored payload is not what arrived: its SHA-256 differs")
    return KeptPayload(raw, row.content_type, row.size <= len(raw))


def dictionaries(connection: Connection) -> dict[int, bytes]:
    """Return the archive's compression dictionaries by id."""
    table = tables.dictionaries
    return {number: bytes(data) for number, data in connection.execute(select(table.c.id, table.c.bytes))}


def quarantine_list(engine: Engine, limit: int | None = None) -> list[Row]:
    """Return the rows of the view `quarantine`, newest first."""
    query = select(quarantine).order_by(quarantine.c.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def standing(engine: Engine) -> list[Standing]:
    """Return what stands in the quarantine by source and reason, what came last first."""
    columns = quarantine.c
    newest = func.max(columns.arrived_at, type_=columns.arrived_at.type)
    kinds = columns.source, columns.channel, columns.reason
    query = select(*kinds, func.count(), newest).group_by(*kinds).order_by(newest.desc())
    with reading(engine) as connection:
        return [Standing(*row) for row in connection.execute(query)]


def look_alikes(engine: Engine) -> list[LookAlikes]:
    """Return how many ignored mails looked like ours, what came last first."""
    columns = tables.look_alikes.c
    newest = func.max(columns.last_at, type_=columns.last_at.type)
    query = select(columns.missing, func.sum(columns.number), newest).group_by(columns.missing)
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(newest.desc()))
        return [LookAlikes(missing, int(number), when) for missing, number, when in rows]


def near_misses_since(engine: Engine, mailbox: str, since: datetime) -> int:
    """Return how many mails of strangers `mailbox` has put into the quarantine since `since` (aware UTC)."""
    a = tables.arrivals.c
    query = select(func.count()).where(
        a.outcome == "quarantined", a.reason.in_(sorted(NEAR_MISSES)), a.channel == Channel.MAILBOX.value,
        a.source == mailbox, a.ingested_at >= bindparam(None, since, WholeSecond),
    )  # fmt: skip
    with reading(engine) as connection:
        return int(connection.execute(query).scalar_one())


def quarantine_show(engine: Engine, arrival_id: int) -> Quarantined | None:
    """Return a quarantined arrival with all its verdicts, None where that arrival never stood there."""
    a, r = tables.arrivals, tables.retries
    found = (
        select(*_of_arrival())
        .select_from(_whole_arrivals())
        .where(a.c.id == arrival_id, a.c.outcome == "quarantined")
    )
    with reading(engine) as connection:
        arrival = connection.execute(found).mappings().first()
        if arrival is None:
            return None
        verdicts = connection.execute(
            select(r).where(r.c.arrival_id == arrival_id).order_by(r.c.id)
        ).mappings()
        known = tuple(dict(verdict) for verdict in verdicts)
        return Quarantined(dict(arrival), known, not known or known[-1]["outcome"] == "quarantined")


def refusals(engine: Engine) -> Refusals | None:
    """Return what the database refused and stands in the quarantine for it, None where nothing does."""
    a = tables.arrivals
    refused = select(func.count(), func.max(quarantine.c.id), func.max(quarantine.c.arrived_at)).where(
        quarantine.c.reason.startswith(REFUSED, autoescape=True)
    )
    stored = select(a.c.id).where(a.c.outcome == "stored").order_by(a.c.id.desc()).limit(1)
    with reading(engine) as connection:
        count, newest, at = connection.execute(refused).one()
        if not count:
            return None
        return Refusals(count, at, every=newest > (connection.execute(stored).scalar() or 0))


def all_refused(engine: Engine) -> str | None:
    """Return a sentence where the tables take no item any more, None where they do."""
    found = refusals(engine)
    if found is None or not found.every:
        return None
    return (
        f"the database refuses every item: {found.count:,} stand in the quarantine for it; "
        "run `ingestor check`, and when the archive is mended `ingestor quarantine retry`"
    )


def counts(engine: Engine) -> Counts:
    """Return how much the archive holds."""

    def number_of(table: Any) -> Any:
        return select(func.count()).select_from(table).scalar_subquery()

    received = tables.sms.c.received_at
    first, last = (select(one(received)).scalar_subquery() for one in (func.min, func.max))
    numbers = map(number_of, (tables.sms, tables.arrivals, quarantine, tables.pending))
    query: Any = select(*numbers, first, last)
    with reading(engine) as connection:
        return Counts(*connection.execute(query).one())


_MOST_OF_THEM: Final = 0.8
_SLACK: Final = timedelta(minutes=6)  # what an SMS takes to arrive at most, as a rule
_WITHIN: Final = timedelta(days=1)


def whole_hours_off(
    connection: Connection, now: datetime, provider: str | None = None, *, least: int = 3, newest: int = 50
) -> int | None:
    """Return by how many whole hours the SMS (of `provider`) seem to have been sent before they arrived.

    None where most of the `newest` do not, or fewer than `least` of them have come within a day.
    """
    a, sms = tables.arrivals.c, tables.sms.c
    query = (
        select(a.arrived_at, sms.received_at)
        .join_from(tables.arrivals, tables.sms, sms.id == a.sms_id)
        .where(text(tables.ANSWERABLE), a.ingested_at > now - _WITHIN)
        .order_by(a.ingested_at.desc())
        .limit(newest)
    )
    if provider is not None:
        query = query.where(sms.provider == provider)
    gaps = [arrived - received for arrived, received in connection.execute(query)]
    hours = Counter(whole for gap in gaps if (whole := _whole_hours(gap)) is not None)
    if not hours:
        return None
    ((commonest, times),) = hours.most_common(1)
    return commonest if commonest and times >= least and times >= _MOST_OF_THEM * len(gaps) else None


def _whole_hours(gap: timedelta) -> int | None:
    """Return the whole hours of `gap` where no more than some minutes remain, None elsewhere."""
    hours, rest = divmod(gap + timedelta(minutes=1), timedelta(hours=1))
    return hours if rest <= _SLACK and abs(hours) <= 14 else None


def copies_before(engine: Engine, path: str, member: str | None, offset: int) -> Iterator[tuple[bytes, int]]:
    """Give how many imported mails of each content key lie in an input before `offset`."""
    a, content = tables.arrivals.c, tables.arrival_content.c
    query = (
        select(a.content_key, func.count())
        .join_from(tables.arrivals, tables.arrival_content, content.arrival_id == a.id)
        .where(
            content.input == path, content.member.is_not_distinct_from(member), a.byte_offset < offset,
            a.channel == Channel.IMPORT.value,
        )
        .group_by(a.content_key)
    )  # fmt: skip
    with reading(engine) as connection:
        for key, number in connection.execution_options(yield_per=1000).execute(query):
            yield bytes(key), number


def _whole_arrivals() -> Any:
    """Return the arrivals, with what was found of their senders, and what may name a person until erased."""
    a, content, checks = tables.arrivals, tables.arrival_content, tables.sender_checks
    whole = a.outerjoin(content, content.c.arrival_id == a.c.id)
    return whole.outerjoin(checks, checks.c.id == a.c.sender_check_id)


def _of_arrival() -> list[Any]:
    """Return the columns of `_whole_arrivals` that say something to a person: keys and salt do not."""
    content = tables.arrival_content.c
    return [
        *(one for one in tables.arrivals.c if one.name not in ("place", "sender_check_id")),
        *(one.label(f"sender_{one.name}") for one in tables.sender_checks.c if one.name != "id"),
        *(one for one in content if one.name not in ("arrival_id", "salt")),
    ]


def _payload_owner() -> Any:
    """Return the id of the arrival that carries the payload of the arrival in the enclosing query."""
    a, whole, p = tables.arrivals, tables.arrivals.alias("whole"), tables.payloads.alias("kept")
    return (
        select(func.min(p.c.arrival_id))
        .join_from(whole, p, p.c.arrival_id == whole.c.id)
        .where(whole.c.content_key == a.c.content_key, whole.c.number == 0, whole.c.channel == a.c.channel)
        .correlate(a)
        .scalar_subquery()
    )
