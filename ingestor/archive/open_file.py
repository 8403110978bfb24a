"""The SQLite file that is open, whether its path still leads to it, and what was saved where it did not.

Whoever renames, replaces or removes the file, or its -wal, leaves the program with a file that no restart
finds: all goes on well, and nothing of it is there afterwards (260 of 260 acknowledged SMS, no line in the
log). So the path is looked at before and after each transaction. By stat alone: opening the file and closing
it again would drop SQLite's locks.

Such a file is saved as `NAME.saved-TIME` beside its path, which may be all there is of what was acknowledged.
Until the file at the path holds everything that is in it, nobody writes there: an archive that begins anew
beside it would look healthy, and be empty.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from ingestor.archive.tables import PERMANENT
from ingestor.errors import ArchiveUnavailable
from ingestor.logs import get_logger

_MARK = ".saved-"
_PATIENCE = 1.0
_FILES = ("", "-wal", "-shm")
REPLACED = ".replaced-"
"""In the name under which a restore keeps what was at the path."""


def save(source: sqlite3.Connection, path: Path) -> Path:
    """Write all that `source` sees into a new file beside `path`. Raises OSError, sqlite3.Error."""
    target = path.with_name(f"{path.name}{_MARK}{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z")
    unfinished = target.with_name(f".{target.name}.part")
    try:
        # It holds personal content.
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
        with closing(sqlite3.connect(unfinished)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.rename(target)
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return target


def saved_copies(path: Path) -> list[Path]:
    """Return the saved copies of the archive at `path`, the oldest first."""
    return _beside(path, _MARK)


def half_replaced(path: Path) -> Path | None:
    """Return what a restore that was killed had moved away from `path`, None where something is there."""
    return None if path.exists() else max(_beside(path, REPLACED), default=None)


def put_back(path: Path) -> None:
    """Undo what a restore that was killed has moved, the file itself last: until then it is known for it."""
    if (left := half_replaced(path)) is not None:
        for ending in reversed(_FILES):
            with suppress(FileNotFoundError):
                Path(f"{left}{ending}").rename(f"{path}{ending}")


def _beside(path: Path, mark: str) -> list[Path]:
    with suppress(OSError):
        named = (one for one in path.parent.iterdir() if one.name.startswith(path.name + mark))
        return sorted(one for one in named if not one.name.endswith(_FILES[1:]))
    return []


def lacking(path: Path) -> Path | None:
    """Return a saved copy with rows that the archive at `path` lacks (or all, where it is gone), or None."""
    for copy in saved_copies(path):
        try:
            with closing(plain_reader(copy, _PATIENCE)) as source:
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
        with closing(plain_reader(path, _PATIENCE)) as other:
            return all(_last_is_in(table, source, other) for table in PERMANENT)
    except (sqlite3.Error, OSError):
        return False


def fault(path: Path) -> str | None:
    """Return what a person must do before anybody writes into the archive at `path`, None where nothing."""
    if (left := half_replaced(path)) is not None:
        return (
            f"{path} is not there: a restore was killed half-way; call it again, which puts {left} back "
            "first, or move that to another folder to begin anew"
        )
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


def plain_reader(path: Path, timeout: float = 5.0) -> sqlite3.Connection:
    """Return a connection that only reads the SQLite file at `path`; nothing is set up."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=timeout)


_Identity = tuple[int, int] | None

log = get_logger(__name__)


