"""What leaves the archive as a file: JSON Lines, CSV, and an auditor's snapshot, whole or not at all.

JSON Lines and CSV are exact; CSV also has forms that spreadsheets cannot hurt (`xlsx` has the workbook). A
snapshot is a consistent copy of the archive, one SQLite file without the archive's key.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final, TextIO

from sqlalchemy import Connection, Engine, Table, create_engine, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from ingestor.archive import tables, triggers, views
from ingestor.archive.engine import one_moment, reading, sqlite_path
from ingestor.archive.faults import is_snapshot, refusal
from ingestor.archive.open_file import folder_to_disk
from ingestor.archive.searching import Filters, Row, filtered, stream
from ingestor.archive.views import inbound_sms, plain, plain_row
from ingestor.errors import ArchiveUnavailable, ConfigurationError
from ingestor.timestamps import iso_utc

_MARK = "ingestor"


@contextlib.contextmanager
def leaving(target: Path, mode: int) -> Iterator[Path]:
    """Give a new, empty file beside `target` to be written; it takes that name when the block ends well.

    It has `mode` from the start, whatever the umask, and a name that nobody can guess and lay a link at. It
    is removed where the block or SIGTERM ends it; what a kill left in the folder goes now. Raises
    ConfigurationError where the folder does not exist.
    """
    folder = target.absolute().parent
    if not folder.is_dir():
        raise ConfigurationError(f"the folder {folder} does not exist; make it, or name another")
    _sweep(folder)
    temporary = folder / f".{target.name[:100]}.{_MARK}-{secrets.token_hex(8)}.part"
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.fchmod(handle, mode)
        with _ended_by_sigterm():
            yield temporary
            os.fsync(handle)
            temporary.replace(folder / target.name)
        folder_to_disk(folder)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def written(target: Path | str, else_: str) -> Iterator[None]:
    """Say in one line why `target` could not be written, and what to do. Raises ArchiveUnavailable."""
    try:
        yield
    except (sqlite3.Error, DBAPIError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else getattr(error, "orig", error)
        why = reason or type(error).__name__
        raise ArchiveUnavailable(f"{target} could not be written ({why}); make room, {else_}") from error


def _sweep(folder: Path) -> None:
    """Remove files that a killed process left: nobody holds their lock any more."""
    for left in folder.glob(f".*.{_MARK}-*.part"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
                for beside in ("-wal", "-shm", "-journal"):  # of an SQLite file that was being made
                    left.with_name(left.name + beside).unlink(missing_ok=True)
                shutil.rmtree(left.with_name(f"{left.name}-parts"), ignore_errors=True)  # of a workbook
            finally:
                os.close(handle)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block by an exception, so that what it has begun is cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_ROWS: Final = 1000
COLUMNS = tuple(column.name for column in inbound_sms.c)
_NUMBERS = ("originator", "destination")
# A cell that begins so may run as a formula (OWASP); every E.164 number does.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_LONGEST_IN_FORMULA = 255  # of a text in a formula
_WORDS_OR_NUMBER = re.compile(r"\d|(?i:true|false|vero|falso)$")


Tell = Callable[[int, int], None]
"""Hears now and then how far it is: of an export the id of a row and the highest, of a snapshot bytes."""


def quiet(_done: int, _of: int) -> None:
    """Tell nobody."""


def rows_of(engine: Engine, filters: Filters | None, tell: Tell) -> Iterator[Row]:
    """Give the rows of `inbound_sms` that `filters` ask for, oldest id first, without ever holding all."""
    columns = inbound_sms.c
    with reading(engine) as connection:
        # By the index of the ids; max(id) of the view reads them all.
        last = connection.execute(select(columns.id).order_by(columns.id.desc()).limit(1)).scalar() or 0
        query = filtered(filters or Filters()).order_by(columns.id)
        for number, row in enumerate(stream(connection, query)):
            if number % _ROWS == 0:
                tell(row["id"], last)
            yield row


def export_jsonl(engine: Engine, out: TextIO, filters: Filters | None = None, tell: Tell = quiet) -> int:
    """Write one JSON object a row of `inbound_sms` to `out` (UTF-8), oldest id first; return how many."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    number = 0
    for number, row in enumerate(rows_of(engine, filters, tell), 1):  # noqa: B007 - it is returned
        out.write(encode(plain_row(row)) + "\n")
    return number


