"""The statements of the one writer, in SQLAlchemy Core: what is new goes in, and what did not is looked up.

Each insert is an INSERT … ON CONFLICT DO NOTHING: the unique key is the only judge of what is new, and
nothing is looked up before it is inserted. The dialects differ in four things. Ids: SQLite has one writer at
a time, so that the next ones are free; PostgreSQL draws from sequences. How many rows travel: as VALUES on
SQLite, as one array a column on PostgreSQL (27 µs a row of `arrivals`, 140 as VALUES). Which ones went in:
PostgreSQL says so by RETURNING; on SQLite their number mostly tells, else they are read back. Order: on
PostgreSQL rows go in by their key, so that two writers that lock the same keys cannot wait for each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    Select,
    Table,
    any_,
    bindparam,
    column,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from ingestor.archive import tables
from ingestor.archive.engine import reading
from ingestor.archive.open_file import open_file
from ingestor.archive.rows import keyed, mail_content_key, unique_key
from ingestor.archive.tables import archive_key
from ingestor.errors import SchemaMismatch
from ingestor.record import InboundSms

_CHUNK = 500
_ROWS_A_STATEMENT = (64, 32, 8, 1)  # few lengths, so that the driver has each prepared

Arrivals = dict[tuple[bytes, int, str, bytes], tuple[int, int | None]]
"""(id, the SMS it became, None where it has not been read) by (content key, number, channel, place)."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A table that the writer inserts into; rows of which `unique` is there already are left out."""

    table: Table
    unique: tuple[str, ...]
    where: Any = None

    def insert(self, dialect: Any) -> Any:
        """Return the beginning of the statement that inserts what is new."""
        return dialect.insert(self.table)

    def new_only(self, insert: Any) -> Any:
        """Return the whole statement."""
        if not self.unique:
            return insert
        return insert.on_conflict_do_nothing(index_elements=self.unique, index_where=self.where)


_TARGETS: Final = {
    one.table.name: one
    for one in (
        _Target(tables.sms, ("fingerprint",)),
        _Target(tables.sms_content, ()),
        _Target(tables.arrivals, ("content_key", "number", "channel", "place")),
        _Target(tables.arrival_content, ()),
        _Target(tables.payloads, ()),
        _Target(tables.retries, ("arrival_id",), text("sms_id IS NOT NULL")),
    )
}


@cache
def _of_rows(target: _Target, number: int) -> str:
    """Return the statement that inserts so many rows into an SQLite table."""
    row = {one.name: None for one in target.table.c}
    statement = target.new_only(target.insert(sqlite).values([row] * number))
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))


