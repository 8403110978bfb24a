"""What is kept of a login: one file a mailbox in the state directory, its owner's alone (0600).

A provider may forget the old refresh token as it gives a new one. So the new one is on the disk (written
beside, fsync, rename, fsync of the folder) before anything is done with it, and the room for it is taken
before it is asked for: a full disk shows while the old one still serves.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from ingestor.errors import LoginFault
from ingestor.redaction import register_secret

LOCK_SECONDS: Final = 20.0
_ROOM: Final = 65536
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Kept:
    """The tokens of one login; times are seconds since the epoch."""

    login: str
    refresh_token: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    renew_at: float = 0.0
    expires_at: float = 0.0


def file_of(directory: Path, name: str) -> Path:
    return directory / f"login-{name}.json"


@contextlib.contextmanager
def locked(directory: Path, name: str) -> Iterator[None]:
    """Be the only process that renews the login of mailbox `name`. Raises LoginFault where another does."""
    path = directory / f"login-{name}.lock"
    with _told(directory):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LoginFault(f"another process holds {path} for {LOCK_SECONDS:.0f} s") from None
                time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def read(directory: Path, name: str) -> Kept | None:
    """Return what is kept for mailbox `name`, None where there is nothing that can be read."""
    with _told(directory):
        try:
            kept = Kept(**json.loads(file_of(directory, name).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
    _register(kept)
    return kept


@contextlib.contextmanager
def room_for(directory: Path, name: str) -> Iterator[Callable[[Kept], None]]:
    """Yield what keeps the next state of mailbox `name` on disk. Raises LoginFault without room for it."""
    path = file_of(directory, name)
    beside = path.with_suffix(".new")
    with _told(directory):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(beside, flags, 0o600)

    def keep(kept: Kept) -> None:
        _register(kept)
        with _told(directory):
            content = json.dumps(asdict(kept)).encode()
            os.write(descriptor, content)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
            beside.replace(path)
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    try:
        with _told(directory):
            os.fchmod(descriptor, 0o600)  # one left behind may have been made otherwise
            os.posix_fallocate(descriptor, 0, _ROOM)
        yield keep
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise LoginFault(f"the login cannot be kept in {directory}: {fault.strerror}") from None


def _register(kept: Kept) -> None:
    for one in (kept.token, kept.refresh_token):
        if one:
            register_secret(one)
