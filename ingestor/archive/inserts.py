"""The few statements that the writer repeats by the thousand, in each database's fastest form.

Both databases keep the same promise: `insert` leaves rows that exist alone and says which of the given
ids went in; nothing is looked up before it is inserted.
"""

import contextlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from ingestor.archive import tables

Row = tuple[Any, ...]

_CHUNK = 500
_COPY_FROM = 48  # fewer rows go in faster one by one: a COPY needs a temporary table to be emptied


class Target(NamedTuple):
    """A table to insert into: its columns, and the position of the unique key that rows are ordered by."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: int | None


def _target(table: Table, key: str | None) -> Target:
    names = tuple(column.name for column in table.columns)
    types = tuple(_postgresql_type(column.type) for column in table.columns)
    return Target(table.name, names, types, names.index(key) if key else None)


def _postgresql_type(kind: Any) -> str:
    return {
        "Instant": "timestamptz", "BigInteger": "int8", "SmallInteger": "int2", "Integer": "int4",
        "LargeBinary": "bytea", "Boolean": "bool",
    }.get(type(kind).__name__, "text")  # fmt: skip


SMS: Final = _target(tables.sms, "fingerprint")
CONTENT: Final = _target(tables.sms_content, None)
ARRIVALS: Final = _target(tables.arrivals, "content_key")
PAYLOADS: Final = _target(tables.payloads, None)
RETRIES: Final = _target(tables.retries, "arrival_id")


class Inserts(Protocol):
    """What the writer asks of a database, inside one transaction."""

    def reserve(self, target: Target, count: int) -> Sequence[int]:
        """Return `count` ascending ids that nobody else will use."""

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert what is new; return the ids (first column) that went in, None where all did."""

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Return the id of each SMS that is in the archive."""

    def arrivals_by_key(self, keys: Sequence[bytes]) -> dict[tuple[bytes, int, str], tuple[int, bool]]:
        """Return (id, has it been read) of each known arrival, by content key, number and channel."""


def inserts_for(connection: Connection) -> Inserts:
    """Return the statements for the database behind `connection`."""
    if connection.dialect.name == "sqlite":
        return SqliteInserts(connection)
    return PostgresqlInserts(connection)


# An arrival has been read when it became an SMS at once, or by a later verdict.
_ARRIVALS_BY_KEY = (
    "SELECT a.content_key, a.number, a.channel, a.id, a.sms_id IS NOT NULL OR EXISTS"
    " (SELECT 1 FROM retries AS r WHERE r.arrival_id = a.id AND r.sms_id IS NOT NULL)"
    " FROM arrivals AS a WHERE a.content_key "
)
_SMS_BY_FINGERPRINT = "SELECT fingerprint, id FROM sms WHERE fingerprint "


class SqliteInserts:
    """SQLite: one writer at a time, so the next ids are simply the next ones."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def reserve(self, target: Target, count: int) -> Sequence[int]:
        """Return the ids after the highest one; `BEGIN IMMEDIATE` keeps everybody else out."""
        if not count:
            return ()
        highest = self._connection.exec_driver_sql(f"SELECT max(id) FROM {target.name}").scalar() or 0  # noqa: S608 - names are our own
        return range(highest + 1, highest + 1 + count)

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert row by row in one statement."""
        if not rows:
            return None
        result = self._connection.exec_driver_sql(_SQLITE[target.name], list(rows))
        if result.rowcount == len(rows):
            return None
        first = target.columns[0]
        # By the driver's own cursor: thousands of rows of one number cost three times as much through Core.
        with (
            _as_sqlalchemy(self._connection),
            contextlib.closing(self._connection.connection.cursor()) as cursor,
        ):
            cursor.execute(
                f"SELECT {first} FROM {target.name} WHERE {first} BETWEEN ? AND ?",  # noqa: S608 - names are our own
                (rows[0][0], rows[-1][0]),
            )
            return {number for (number,) in cursor.fetchall()}

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Look up in chunks of a fixed size, so that the statement is prepared once."""
        return dict(map(tuple, self._in_chunks(_SMS_BY_FINGERPRINT, fingerprints)))

    def arrivals_by_key(self, keys: Sequence[bytes]) -> dict[tuple[bytes, int, str], tuple[int, bool]]:
        """Look up in chunks of a fixed size, so that the statement is prepared once."""
        return {
            (key, number, channel): (identity, bool(read))
            for key, number, channel, identity, read in self._in_chunks(_ARRIVALS_BY_KEY, keys)
        }

    def _in_chunks(self, select: str, keys: Sequence[bytes]) -> Iterator[Any]:
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            width = 1 if len(chunk) == 1 else _CHUNK
            marks = ",".join("?" * width)
            padded = (*chunk, *([chunk[-1]] * (width - len(chunk))))
            yield from self._connection.exec_driver_sql(f"{select} IN ({marks})", padded)


