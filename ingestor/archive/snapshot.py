"""A consistent copy of the archive for an auditor: one SQLite file, without the archive's key."""

import contextlib
import os
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, insert, inspect, select

from ingestor.archive import tables, triggers, views
from ingestor.archive.engine import one_moment, reading, sqlite_path
from ingestor.archive.faults import translated
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

    The file has the same tables and views, but not the key of the fingerprints; it is read-only, needs no
    second file, and opens with no write access anywhere. It appears whole or not at all, and replaces an
    older snapshot only. Raises ConfigurationError where `target` is anything else.
    """
    target = target.absolute()
    _check_target(engine, target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if engine.dialect.name == "sqlite":
            _copy_sqlite(engine, temporary)
        else:
            _copy_tables(engine, temporary)
        number = _finish(temporary, now)
        temporary.chmod(0o444 & ~_umask())
        _to_disk(temporary)
        temporary.replace(target)
        _to_disk(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise ArchiveUnavailable(
            f"the snapshot {target} could not be written ({_reason(error)}); make room, or name another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
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


def _copy_sqlite(engine: Engine, path: Path) -> None:
    # In one step: between steps a write by another process would begin the copy anew.
    with reading(engine) as connection, closing(sqlite3.connect(path)) as copy:
        source: Any = connection.connection.dbapi_connection
        connection.rollback()  # SQLite wants the source outside a transaction
        with translated(engine):
            source.backup(copy)


def _copy_tables(engine: Engine, path: Path) -> None:
    """Copy the rows of every table but the key's into an SQLite file with the same names."""
    copy = create_engine(f"sqlite:///{path}", hide_parameters=True)
    try:
        with one_moment(engine) as source, copy.begin() as sink:
            tables.metadata.create_all(sink)
            version = source.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            sink.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            sink.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (version,))
            for table in tables.metadata.sorted_tables:
                if table is tables.archive_key:
                    continue
                rows = source.execution_options(yield_per=_ROWS).execute(select(table))
                for part in rows.mappings().partitions(_ROWS):
                    sink.execute(insert(table), [dict(row) for row in part])
            triggers.create(sink)
            views.create(sink)
    finally:
        copy.dispose()


def _finish(path: Path, now: datetime) -> int:
    """Take the key out of the copy for good, and leave one plain file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        copy.execute("PRAGMA secure_delete = ON")
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("DROP TABLE IF EXISTS archive_key")
        copy.execute("CREATE TABLE snapshot_of (taken_at TEXT NOT NULL) STRICT")
        copy.execute("INSERT INTO snapshot_of VALUES (?)", (iso_utc(now),))
        copy.execute("VACUUM")
        return int(copy.execute("SELECT count(*) FROM sms").fetchone()[0])


def is_snapshot(engine: Engine) -> bool:
    """Say whether the archive that `engine` opens is such a copy."""
    with reading(engine) as connection:
        return inspect(connection).has_table("snapshot_of")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
