"""The statements of the one writer, in SQLAlchemy Core: what is new goes in, and what did not is looked up.

Each insert is an INSERT … ON CONFLICT DO NOTHING: the unique key is the only judge of what is new, and
nothing is looked up before it is inserted. The dialects differ in four things. Ids: SQLite has one writer at
a time, so that the next ones are free; PostgreSQL draws from sequences. How many rows travel: as VALUES on
SQLite, as one array a column on PostgreSQL (27 µs a row of `arrivals`, 140 as VALUES). Which ones went in:
PostgreSQL says so by RETURNING; on SQLite their number mostly tells, else they are read back. Order: on
PostgreSQL rows go in by their key, so that two writers that lock the same keys cannot wait for each other.

SQLAlchemy writes each insert once, and the driver runs it: by `Connection.execute` the writer took 117 µs
of CPU a POST, in batches of 40, instead of 97 on SQLite, and 178 instead of 104 on PostgreSQL (there with all
that `engine` and one statement for three tables gain). So it is with what is looked up by keys: of a batch
of duplicates a row took 28.4 µs instead of 25.3 on SQLite, 22.8 instead of 14.3 on PostgreSQL.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    func,
    select,
)

from ingestor.archive import tables
from ingestor.archive.columns import Binary, in_parts
from ingestor.archive.engine import reading
from ingestor.archive.faults import as_sqlalchemy
from ingestor.archive.insert_statements import (
    ARRIVALS,
    CHECKS,
    OF_ARRIVALS,
    OF_SMS,
    TARGETS,
    Target,
    among,
    array_of,
    arrived_on_postgresql,
    for_postgresql,
    ids_between,
    of_rows,
)
from ingestor.archive.items import SenderCheck
from ingestor.archive.open_file import open_file
from ingestor.archive.rows import keyed, mail_content_key, unique_key
from ingestor.archive.tables import archive_key
from ingestor.archive.triggers import ERASURES_LOCK
from ingestor.errors import SchemaMismatch
from ingestor.record import InboundSms

_ROWS_A_STATEMENT = 64
_ROWS_IN_STEP = 8  # every length stays prepared in each connection: all up to 64 in 11 MB, these in 2
_KEYS_IN_STEP = 50

Rows = Sequence[tuple[Any, ...]]

Arrivals = dict[tuple[bytes, int, str, bytes], tuple[int, int | None]]
"""(id, the SMS it became, None where it has not been read) by (content key, number, channel, place)."""


def _insert_in_steps(connection: Connection, target: Target, rows: Rows) -> bool:
    """Insert many rows a statement into an SQLite table; say whether all were new.

    The driver lets go of the interpreter for each statement, and waits for it while a listener is busy: a row
    at a time, half as many POSTs came into the archive.
    """
    inserted = start = 0
    with as_sqlalchemy(connection) as driver:
        for length in lengths(len(rows)):
            values = tuple(chain.from_iterable(rows[start : start + length]))
            inserted += driver.execute(of_rows(target, length), values).rowcount
            start += length
    return inserted == len(rows)


def lengths(rows: int) -> Iterator[int]:
    """Give how many rows each statement takes: few, and of few lengths, since each is prepared."""
    while rows:
        length = min(rows, _ROWS_A_STATEMENT)
        if length > _ROWS_IN_STEP:
            length -= length % _ROWS_IN_STEP
        yield length
        rows -= length


def _insert_at_once(connection: Connection, statement: str, given: Mapping[Target, Rows]) -> set[int]:
    """Insert into PostgreSQL tables in one round trip; return the ids that the statement tells."""
    arrays: dict[str, str | Binary] = {}
    for target, rows in given.items():
        columns = zip(*rows, strict=True) if rows else ((),) * len(target.columns)
        arrays.update(zip(target.arrays, map(array_of, columns), strict=True))
    return {number for (number,) in _ask(connection, statement, arrays)}


def _ask(connection: Connection, statement: str, values: Any) -> list[Any]:
    """Return what the driver finds by a statement that SQLAlchemy has written; see the module."""
    with as_sqlalchemy(connection) as driver:
        return list(driver.execute(statement, values).fetchall())


_a, _r = tables.arrivals.c, tables.retries.c

# An arrival has been read when it became an SMS at once, or by a later verdict.
_read_by_retry = select(func.min(_r.sms_id)).where(_r.arrival_id == _a.id).scalar_subquery()
_ARRIVALS: Final = select(
    _a.content_key, _a.number, _a.channel, _a.place, _a.id, func.coalesce(_a.sms_id, _read_by_retry)
)
_SMS: Final = select(tables.sms.c.fingerprint, tables.sms.c.id)


# Each is looked up, without a join: PostgreSQL takes a table that has just begun to grow for empty, and read
# all of it for each row.
_GONE: Final = {
    "sqlite": """SELECT value FROM json_each(?)
        WHERE (SELECT erasure_id FROM erased WHERE kind = ? AND row_id = value) IS NOT NULL""",
    "postgresql": """SELECT value FROM unnest(%s::bigint[]) AS given (value)
        WHERE (SELECT erasure_id FROM erased WHERE kind = %s AND row_id = value) IS NOT NULL""",
}


def reserve(connection: Connection, **wanted: int) -> list[Sequence[int]]:
    """Return for each table so many ascending ids that nobody else will use; some may stay unused.

    No connection keeps any for later: a higher id must not stand for an earlier arrival or verdict.
    """
    if connection.dialect.name == "sqlite":
        return _after_the_highest(connection, wanted)
    _, *drawn = connection.execute(_draw(tuple(wanted)), wanted).one()
    return [sorted(ids) for ids in drawn]


@lru_cache(maxsize=8)
def _draw(names: tuple[str, ...]) -> Select[Any]:
    """Return the statement that draws ids for several tables in one round trip.

    It also keeps erasures out until the transaction ends: what one of them takes must not get new content
    from a transaction that does not see it yet. SQLite has one writer at a time.
    """
    drawn = (
        select(func.nextval(f"{name}_id_seq")).select_from(func.generate_series(1, bindparam(name)))
        for name in names
    )
    arrays: list[ColumnElement[Any]] = [
        func.array(ids.scalar_subquery(), type_=ARRAY(BigInteger)) for ids in drawn
    ]
    # First of all: who holds the lock alone knows that no lower id than the highest is still to come.
    return select(cast(func.pg_advisory_xact_lock_shared(ERASURES_LOCK), Text), *arrays)


def _after_the_highest(connection: Connection, wanted: Mapping[str, int]) -> list[Sequence[int]]:
    """Return the ids after the highest ones; `BEGIN IMMEDIATE` keeps everybody else out."""
    highest = [max(number or 0, 0) for number in connection.execute(_highest(tuple(wanted))).one()]
    if not connection.in_nested_transaction() and (file := open_file(connection.engine)) is not None:
        for name, number in zip(wanted, highest, strict=True):
            file.seen(name, number)
    return [range(last + 1, last + 1 + number) for last, number in zip(highest, wanted.values(), strict=True)]


@lru_cache(maxsize=8)
def _highest(names: tuple[str, ...]) -> Select[Any]:
    return select(*[select(func.max(TARGETS[name].table.c.id)).scalar_subquery() for name in names])


def insert_new(connection: Connection, table: Table, rows: Rows) -> set[int]:
    """Insert what is new of `rows`, in the columns of `TARGETS`, by their ids; return those that went in."""
    if not rows:
        return set()
    target = TARGETS[table.name]
    if connection.dialect.name == "postgresql":
        return _insert_at_once(connection, for_postgresql(target), {target: rows})
    if _insert_in_steps(connection, target, rows):
        return {row[0] for row in rows}
    return {number for (number,) in _ask(connection, ids_between(target), (rows[0][0], rows[-1][0]))}


def insert_arrived(
    connection: Connection, arrivals: Rows, sms: Rows, numbers: Rows, contents: Rows, payloads: Rows
) -> set[int]:
    """Insert what is new of `arrivals`, with its `contents` and `payloads`; return the ids that went in.

    `sms` and `numbers` are of SMS that have just gone in. All are in the columns of their `Target`.
    """
    of_sms, of_arrivals = zip(OF_SMS, (sms, numbers), strict=True), (contents, payloads)
    given = {**dict(of_sms), **dict(zip(OF_ARRIVALS, of_arrivals, strict=True))}
    if connection.dialect.name == "postgresql":
        if not arrivals and not sms:
            return set()
        return _insert_at_once(connection, arrived_on_postgresql(), {ARRIVALS: arrivals, **given})
    new = insert_new(connection, tables.arrivals, arrivals)
    for target, rows in given.items():
        whole = target in OF_SMS or len(new) == len(arrivals)
        _insert_in_steps(connection, target, rows if whole else [row for row in rows if row[0] in new])
    return new


def insert_sender_checks(connection: Connection, checks: Collection[SenderCheck]) -> None:
    """Insert what arrivals are about to name, where it is not there already; mostly there is none."""
    rows = sorted((one.id, *one) for one in checks)
    if rows and connection.dialect.name == "postgresql":
        _insert_at_once(connection, for_postgresql(CHECKS), {CHECKS: rows})
    else:
        _insert_in_steps(connection, CHECKS, rows)


def sms_by_fingerprint(connection: Connection, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
    """Return the id of each SMS that is in the archive."""
    found = _look_up(connection, _SMS, tables.sms.c.fingerprint, fingerprints)
    return {bytes(fingerprint): number for fingerprint, number in found}


def arrivals_by_key(connection: Connection, keys: Sequence[bytes]) -> Arrivals:
    """Return each known arrival by content key, number, channel and place."""
    found = _look_up(connection, _ARRIVALS, _a.content_key, keys)
    return {
        (bytes(key), number, channel, bytes(place)): (identity, sms_id)
        for key, number, channel, place, identity, sms_id in found
    }


def read_first(found: Arrivals) -> dict[bytes, int]:
    """Return by key the SMS that each mail among `found` became when its bytes were read first, if ever."""
    read = sorted((sms_id, key) for (key, *_), (_, sms_id) in found.items() if sms_id is not None)
    return {key: sms_id for sms_id, key in reversed(read)}  # the first of several


def erased_among(connection: Connection, kind: str, ids: Iterable[int]) -> set[int]:
    """Return which rows of a `kind` have lost their content to an erasure."""
    wanted: Any = list(ids)
    if not wanted:
        return set()
    if connection.dialect.name == "sqlite":
        wanted = json.dumps(wanted)
    return set(connection.exec_driver_sql(_GONE[connection.dialect.name], (wanted, kind)).scalars())


def _look_up(
    connection: Connection, query: Select[Any], key: Column[bytes], keys: Sequence[bytes]
) -> Iterator[Any]:
    if keys and connection.dialect.name == "postgresql":
        yield from _ask(connection, among(query, key), {"keys": array_of(keys)})
        return
    for some in in_parts(keys):
        number = -(-len(some) // _KEYS_IN_STEP) * _KEYS_IN_STEP
        filled = some + some[-1:] * (number - len(some))  # asked for twice, found once
        yield from _ask(connection, among(query, key, number), filled)


def read_archive_key(engine: Engine) -> bytes:
    """Return the secret under which this archive takes all its keys. Raises SchemaMismatch without one."""
    try:
        with reading(engine) as connection:
            secret = connection.execute(select(archive_key.c.secret)).scalar()
    except SchemaMismatch:  # a snapshot has no such table
        secret = None
    if secret is None:
        raise SchemaMismatch("this archive has no key: it is a snapshot, which is for reading only")
    return bytes(secret)


def sms_of_mails(connection: Connection, secret: bytes, content_keys: Sequence[bytes]) -> list[int | None]:
    """Return with which SMS each mail stays, whatever today's reader says; None where it was never read."""
    keys = [keyed(content_key, secret) for content_key in content_keys]
    found = read_first(arrivals_by_key(connection, keys))
    return [found.get(key) for key in keys]


