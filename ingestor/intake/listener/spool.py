"""The spool: POSTs kept as files while the database cannot take them. Each file is whole or not there.

A file is `ingestor spool 1`, the SHA-256 of all that follows, a line of JSON, then the query string and the
body byte for byte. Its name begins with the time of arrival, so that names sort in the order of arrival.

Somebody may move the folder away, or put another in its place. What was acknowledged lies in the old one
then, where no restart looks: so it is held open, replayed, and nothing more is acknowledged by it.
"""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ingestor.archive.open_file import folder_to_disk
from ingestor.errors import ConfigurationError

if TYPE_CHECKING:  # `status` counts what waits, and reads none of it
    from ingestor.intake.listener.posts import ReceivedPost

ENDING = ".post"
SET_ASIDE = "corrupt"
KEPT = "kept"

_MAGIC = b"ingestor spool 1"
_UNFINISHED = ".tmp"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Corrupt(ValueError):
    """A spool file is not what was written."""


def depth(directory: Path) -> int:
    """Return how many POSTs wait in the spool `directory`; 0 where there is none."""
    return len(names(directory))


def corrupt(directory: Path) -> int:
    """Return how many spool files were set aside because they cannot be read."""
    return depth(directory / SET_ASIDE)


def names(directory: Path) -> list[str]:
    """Return the names of the POSTs that wait, in the order of their arrival."""
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(ENDING))  # noqa: PTH208 - names alone
    except FileNotFoundError:
        return []


def oldest(directory: Path) -> datetime | None:
    """Return since when (aware UTC) the first of the waiting POSTs lies there; None where none waits."""
    for name in names(directory):
        try:
            return datetime.fromtimestamp((directory / name).stat().st_mtime, UTC)
        except FileNotFoundError:
            continue  # it was replayed just now
    return None