def _insert_in_steps(connection: Connection, target: _Target, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Insert many rows a statement into an SQLite table; say whether all were new.

    SQLAlchemy writes each statement once; then the driver gets it with its values as they are. By
    `Connection.execute` a POST of a batch of 40 took 115 µs instead of 88, and a statement of many rows
    would be written anew each time. The driver lets go of the interpreter for each statement, and waits for
    it while a listener is busy: a row at a time, half as many POSTs came into the archive.
    """
    names = [one.name for one in target.table.c]
    inserted = start = 0
    for step in _ROWS_A_STATEMENT:
        while len(rows) - start >= step:
            values = [row[name] for row in rows[start : start + step] for name in names]
            inserted += connection.exec_driver_sql(_of_rows(target, step), tuple(values)).rowcount
            start += step
    return inserted == len(rows)


def _for_postgresql(target: _Target) -> Any:
    columns = list(target.table.c)
    arrays = [bindparam(one.name, type_=postgresql.ARRAY(one.type)) for one in columns]
    given = func.unnest(*arrays).table_valued(*[column(one.name, one.type) for one in columns], name="given")
    rows = select(*given.render_derived().c)
    if target.unique:
        rows = rows.order_by(target.unique[0], "id")
    insert = target.insert(postgresql).from_select([one.name for one in columns], rows)
    statement = target.new_only(insert)
    return statement.returning(target.table.c.id) if target.unique else statement


_STATEMENTS: Final = {name: _for_postgresql(target) for name, target in _TARGETS.items()}


def _by_keys(query: Select[Any], key: ColumnElement[bytes]) -> dict[str, Select[Any]]:
    """Return `query` for the rows whose `key` is among `:keys`, by dialect."""
    array = bindparam("keys", type_=postgresql.ARRAY(LargeBinary))
    return {
        "sqlite": query.where(key.in_(bindparam("keys", expanding=True))),
        "postgresql": query.where(key == any_(array)),
    }


_a, _r = tables.arrivals.c, tables.retries.c

# An arrival has been read when it became an SMS at once, or by a later verdict.
_read_by_retry = select(func.min(_r.sms_id)).where(_r.arrival_id == _a.id).scalar_subquery()
_ARRIVALS: Final = _by_keys(
    select(_a.content_key, _a.number, _a.channel, _a.place, _a.id, func.coalesce(_a.sms_id, _read_by_retry)),
    _a.content_key,
)
_BETWEEN: Final = {
    one.name: select(one.c.id).where(one.c.id.between(bindparam("first"), bindparam("last")))
    for one in (tables.sms, tables.arrivals, tables.retries)
}
_HIGHEST: Final = {
    one.name: select(func.max(one.c.id)) for one in (tables.sms, tables.arrivals, tables.retries)
}
_SMS: Final = _by_keys(select(tables.sms.c.fingerprint, tables.sms.c.id), tables.sms.c.fingerprint)


def reserve(connection: Connection, **wanted: int) -> list[Sequence[int]]:
    """Return for each table so many ascending ids that nobody else will use; some may stay unused.

    No connection keeps any for later: a higher id must not stand for an earlier arrival or verdict.
    """
    if connection.dialect.name == "sqlite":
        return [_after_the_highest(connection, _TARGETS[name].table, n) for name, n in wanted.items()]
    return [sorted(ids) for ids in connection.execute(_draw(tuple(wanted)), wanted).one()]


@lru_cache(maxsize=8)
def _draw(names: tuple[str, ...]) -> Select[Any]:
    """Return the statement that draws ids for several tables in one round trip."""
    drawn = (
        select(func.nextval(f"{name}_id_seq")).select_from(func.generate_series(1, bindparam(name)))
        for name in names
    )
    arrays: list[ColumnElement[Any]] = [
        func.array(ids.scalar_subquery(), type_=postgresql.ARRAY(BigInteger)) for ids in drawn
    ]
    return select(*arrays)


def _after_the_highest(connection: Connection, table: Table, number: int) -> range:
    """Return the ids after the highest one; `BEGIN IMMEDIATE` keeps everybody else out."""
    highest = max(connection.execute(_HIGHEST[table.name]).scalar() or 0, 0)
    if not connection.in_nested_transaction() and (file := open_file(connection.engine)) is not None:
        file.seen(table.name, highest)
    return range(highest + 1, highest + 1 + number)


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> set[int]:
    """Insert what is new of `rows`, which are in the order of their ids; return the ids that went in.

    Of a table without a unique key of its own all go in, and none is returned.
    """
    if not rows:
        return set()
    target = _TARGETS[table.name]
    unique = bool(target.unique)
    if connection.dialect.name == "sqlite":
        all_new = _insert_in_steps(connection, target, rows)
        if all_new or not unique:
            return {row["id"] for row in rows} if unique else set()
        done = connection.execute(_BETWEEN[table.name], {"first": rows[0]["id"], "last": rows[-1]["id"]})
    else:
        columns = {column.name: [row[column.name] for row in rows] for column in table.c}
        done = connection.execute(_STATEMENTS[table.name], columns)
    return set(done.scalars()) if unique else set()


def sms_by_fingerprint(connection: Connection, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
    """Return the id of each SMS that is in the archive."""
    found = _look_up(connection, _SMS, fingerprints)
    return {bytes(fingerprint): number for fingerprint, number in found}


def arrivals_by_key(connection: Connection, keys: Sequence[bytes]) -> Arrivals:
    """Return each known arrival by content key, number, channel and place."""
    found = _look_up(connection, _ARRIVALS, keys)
    return {
        (bytes(key), number, channel, bytes(place)): (identity, sms_id)
        for key, number, channel, place, identity, sms_id in found
    }


def read_first(found: Arrivals) -> dict[bytes, int]:
    """Return the SMS that each mail became when its bytes were read first, by whatever channel, by key.

    `found` are arrivals of mails; those that were never read are left out.
    """
    read = sorted((sms_id, key) for (key, *_), (_, sms_id) in found.items() if sms_id is not None)
    return {key: sms_id for sms_id, key in reversed(read)}  # the first of several


def _look_up(
    connection: Connection, queries: Mapping[str, Select[Any]], keys: Sequence[bytes]
) -> Iterator[Any]:
    query = queries[connection.dialect.name]
    for start in range(0, len(keys), _CHUNK):
        yield from connection.execute(query, {"keys": keys[start : start + _CHUNK]})


def read_archive_key(engine: Engine) -> bytes:
    """Return the secret under which this archive takes all its keys.

    Raises SchemaMismatch where there is none, ArchiveUnavailable where the database is away.
    """
    try:
        with reading(engine) as connection:
            secret = connection.execute(select(archive_key.c.secret)).scalar()
    except SchemaMismatch:  # a snapshot has no such table
        secret = None
    if secret is None:
        raise SchemaMismatch("this archive has no key: it is a snapshot, which is for reading only")
    return bytes(secret)


def sms_of_mails(connection: Connection, secret: bytes, content_keys: Sequence[bytes]) -> list[int | None]:
    """Return the id of the SMS that each mail became when its bytes were read first, None where never.

    `content_keys` are of `rows.mail_content_key`. Whatever today's reader says, that mail stays with it.
    """
    keys = [keyed(content_key, secret) for content_key in content_keys]
    found = read_first(arrivals_by_key(connection, keys))
    return [found.get(key) for key in keys]


def known_mail(engine: Engine, raw: bytes, sms: InboundSms | None) -> dict[str, int | None]:
    """Return what the archive has of the mail `raw`, of which today's reader makes `sms`.

    `read_as`: the SMS its bytes became; `same_sms`: the SMS that has what `sms` says; `quarantined_as`: the
    arrival as which its bytes stand in the quarantine. None where there is none.
    """
    secret = read_archive_key(engine)
    key = keyed(mail_content_key(raw), secret)
    unique = [unique_key(sms, secret)] if sms is not None else []
    with reading(engine) as connection:
        same = next(iter(sms_by_fingerprint(connection, unique).values()), None)
        arrivals = arrivals_by_key(connection, [key])
        read = read_first(arrivals).get(key)
    waiting = [number for number, sms_id in arrivals.values() if sms_id is None]
    stands = min(waiting) if waiting and read is None else None
    return {"read_as": read, "same_sms": same, "quarantined_as": stands}