def export_csv(
    engine: Engine, out: TextIO, filters: Filters | None = None, tell: Tell = quiet, *,
    spreadsheet_safe: bool = False, separator: str | None = None,
) -> int:  # fmt: skip
    """Write `inbound_sms` as CSV (RFC 4180) to `out`, with a header; return how many rows.

    Exact: text is always quoted, so that an empty text is `""` and NULL is nothing. With
    `spreadsheet_safe`, a text that a spreadsheet might run as a formula gets an apostrophe in front, and
    the numbers follow once more without their plus, in columns of their own. With a `separator` it is for
    Excel: a byte order mark in front, and a text that it would take for a number or a date as `="…"`.
    """
    extra = tuple(f"{name}_digits" for name in _NUMBERS) if spreadsheet_safe else ()
    between = separator or ","
    out.write(("\ufeff" if separator else "") + _line([*COLUMNS, *extra], between))
    number = 0
    for number, row in enumerate(rows_of(engine, filters, tell), 1):  # noqa: B007 - it is returned
        values = [plain(row[name]) for name in COLUMNS]
        if separator:
            values = [_for_excel(row[name]) for name in COLUMNS]
        elif spreadsheet_safe:
            values = [_defused(value) for value in values] + [_digits(row[name]) for name in _NUMBERS]
        out.write(_line(values, between))
    return number


def _line(values: Iterable[Any], separator: str) -> str:
    return separator.join(map(_cell, values)) + "\r\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _defused(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value


def _for_excel(value: Any) -> Any:
    """Return a text so that Excel shows it as it is: what has a digit may be a number or a date there."""
    if not isinstance(value, str):
        return plain(value)
    in_formula = len(value) <= _LONGEST_IN_FORMULA and not set("\r\n") & set(value)
    if in_formula and (value.startswith(_FORMULA) or _WORDS_OR_NUMBER.search(value)):
        quoted = value.replace('"', '""')
        return f'="{quoted}"'
    return _defused(value)


def _digits(number: str | None) -> str | None:
    bare = (number or "").removeprefix("+")
    return bare if bare.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot holds: the file, its bytes, and how many SMS."""

    path: Path
    size: int
    sms: int


def snapshot(engine: Engine, target: Path, now: datetime, tell: Tell = quiet) -> Snapshot:
    """Write all committed rows to the SQLite file `target`, of one moment; return what it holds.

    The file never held the key of the fingerprints; it needs no second file, and no write access to be read.
    It appears whole or not at all. Raises ConfigurationError where `target` is there, and no older snapshot.
    """
    target = target.absolute()
    _check_target(engine, target)
    with written(f"the snapshot {target}", "or name another place"), leaving(target, 0o640) as temporary:
        try:
            number = _copy(engine, temporary, now, tell)
        except (sqlite3.Error, DBAPIError) as error:
            raise refusal(temporary) or error from error
    return Snapshot(target, target.stat().st_size, number)


def _check_target(engine: Engine, target: Path) -> None:
    if not target.exists():
        return
    archive = sqlite_path(engine.url)
    if archive is not None and archive.exists() and target.samefile(archive):
        raise ConfigurationError(f"{target} is the archive itself; name another file for the snapshot")
    if not target.is_file() or not is_snapshot(target):
        raise ConfigurationError(f"{target} exists and is no snapshot; name another file")


def _copy(engine: Engine, path: Path, now: datetime, tell: Tell) -> int:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as copy:
        # Nothing beside the file: it counts for nothing until it is whole.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        whole = _size(engine)

        def step() -> int:  # between steps Python hears of signals, too
            tell(min(path.stat().st_size, whole), whole)
            return 0

        step()
        copy.set_progress_handler(step, 100_000)
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


def _size(engine: Engine) -> int:
    """Return about how many bytes the archive takes: a copy of it, on either database, about as many."""
    file = sqlite_path(engine.url)
    if file is not None:
        return file.stat().st_size
    with reading(engine) as connection:
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar() or 1)


def _copy_file(archive: Path, sink: Connection, copied: Sequence[Table]) -> None:
    sink.commit()
    sink.exec_driver_sql("ATTACH DATABASE ? AS archive", (f"{archive.absolute().as_uri()}?mode=ro",))
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
