"""Keeping an SQLite archive whole in its one file: what was stored last stands in its -wal at first.

Up to 8 MB of SMS, weeks of a small archive, lay there only, and `cp archive.db` beside the running daemon
made a copy without a single table.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine

from ingestor.archive.open_file import OpenFile, open_file, require_in_place
from ingestor.errors import ArchiveUnavailable
from ingestor.logs import get_logger

IDLE_SECONDS, LONGEST_SECONDS = 60.0, 3600.0
LARGE = 16 * 2**20
"""Bytes of a -wal that somebody keeps from shrinking: SQLite's own checkpoints keep it at 8 MB."""

_READ_MARKS = range(123, 128)  # the bytes of the -shm that readers lock (SQLite's "WAL-mode file format")

log = get_logger(__name__)

Tell = Callable[[str | None], None]


class WalCare:
    """Decides when to bring the -wal into the file; called every few seconds, from one thread."""

    def __init__(self, engine: Engine, file: OpenFile, last_write: Callable[[], float], tell: Tell) -> None:
        """`last_write` gives the monotonic time of the last write; `tell` hears who keeps the -wal from
        shrinking, and None when that is over."""
        self._engine = engine
        self._file = file
        self._last_write = last_write
        self._tell = tell
        self._done_at: float | None = None
        self._begun = time.monotonic()
        self._blocked = False

    def look(self) -> None:
        """Bring the -wal into the file when nobody has written for a minute, or an hour has passed."""
        try:
            require_in_place(self._engine, mend=True)
        except ArchiveUnavailable as error:
            self._tell(str(error))
        else:
            self._tell(self._tend())

    def _tend(self) -> str | None:
        now, written = time.monotonic(), self._last_write()
        size, held = self._file.wal_size, 0
        idle = now - written >= IDLE_SECONDS and (self._done_at is None or written > self._done_at)
        overdue = now - (self._done_at or self._begun) >= LONGEST_SECONDS
        if size and (idle or overdue or size > LARGE):
            left = self._file.checkpoint()
            held = left or 0
            if left is None:
                self._done_at = now
        if held > LARGE:
            who = ", ".join(readers(self._file.path)) or "a process that cannot be seen from here"
            if not self._blocked:
                self._blocked = True
                log.warning(
                    "a reader keeps the -wal from shrinking", reader=who, bytes=size,
                    needs="end its transaction: the -wal grows with each SMS until then",
                )  # fmt: skip
            return f"{who} reads in one transaction and keeps {self._file.path.name}-wal at {size >> 20} MB"
        if self._blocked:
            self._blocked = False
            log.info("the -wal shrinks again")
        return None


def wal_care(engine: Engine, last_write: Callable[[], float], tell: Tell) -> WalCare | None:
    """Return the care for the file of `engine`, None where it has none."""
    file = open_file(engine)
    return WalCare(engine, file, last_write, tell) if file is not None else None


def readers(path: Path) -> list[str]:
    """Return who has a read transaction open on the archive at `path`, by Linux's table of locks."""
    with suppress(OSError):
        inode = Path(f"{path}-shm").stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        return sorted({_named(pid) for line in lines if (pid := _reader(line.split(), inode)) is not None})
    return []


def _reader(words: list[str], inode: int) -> int | None:
    # 7: POSIX  ADVISORY  READ 4711 fe:01:1703939 124 124
    with suppress(ValueError, IndexError):
        kind, pid, place, first, last = words[3], int(words[4]), words[5], int(words[6]), int(words[7])
        found = kind == "READ" and place.endswith(f":{inode}") and pid != os.getpid()
        return pid if found and any(first <= mark <= last for mark in _READ_MARKS) else None
    return None


def _named(pid: int) -> str:
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8').strip()})"
    except (OSError, UnicodeError):
        return f"process {pid}"