class OpenFile:
    """One archive file, and a connection of its own that keeps it open, -wal and all."""

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect` opens the file at `path`, to be written."""
        self.path = path.absolute()
        self._connect = connect
        self._handle: sqlite3.Connection | None = None
        self._opened: list[_Identity] = []
        self._names = [f"{self.path}{ending}" for ending in _FILES]
        self._lock = threading.Lock()
        self._told = False
        self._saved: Path | None = None
        self._highest: dict[str, int] = {}
        self._gone_back: str | None = None

    def connect(self) -> sqlite3.Connection:
        """Return a new connection to the file that is open. Raises ArchiveUnavailable as `require` does."""
        with self._lock:
            if self._handle is None:
                if (why := fault(self.path)) is not None:
                    raise ArchiveUnavailable(why)
                self._handle = self._connect()
                self._handle.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # makes the -wal
                self._opened = self._look()
                self._told, self._saved = False, None
        self.require()
        connection = self._connect()
        try:
            self.require()
        except ArchiveUnavailable:
            connection.close()
            raise
        return connection

    @property
    def in_place(self) -> bool:
        """Whether the path, and that of the -wal, lead to the file that is open; True where none is."""
        return not self._opened or self._look() == self._opened

    def seen(self, table: str, highest: int) -> None:
        """Note the highest id of an append-only table. Raises ArchiveUnavailable where it was higher before.

        Then somebody has copied an older archive over the open file, which no inode tells.
        """
        if highest < self._highest.get(table, 0):
            self._gone_back = (
                f"{self.path} was overwritten with an older archive while it was open, and lacks rows of "
                f"{table} that were stored; put the newer one back, or restart to go on with what is there"
            )
            raise ArchiveUnavailable(self._gone_back)
        self._highest[table] = highest

    def require(self) -> None:
        """Raise ArchiveUnavailable where the path leads elsewhere."""
        if self._gone_back is not None:
            raise ArchiveUnavailable(self._gone_back)
        if not self.in_place:
            raise ArchiveUnavailable(f"{self._what()}; {advice(self.path, self._saved)}")

    def mend(self) -> bool:
        """Save what is open, once; say whether to go on with what is at the path, which holds as much.

        All else waits for a person: raises ArchiveUnavailable.
        """
        if self.in_place:
            if self._gone_back is not None:
                raise ArchiveUnavailable(self._gone_back)
            if self._told:
                self._told, self._saved = False, None
                log.info("the archive file is in its place again", path=str(self.path))
            return False
        if not self._lock.acquire(blocking=False):
            self.require()
            return False
        try:
            return self._mend()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Take the -wal in where nobody is in the way, and close the file."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            if self.in_place:
                with suppress(sqlite3.Error):
                    _checkpoint(handle)
            elif self._saved is None:
                self._save(handle)
            self._opened = []
            self._highest, self._gone_back = {}, None
            handle.close()

    def checkpoint(self) -> int | None:
        """Bring what the -wal holds into the file and empty it, or return how much of it a reader holds back.

        Nobody's lock is waited for, and a writer is kept out for the last few pages at most.
        """
        with self._lock, suppress(sqlite3.Error):  # a full disk: whoever writes meets it too, and says so
            if self._handle is not None and self.in_place:
                return _checkpoint(self._handle)
        return 0

    @property
    def wal_size(self) -> int:
        """How many bytes the -wal has now."""
        with suppress(OSError):
            return os.stat(self._names[1]).st_size  # noqa: PTH116 - as in `_look`
        return 0

    def _look(self) -> list[_Identity]:
        found: list[_Identity] = []
        for name in self._names:
            try:
                it = os.stat(name)  # noqa: PTH116 - twice a transaction: a Path took as long as the call
                found.append((it.st_dev, it.st_ino))
            except OSError:
                found.append(None)
        return found

    def _what(self) -> str:
        file, *_ = self._look()
        if file is None:
            return f"{self.path} was removed or renamed while it was open"
        if not self._opened or file != self._opened[0]:
            return f"{self.path} was replaced by another file while it was open"
        return f"{self.path}-wal or -shm was removed or replaced while it was open"

    def _mend(self) -> bool:
        handle, what = self._handle, self._what()
        if handle is None:
            return False
        why = self._save(handle) if self._saved is None else None
        if not self._told:
            self._told = True
            log.error(
                "the archive file is not the one that is open", reason=what,
                saved=str(self._saved) if self._saved else f"not yet: {why}",
                needs=advice(self.path, self._saved),
                consequence="nothing is acknowledged but by the spool, no mail is touched",
            )  # fmt: skip
        if self._saved is None or not self._holds_all(handle):
            raise ArchiveUnavailable(f"{what}; {advice(self.path, self._saved)}")
        log.info("the archive file at the path holds all that was open; it goes on", path=str(self.path))
        return True

    def _save(self, handle: sqlite3.Connection) -> str | None:
        try:
            self._saved = save(handle, self.path)
        except (sqlite3.Error, OSError) as error:
            return str(error)
        return None

    def _holds_all(self, handle: sqlite3.Connection) -> bool:
        file, wal, _ = self._look()
        if [file, wal] == self._opened[:2]:
            return True  # only the index of the -wal is gone: whoever opens the file makes a new one
        if file == self._opened[0]:
            # The -wal is gone, and all that was in it goes into the file: unless somebody has begun
            # another one, whose pages our index of the old one would mix up.
            if wal is not None and self.wal_size:
                return False
            with suppress(sqlite3.Error):
                return _checkpoint(handle) is None
            return False
        if wal is not None and wal == self._opened[1]:
            # The -wal of the file that was replaced: SQLite would apply it to the new one.
            for ending in ("-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
        return holds_all(self.path, handle)


def _checkpoint(handle: sqlite3.Connection) -> int | None:
    handle.execute("PRAGMA busy_timeout = 0")
    _, pages, done = handle.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if done == pages:
        busy, pages, done = handle.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return None
    (size,) = handle.execute("PRAGMA page_size").fetchone()
    return int(max(0, pages - done) * size)


def open_file(engine: Engine) -> OpenFile | None:
    """Return the file of an engine that writes into one, None for any other."""
    found = engine.get_execution_options().get("open_file")
    return found if isinstance(found, OpenFile) else None


def require_in_place(engine: Engine, *, mend: bool = False) -> None:
    """Do `OpenFile.require` for `engine`, or `OpenFile.mend`."""
    file = open_file(engine)
    if file is None:
        return
    if not mend:
        file.require()
    elif file.mend():
        engine.dispose()  # the next connection opens what is at the path


def folder_to_disk(folder: Path) -> None:
    """Make durable which names `folder` holds: a rename in it is not before."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
