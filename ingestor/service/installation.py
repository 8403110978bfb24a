"""Who this installation is among several on one archive: an id that outlives the process."""

import contextlib
import fcntl
import os
import threading
import uuid
from pathlib import Path
from typing import IO, Final

NAME: Final = "installation"


class Installation:
    """The id of the installation whose state directory this is, or one made up for this process alone.

    A daemon that starts again after a kill is the same holder of its leases, and need not wait for their end.
    A second one at the same time in the same directory is another: it does not get the lock.
    """

    def __init__(self, directory: Path) -> None:
        """Name the state directory; nothing is opened before the id is asked for."""
        self._directory = directory
        self._lock = threading.Lock()
        self._id: str | None = None
        self._file: IO[str] | None = None

    def id(self) -> str:
        """Return the id; any thread may ask."""
        with self._lock:
            if self._id is None:
                self._id = str(uuid.uuid4())
                with contextlib.suppress(OSError, ValueError):
                    self._take()
            return self._id

    def close(self) -> None:
        """Let another process be this installation."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _take(self) -> None:
        # Root leaves no file of its own in the service user's folder.
        own = self._directory.stat().st_uid == os.geteuid()
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if own else 0)
        with contextlib.ExitStack() as unless_taken:
            file = os.fdopen(os.open(self._directory / NAME, flags, 0o600), "r+", encoding="ascii")
            unless_taken.callback(file.close)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if written := file.read(100).strip():
                self._id = str(uuid.UUID(written))
            else:
                file.write(f"{self._id}\n")
                file.flush()
            unless_taken.pop_all()
            self._file = file
