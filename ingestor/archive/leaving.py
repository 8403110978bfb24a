"""Files that leave the archive: whole or not at all, and nobody else's on the way."""

import contextlib
import fcntl
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ingestor.errors import ConfigurationError

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


def _sweep(folder: Path) -> None:
    """Remove files that a killed process left: nobody holds their lock any more."""
    for left in folder.glob(f".*.{_MARK}-*.part"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
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


def folder_to_disk(folder: Path) -> None:
    """Make durable which names `folder` holds: a rename in it is not before."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
