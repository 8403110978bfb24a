"""Moving an archive: every table into another database, with its ids and its key, and compared row by row.

Both directions between SQLite and PostgreSQL, and each into its own kind. It walks `tables.metadata`, so that
a new table needs nothing here. The copy has no use before it is whole: until then its schema is `UNFINISHED`,
which no program opens, and the same call goes on with it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Boolean, Column, Connection, Engine, Table, Text, func, select, text

from ingestor.archive import tables, triggers, words
from ingestor.archive.columns import Ordered
from ingestor.archive.engine import bulk_import_settings, one_moment, reading, sqlite_path, writing
from ingestor.archive.export import Tell
from ingestor.archive.faults import as_sqlalchemy, place
from ingestor.archive.migrate import UNFINISHED, current, head, refuse_unusable, upgrade
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.timestamps import iso_utc

_ROWS = 5000  # at once: some MB in memory, and one commit

_FILLED_BY_USE: Final = (tables.runs, tables.sms, tables.arrivals)

Row = tuple[Any, ...]
"""The values of a row as SQLite keeps them, the primary key first; a row of PostgreSQL is read as equal."""

Finish = Callable[[Connection], None]

# A time as `iso_utc` writes it, and as `Ordered` does.
_ISO: Final = (
    "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS' || "
    "CASE date_trunc('second', {0}) WHEN {0} THEN '\"Z\"' ELSE '.US\"Z\"' END)"
)
_ORDERED: Final = "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds, and how many of its rows this call had to write."""

    rows: int
    written: int


def copy_archive(source: Engine, target: Engine, tell: Tell, finish: Finish | None = None) -> Copied:
    """Make `target` (empty, or an earlier copy of `source`) the same archive as `source`; say what it holds.

    All of `source` is of one moment; it may be written to meanwhile, and another call then brings the copy
    up. Every row is read back and compared before `finish` may change it. Raises ConfigurationError where
    `target` holds another archive, or rows that `source` lacks; IngestorError where the two differ.
    """
    with one_moment(source) as of, bulk_import_settings(target):
        copied = [_Both(table, of, target) for table in tables.metadata.sorted_tables]
        _begin(of, target)
        total = sum(one.count() for one in copied)
        done = written = 0
        for one in copied:
            for rows, new in one.walk():
                done, written = done + rows, written + new
                tell(done, total)
    _end(target, finish)
    return Copied(total, written)


def _begin(source: Connection, target: Engine) -> None:
    stands = current(target)
    if stands is None:
        upgrade(target)
    elif stands != UNFINISHED:
        refuse_unusable(target)
        if stands != head():
            raise ConfigurationError(
                f"{place(target)} has schema {stands}; upgrade it first, or name another"
            )
    key = select(tables.archive_key.c.secret, tables.archive_key.c.created_at)
    secret, made_at = source.execute(key).one()
    with writing(target) as connection:
        if _place(connection) == _place(source):
            raise ConfigurationError(f"{place(target)} is the archive itself; name another database")
        theirs = connection.execute(select(tables.archive_key.c.secret)).scalar()
        if theirs is not None and bytes(theirs) != bytes(secret) and _holds_something(connection):
            raise ConfigurationError(f"{place(target)} holds another archive; name an empty database")
        if stands == head():
            _refuse_newer(source, connection, target)
        triggers.drop(connection)
        if not _holds_something(connection):
            words.drop_index(connection)  # made at the end
        if theirs is None or bytes(theirs) != bytes(secret):
            connection.execute(tables.archive_key.delete())
            connection.execute(tables.archive_key.insert().values(id=1, secret=secret, created_at=made_at))
        connection.execute(text("UPDATE alembic_version SET version_num = :mark"), {"mark": UNFINISHED})


def _place(connection: Connection) -> object:
    """Return what tells one database from every other, however its URL is written."""
    file = sqlite_path(connection.engine.url)
    if file is not None:
        return file.resolve()
    return tuple(connection.exec_driver_sql("SELECT pg_postmaster_start_time(), current_database()").one())