_SQLITE = {
    target.name: f"INSERT INTO {target.name} ({', '.join(target.columns)})"  # noqa: S608 - names are our own
    f" VALUES ({', '.join('?' * len(target.columns))}) ON CONFLICT DO NOTHING"
    for target in (SMS, CONTENT, ARRIVALS, PAYLOADS, RETRIES)
}


class PostgresqlInserts:
    """PostgreSQL: many writers, so keys go in sorted, and ids come from sequences."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def reserve(self, target: Target, count: int) -> Sequence[int]:
        """Draw ids from the table's sequence; those that are never used stay unused.

        No connection keeps any for later: a higher id must not stand for an earlier arrival or verdict.
        """
        if not count:
            return ()
        execute = self._connection.exec_driver_sql
        following = f"SELECT nextval('{target.name}_id_seq') AS id"
        if count == 1:
            return [execute(following).scalar_one()]
        draw = f"{following} FROM generate_series(1, %s::bigint)"
        first, last = execute(f"SELECT min(id), max(id) FROM ({draw}) AS drawn", (count,)).one()  # noqa: S608 - names are our own
        if last - first + 1 == count:
            return range(first, last + 1)
        return sorted(execute(draw, (count,)).scalars())  # somebody else drew in between

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert small batches row by row, larger ones by a binary COPY."""
        if not rows:
            return None
        if len(rows) < _COPY_FROM:
            return self._insert_each(target, rows)
        if target.key is None:  # the ids are new, so is everything that hangs on them
            self._copy(target.name, target, rows)
            return None
        return self._insert_staged(target, rows)

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Look all up at once."""
        found = self._connection.exec_driver_sql(_SMS_BY_FINGERPRINT + "= ANY(%s)", (list(fingerprints),))
        return dict(map(tuple, found))

    def arrivals_by_key(self, keys: Sequence[bytes]) -> dict[tuple[bytes, int, str], tuple[int, bool]]:
        """Look all up at once."""
        found = self._connection.exec_driver_sql(_ARRIVALS_BY_KEY + "= ANY(%s)", (list(keys),))
        return {(key, number, channel): (identity, read) for key, number, channel, identity, read in found}

    # Two writers that lock the same keys in the same order cannot wait for each other: both ways insert by
    # the key, and equal keys in the order of input.

    def _insert_each(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        ordered = rows if target.key is None else sorted(rows, key=itemgetter(target.key))
        result = self._connection.exec_driver_sql(_POSTGRESQL[target.name], list(ordered))
        return None if result.rowcount == len(rows) else self._present(target, rows)

    def _present(self, target: Target, rows: Sequence[Row]) -> set[int]:
        """Return which ids of `rows` are in the table: ids are nobody else's."""
        first = target.columns[0]
        found = self._connection.exec_driver_sql(
            f"SELECT {first} FROM {target.name} WHERE {first} = ANY(%s)",  # noqa: S608 - names are our own
            ([row[0] for row in rows],),
        )
        return set(found.scalars())

    def _insert_staged(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        stage = f"incoming_{target.name}"
        self._connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} (LIKE {target.name}) ON COMMIT DELETE ROWS"
        )
        self._connection.exec_driver_sql(f"TRUNCATE {stage}")
        self._copy(stage, target, rows)
        columns = ", ".join(target.columns)
        key = target.columns[target.key or 0]
        result = self._connection.exec_driver_sql(
            f"INSERT INTO {target.name} ({columns}) SELECT {columns} FROM {stage}"  # noqa: S608 - names are our own
            f" ORDER BY {key}, {target.columns[0]} ON CONFLICT DO NOTHING"
        )
        return None if result.rowcount == len(rows) else self._present(target, rows)

    def _copy(self, into: str, target: Target, rows: Sequence[Row]) -> None:
        cursor: Any = self._connection.connection.cursor()  # psycopg's own, which can do more than the DBAPI
        statement = f"COPY {into} ({', '.join(target.columns)}) FROM STDIN (FORMAT BINARY)"
        with _as_sqlalchemy(self._connection), cursor, cursor.copy(statement) as copy:
            copy.set_types(target.types)
            write_row = copy.write_row
            for row in rows:
                write_row(row)


_POSTGRESQL = {
    target.name: f"INSERT INTO {target.name} ({', '.join(target.columns)})"  # noqa: S608 - names are our own
    f" VALUES ({', '.join(['%s'] * len(target.columns))}) ON CONFLICT DO NOTHING"
    for target in (SMS, CONTENT, ARRIVALS, PAYLOADS, RETRIES)
}


@contextlib.contextmanager
def _as_sqlalchemy(connection: Connection) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy's, as for any statement that goes through it."""
    base = connection.dialect.loaded_dbapi.Error
    try:
        yield
    except base as error:
        raise DBAPIError.instance(
            "COPY", None, error, base, hide_parameters=True, dialect=connection.dialect,
            connection_invalidated=connection.dialect.is_disconnect(error, None, None),
        ) from error  # fmt: skip
