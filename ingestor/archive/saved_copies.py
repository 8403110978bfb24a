"""Copies of an archive that was open while its file went away: `NAME.saved-TIME` beside its path.

Such a copy may be all there is of what was acknowledged. Until the file at the path holds everything that is
in it, nobody writes there: an archive that begins anew beside it would look healthy, and be empty.
"""

import contextlib
import os
import sqlite3
import urllib.parse
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ingestor.archive.tables import PERMANENT

_MARK = ".saved-"


def save(source: sqlite3.Connection, path: Path) -> Path:
    """Write all that `source` sees into a new file beside `path`; return it. Raises OSError, sqlite3.Error.

    It is one plain file, no -wal beside it, and appears whole or not at all.
    """
    target = path.with_name(f"{path.name}{_MARK}{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z")
    unfinished = target.with_name(f".{target.name}.part")
    try:
        os.close(
            os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
        )  # it holds personal content
        with closing(sqlite3.connect(unfinished)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.rename(target)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return target


def saved_copies(path: Path) -> list[Path]:
    """Return the saved copies of the archive at `path`, the oldest first."""
    with contextlib.suppress(OSError):
        return sorted(one for one in path.parent.iterdir() if one.name.startswith(path.name + _MARK))
    return []


def lacking(path: Path) -> Path | None:
    """Return a saved copy with rows that the archive at `path` lacks (or all, where it is gone), or None."""
    for copy in saved_copies(path):
        try:
            with closing(_read(copy)) as source:
                if not holds_all(path, source):
                    return copy
        except sqlite3.Error:
            continue  # no archive: of no use to anybody
    return None


def holds_all(path: Path, source: sqlite3.Connection) -> bool:
    """Say whether the file at `path` is the archive that `source` has open, and no older.

    Rows are never changed or removed, and their ids only grow: the last of each table tells for all.
    """
    try:
        path.stat()
        with closing(_read(path)) as other:
            return all(_last_is_in(table, source, other) for table in PERMANENT)
    except (sqlite3.Error, OSError):
        return False


def fault(path: Path) -> str | None:
    """Return what a person must do before anybody writes into the archive at `path`, None where nothing."""
    copy = lacking(path)
    if copy is None:
        return None
    state = "lacks rows that were stored" if path.exists() else "is not there"
    return f"{path} {state}; {advice(path, copy)}"


def advice(path: Path, copy: Path | None) -> str:
    """Return what a person can do where the archive at `path` lacks what is in `copy`."""
    if copy is None:
        return f"put it back to {path}"
    return (
        f"its content was saved as {copy}: put back what belongs to {path} (mv {copy} {path}), or move that "
        "copy to another folder to go on without it"
    )


def _last_is_in(table: str, source: sqlite3.Connection, other: sqlite3.Connection) -> bool:
    try:
        found = source.execute(f"SELECT * FROM {table} ORDER BY id DESC LIMIT 1")  # noqa: S608 - names are our own
    except sqlite3.OperationalError:
        return True  # an archive without a schema holds nothing
    last = found.fetchone()
    if last is None:
        return True
    columns = ", ".join(column for column, *_ in found.description)  # a later schema may have more
    row = other.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (last[0],)).fetchone()  # noqa: S608 - our own names
    return bool(row == last)


def _read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro", uri=True, timeout=1.0)