def known_mail(engine: Engine, raw: bytes, sms: InboundSms | None) -> dict[str, int | str | None]:
    """Return what the archive has of the mail `raw`, of which today's reader makes `sms`.

    `read_as`: the SMS its bytes became; `same_sms`: the SMS that has what `sms` says; `quarantined_as`: the
    arrival as which its bytes stand in the quarantine. None where there is none. `sender`, where he was
    checked when it came: what was found, in words.
    """
    secret = read_archive_key(engine)
    key = keyed(mail_content_key(raw), secret)
    unique = [unique_key(sms, secret)] if sms is not None else []
    with reading(engine) as connection:
        same = next(iter(sms_by_fingerprint(connection, unique).values()), None)
        arrivals = arrivals_by_key(connection, [key])
        read = read_first(arrivals).get(key)
        checks = tables.sender_checks.c
        checked = connection.execute(
            select(_a.sender_verified, *(checks[name] for name in SenderCheck._fields))
            .where(_a.content_key == key, checks.id == _a.sender_check_id)
            .limit(1)
        ).first()
    waiting = [number for number, sms_id in arrivals.values() if sms_id is None]
    stands = min(waiting) if waiting and read is None else None
    sender = {"sender": SenderCheck(*checked[1:]).said(checked[0])} if checked is not None else {}
    return {"read_as": read, "same_sms": same, "quarantined_as": stands, **sender}