def _holds_something(connection: Connection) -> bool:
    found = (connection.execute(select(table.c.id).limit(1)).first() for table in _FILLED_BY_USE)
    return any(row is not None for row in found)


def _refuse_newer(source: Connection, theirs: Connection, target: Engine) -> None:
    """Raise ConfigurationError where somebody has stored in `target` what `source` does not have."""
    for table in map(tables.metadata.tables.__getitem__, tables.PERMANENT):
        if table is tables.erased:  # it goes by the ids of others; a batch of `erasures` says as much
            continue
        newest = select(func.max(table.c.id))
        if (theirs.execute(newest).scalar() or 0) > (source.execute(newest).scalar() or 0):
            raise ConfigurationError(
                f"{place(target)} has rows in {table.name} that came after it was copied: it is in use; name "
                "an empty database"
            )


def _end(target: Engine, finish: Finish | None) -> None:
    with writing(target) as connection:
        if connection.dialect.name == "postgresql":
            for table in tables.metadata.sorted_tables:
                sequence = f"{table.name}_id_seq"
                if "id" in table.c and connection.execute(select(func.to_regclass(sequence))).scalar():
                    last = connection.execute(select(func.max(table.c.id))).scalar() or 0
                    connection.execute(select(func.setval(sequence, max(last, 1), last > 0)))
        triggers.create(connection)
        words.make_index(connection)
        if finish is not None:
            finish(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head()})