def prepare(directory: Path) -> None:
    """Make the spool `directory`, sweep what a crash left unfinished, and prove that it takes a write.

    Raises ConfigurationError where only a person can help, and OSError where it may pass (disk full).
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in directory.glob(f"*{_UNFINISHED}"):
            leftover.unlink(missing_ok=True)
        probe = directory / f"probe-{os.getpid()}{_UNFINISHED}"
        try:
            _write(probe, b"probe")
        finally:
            with suppress(FileNotFoundError):
                probe.unlink()
    except (PermissionError, NotADirectoryError, FileExistsError) as fault:
        raise ConfigurationError(
            f"the spool {directory} cannot be written ({fault.strerror}): make it a folder that belongs to "
            f"the user who runs ingestor"
        ) from None


def store(directory: Path, posts: "Iterable[ReceivedPost]") -> list[str | OSError]:
    """Make each of `posts` durable in `directory`; return a name for each, or what went wrong with it.

    Temp file, fsync, rename, and one fsync of the folder for all of them: only then may they be answered.
    """
    results: list[str | OSError] = []
    for received in posts:
        name = name_of(received)
        unfinished = directory / (name + _UNFINISHED)
        try:
            _write(unfinished, pack(received))
            unfinished.rename(directory / name)
            results.append(name)
        except OSError as fault:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            results.append(fault)
    try:
        folder_to_disk(directory)
    except OSError as fault:
        return [fault for _ in results]
    return results


def read(directory: Path, name: str) -> "ReceivedPost":
    """Return the POST in file `name`. Raises Corrupt, or OSError where the file cannot be read."""
    return unpack((directory / name).read_bytes())


def set_aside(directory: Path, name: str, where: str = SET_ASIDE) -> None:
    """Move a file that cannot be read out of the way, where a person can look at it; or to `where` else."""
    aside = directory / where
    aside.mkdir(mode=0o700, exist_ok=True)
    (directory / name).rename(aside / name)


def pack(received: "ReceivedPost") -> bytes:
    post = received.post
    about = {
        "identity": uuid.UUID(bytes=received.identity).hex,
        "source": received.source,
        "provider": received.provider,
        "peer": received.peer,
        "arrived_at": post.arrived_at.isoformat(),
        "content_type": post.content_type,
        "content_encoding": post.content_encoding,
        "query": len(post.query),
        "body": len(post.body),
    }
    rest = json.dumps(about).encode() + b"\n" + post.query + post.body
    return b"%b\n%b\n%b" % (_MAGIC, hashlib.sha256(rest).hexdigest().encode(), rest)


def unpack(content: bytes) -> "ReceivedPost":
    from ingestor.intake.listener.posts import ReceivedPost
    from ingestor.providers.contract import Post

    try:
        magic, digest, rest = content.split(b"\n", 2)
    except ValueError:
        raise Corrupt("the file is cut off") from None
    if magic != _MAGIC or digest != hashlib.sha256(rest).hexdigest().encode():
        raise Corrupt("the checksum is wrong")
    line, _, data = rest.partition(b"\n")
    try:
        about = json.loads(line)
        query, body = data[: about["query"]], data[about["query"] :]
        encoding, arrived_at = about.get("content_encoding", ""), datetime.fromisoformat(about["arrived_at"])
        post = Post(body, query, about["content_type"], arrived_at, encoding)
        identity, length = uuid.UUID(hex=about["identity"]).bytes, about["body"]
        received = ReceivedPost(identity, about["source"], about["provider"], about["peer"], post)
    except (ValueError, TypeError, KeyError) as fault:
        raise Corrupt(f"the content is of another kind ({type(fault).__name__})") from None
    if len(body) != length:
        raise Corrupt("the length is wrong")
    return received


def name_of(received: "ReceivedPost") -> str:
    """Return the name of the file that holds `received`: names sort in the order of arrival."""
    arrived = (received.post.arrived_at - _EPOCH) // _MICROSECOND
    return f"{arrived:020d}-{uuid.UUID(bytes=received.identity).hex}{ENDING}"


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)


class SpoolFolder:
    """One folder, held open by a descriptor: its files are reached wherever it is moved."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._opened: tuple[int, int] | None = None

    @property
    def place(self) -> Path:
        held = Path(f"/proc/self/fd/{self._descriptor}")  # Linux only; elsewhere by its path
        return held if self._descriptor is not None and held.exists() else self._directory

    @property
    def in_place(self) -> bool:
        """Whether the path leads to the folder that is open; True where none is open."""
        try:
            return self._opened is None or _identity(self._directory.stat()) == self._opened
        except OSError:
            return False

    def open(self) -> None:
        """Make and prove the folder, and hold it open instead of the last one; raises as `prepare`."""
        prepare(self._directory)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.close()
        self._descriptor, self._opened = descriptor, _identity(os.fstat(descriptor))
        with suppress(OSError, ValueError):
            *folder, waiting = _noted(self._directory)
            if tuple(folder) == self._opened or not waiting:
                self.forget()

    def prove(self) -> None:
        """Prove the folder again; one that could not be opened for want of room is opened now."""
        if self._opened is None:
            self.open()
        else:
            prepare(self.place)

    def note(self, waiting: int) -> None:
        """Write beside the path how many POSTs wait in the folder that was moved: `status` has no other
        way to know, and a restart none either."""
        numbers = (*(self._opened or (0, 0)), waiting)
        with suppress(OSError):
            _note_of(self._directory).write_text(" ".join(map(str, numbers)), encoding="ascii")

    def forget(self) -> None:
        with suppress(OSError):
            _note_of(self._directory).unlink()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def moved(directory: Path) -> str | None:
    """Return what a person must do about a spool folder that was moved away; None where none was."""
    try:
        waiting = _noted(directory)[-1]
    except (OSError, ValueError, IndexError):
        return None
    if not waiting:
        return None
    return (
        f"{directory} was moved or replaced while it was open, and {waiting} acknowledged POSTs wait in the "
        f"old folder: put it back, or remove {_note_of(directory)}"
    )


def _noted(directory: Path) -> tuple[int, ...]:
    return tuple(map(int, _note_of(directory).read_text(encoding="ascii").split()))


def _note_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.moved")


def _identity(it: os.stat_result) -> tuple[int, int]:
    return (it.st_dev, it.st_ino)
