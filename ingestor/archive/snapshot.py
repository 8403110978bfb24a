"""A consistent copy of the archive for an auditor: one SQLite file, without the archive's key."""

import sqlite3
import urllib.parse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, create_engine, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from ingestor.archive import tables, triggers, views
from ingestor.archive.engine import one_moment, sqlite_path
from ingestor.archive.leaving import leaving
from ingestor.errors import ArchiveUnavailable, ConfigurationError
from ingestor.timestamps import iso_utc

_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot holds: the file, its bytes, and how many SMS."""

    path: Path
    size: int
    sms: int


def snapshot(engine: Engine, target: Path, now: datetime) -> Snapshot:
    """Write all committed rows to the SQLite file `target`, of one moment; return what it holds.

    The file has the same tables and views, but never held the key of the fingerprints; it needs no second
    file, is for its owner and group alone, and opens with no write access anywhere. It appears whole or not
    at all, and replaces an older snapshot only. Raises ConfigurationError where `target` is anything else.
    """
    target = target.absolute()
    _check_target(engine, target)
    try:
        with leaving(target, 0o640) as temporary:
            number = _copy(engine, temporary, now)
    except (sqlite3.Error, DBAPIError, OSError) as error:
        raise ArchiveUnavailable(
            f"the snapshot {target} could not be written ({_reason(error)}); make room, or name another place"
        ) from error
    return Snapshot(target, target.stat().st_size, number)


def _check_target(engine: Engine, target: Path) -> None:
    if not target.parent.is_dir():
        raise ConfigurationError(f"the folder {target.parent} does not exist; make it, or name another")
    if not target.exists():
        return
    archive = sqlite_path(engine.url)
    if archive is not None and archive.exists() and target.samefile(archive):
        raise ConfigurationError(f"{target} is the archive itself; name another file for the snapshot")
    if not target.is_file() or not _is_snapshot(target):
        raise ConfigurationError(f"{target} exists and is no snapshot; name another file")


def _is_snapshot(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'snapshot_of'").fetchone()
            return found is not None
    except sqlite3.Error:
        return False


def _copy(engine: Engine, path: Path, now: datetime) -> int:
    """Fill the empty file `path`, and return how many SMS it holds."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as copy:
        # Nothing beside the file: it counts for nothing until it is whole.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        copy.set_progress_handler(lambda: 0, 100_000)  # between steps Python hears of signals
        sink = create_engine("sqlite://", creator=lambda: copy, poolclass=StaticPool, hide_parameters=True)
        with sink.connect() as connection:
            copied = [table for table in tables.metadata.sorted_tables if table is not tables.archive_key]
            tables.metadata.create_all(connection)
            archive = sqlite_path(engine.url)
            if archive is None:
                _copy_rows(engine, connection, copied)
            else:
                _copy_file(archive, connection, copied)
            connection.exec_driver_sql("CREATE TABLE snapshot_of (taken_at TEXT NOT NULL) STRICT")
            connection.exec_driver_sql("INSERT INTO snapshot_of VALUES (?)", (iso_utc(now),))
            triggers.create(connection)
            views.create(connection)
            connection.exec_driver_sql("DROP TABLE archive_key")
            connection.commit()
        return int(copy.execute("SELECT count(*) FROM sms").fetchone()[0])


def _copy_file(archive: Path, sink: Connection, copied: Sequence[Table]) -> None:
    """Copy the rows out of an SQLite archive, all of one moment."""
    uri = f"file:{urllib.parse.quote(str(archive.absolute()))}?mode=ro"
    sink.commit()
    sink.exec_driver_sql("ATTACH DATABASE ? AS archive", (uri,))
    sink.exec_driver_sql("BEGIN")
    _take_version(sink, sink.exec_driver_sql("SELECT version_num FROM archive.alembic_version").scalar())
    for table in copied:
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        sink.exec_driver_sql(
            f'INSERT INTO main."{table.name}" ({columns}) SELECT {columns} FROM archive."{table.name}"'  # noqa: S608 - our own names
        )
    sink.exec_driver_sql("COMMIT")
    sink.exec_driver_sql("DETACH DATABASE archive")


def _copy_rows(engine: Engine, sink: Connection, copied: Sequence[Table]) -> None:
    """Copy the rows out of PostgreSQL, all of one moment."""
    with one_moment(engine) as source:
        _take_version(sink, source.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
        for table in copied:
            rows = source.execution_options(yield_per=_ROWS).execute(select(table))
            for part in rows.mappings().partitions(_ROWS):
                sink.execute(insert(table), [dict(row) for row in part])
    sink.commit()


def _take_version(sink: Connection, version: str | None) -> None:
    sink.exec_driver_sql("CREATE TABLE main.alembic_version (version_num VARCHAR(32) NOT NULL)")
    sink.exec_driver_sql("INSERT INTO main.alembic_version VALUES (?)", (version,))


def _reason(error: Exception) -> str:
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