class _Both:
    """One table in both databases."""

    def __init__(self, table: Table, source: Connection, target: Engine) -> None:
        self._table, self._source, self._target = table, source, target
        key = list(table.primary_key.columns)
        self._columns: list[Column[Any]] = [*key, *(one for one in table.columns if one not in key)]
        self._key = key
        self._names = ", ".join(f'"{one.name}"' for one in self._columns)
        self._times = [n for n, one in enumerate(self._columns) if isinstance(one.type, tables.Instant)]

    def count(self) -> int:
        """Return how many rows the archive has."""
        return int(self._source.execute(select(func.count()).select_from(self._table)).scalar_one())

    def walk(self) -> Iterator[tuple[int, int]]:
        """Make the copy the same, part by part; give how many rows each had, and how many were written."""
        after: Row | None = None
        while True:
            rows = self._part(self._source, after, None, _ROWS)
            last = self._key_of(rows[-1]) if len(rows) == _ROWS else None
            yield len(rows), self._settle(rows, after, last)
            if last is None:
                return
            after = last

    def _settle(self, rows: list[Row], after: Row | None, last: Row | None) -> int:
        """Let the copy have exactly `rows` between two keys; return how many of them it had not."""
        held = self._held(after, last)
        wanted, extra, changed = self._apart(rows, held)
        if self._table.name in tables.PERMANENT and (extra or changed):
            raise self._difference(extra | changed)
        if wanted or extra:
            self._write(wanted, sorted(extra), anew=not held)
            left, extra, _ = self._apart(rows, self._held(after, last))
            if left or extra:
                raise self._difference(extra | set(map(self._key_of, left)))
        return len(wanted)

    def _held(self, after: Row | None, last: Row | None) -> list[Row]:
        with reading(self._target) as connection:
            return self._part(connection, after, last, None)

    def _apart(self, rows: list[Row], held: list[Row]) -> tuple[list[Row], set[Row], set[Row]]:
        """Return which of `rows` the copy lacks, and by key what it has too much and what otherwise."""
        if not held or held == rows:  # ten times as fast as row by row
            return ([] if held else rows), set(), set()
        theirs = {self._key_of(row): row for row in held}
        wanted = [row for row in rows if not self._same(row, theirs.get(self._key_of(row)))]
        extra = theirs.keys() - {self._key_of(row) for row in rows}
        return wanted, extra, {self._key_of(row) for row in wanted} & theirs.keys()

    def _difference(self, keys: set[Row]) -> IngestorError:
        return IngestorError(
            f"{place(self._target)} differs in {len(keys):,} rows of {self._table.name}, the first with "
            f"the key {min(keys)[0]}; copy into an empty database, and let nobody write there meanwhile"
        )

    def _key_of(self, row: Row) -> Row:
        return row[: len(self._key)]

    def _same(self, row: Row, other: Row | None) -> bool:
        return row == other or (other is not None and self._plain(row) == self._plain(other))

    def _plain(self, row: Row) -> Row:
        """Return `row` with its times as `iso_utc` writes them: a lease's have thousandths."""
        times = {n: iso_utc(datetime.fromisoformat(row[n])) for n in self._times if row[n] is not None}
        return tuple(times.get(n, value) for n, value in enumerate(row))

    def _part(
        self, connection: Connection, after: Row | None, last: Row | None, limit: int | None
    ) -> list[Row]:
        postgresql = connection.dialect.name == "postgresql"
        mark = "%s" if postgresql else "?"
        # Texts in the order of their bytes, as SQLite has them.
        keys = ", ".join(
            f'"{one.name}"' + (' COLLATE "C"' if postgresql and isinstance(one.type, Text) else "")
            for one in self._key
        )
        bounds: list[str] = []
        values: list[Any] = []
        for bound, sign in ((after, ">"), (last, "<=")):
            if bound is not None:
                bounds.append(f"({keys}) {sign} ({', '.join(mark for _ in bound)})")
                values += bound
        names = ", ".join(map(self._taken, self._columns)) if postgresql else self._names
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        most = f" LIMIT {limit}" if limit else ""
        query = f'SELECT {names} FROM "{self._table.name}"{where} ORDER BY {keys}{most}'  # noqa: S608 - our own names
        with as_sqlalchemy(connection) as driver:
            return list(driver.execute(query, tuple(values)).fetchall())

    @staticmethod
    def _taken(column: Column[Any]) -> str:
        """Return what gives a column of PostgreSQL as SQLite keeps it."""
        name = f'"{column.name}"'
        if isinstance(column.type, tables.Instant):
            return (_ORDERED if isinstance(column.type, Ordered) else _ISO).format(name)
        return name

    def _write(self, rows: list[Row], extra: list[Row], *, anew: bool) -> None:
        """Write `rows` over those of the copy, which with `anew` has none there, and remove `extra`."""
        with writing(self._target) as connection:
            postgresql = connection.dialect.name == "postgresql"
            mark = "%s" if postgresql else "?"
            if extra:
                keys = " AND ".join(f'"{one.name}" = {mark}' for one in self._key)
                connection.exec_driver_sql(f'DELETE FROM "{self._table.name}" WHERE {keys}', extra)  # noqa: S608 - our own names
            if anew and postgresql:
                self._stream(connection, rows)
            elif rows:
                flag = "%s::int::boolean" if postgresql else mark  # a truth value is a number on SQLite
                marks = ", ".join(flag if isinstance(one.type, Boolean) else mark for one in self._columns)
                over = ", ".join(f'"{one.name}" = excluded."{one.name}"' for one in self._columns)
                keys = ", ".join(f'"{one.name}"' for one in self._key)
                connection.exec_driver_sql(
                    f'INSERT INTO "{self._table.name}" ({self._names}) VALUES ({marks})'  # noqa: S608 - our own names
                    f" ON CONFLICT ({keys}) DO UPDATE SET {over}",
                    rows,
                )

    def _stream(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Send `rows` by COPY: three times as fast as INSERT, which a million SMS show."""
        statement = f'COPY "{self._table.name}" ({self._names}) FROM STDIN'
        with as_sqlalchemy(connection) as driver, driver.cursor().copy(statement) as stream:
            for row in rows:
                stream.write_row(row)
