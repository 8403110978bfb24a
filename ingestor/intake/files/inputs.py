"""The inputs of a run: how far each was read, and whether what was read then is still the same."""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from ingestor.archive.entries import InputProgress
from ingestor.errors import InputUnreadable
from ingestor.intake.files.sources import Place
from ingestor.intake.files.streams import Stream

_PIECE = 1 << 20


class InputChanged(InputUnreadable):
    """A resumed input is not what had been read: going on would lose or double mails."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """How far an input had been read: a row of `run_inputs`."""

    id: int
    position: int = 0
    sha256: bytes | None = None


class OpenBooks(Protocol):
    """Where the inputs of a run are kept."""

    def begin(self, place: Place) -> Earlier:
        """Make or find the row of an input."""

    def has_read(self, place: Place, size: int) -> bool:
        """Say whether an earlier process of this run read an input of so many bytes to its end."""

    def missing(self) -> list[tuple[str, str]]:
        """Return path and sentence of each input that was not read to its end and was not met again."""


@dataclass(slots=True)
class StreamInput:
    """A mailbox or a mail of its own: positions are offsets in the decompressed stream."""

    place: Place
    earlier: Earlier
    hasher: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _reached: int | None = None

    def catch_up(self, stream: Stream, mark: int) -> int:
        """Read what had been read before, `mark` bytes of which are already consumed; return its end.

        Raises `InputChanged` when it is shorter or different.
        """
        left = self.earlier.position - mark
        if left <= 0:
            return mark
        while left:
            piece = stream.read(min(left, _PIECE))
            if not piece:
                raise InputChanged(_changed(self.place, "is shorter than what had been read of it"))
            self.hasher.update(piece)
            left -= len(piece)
        if self.earlier.sha256 != self.hasher.digest():
            raise InputChanged(_changed(self.place, "is not the same as when it was read"))
        return self.earlier.position

    def progress(self, position: int, sha256: bytes, size: int | None = None) -> InputProgress:
        """Return the step to `position`; `size` once the end was seen."""
        since = self.earlier.position if self._reached is None else self._reached
        self._reached = position
        return InputProgress(self.earlier.id, position, sha256, size, since)


@dataclass(slots=True)
class ListInput:
    """The single mails of a folder or an archive: the position is a place in their list."""

    place: Place
    earlier: Earlier
    count: int = 0
    _chain: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def catching_up(self) -> bool:
        """Say whether the next file had been read before."""
        return self.count < self.earlier.position

    def add(self, name: str, content_sha256: bytes) -> InputProgress | None:
        """Take the next file of the list; return the step, None while catching up.

        Raises `InputChanged` where the files before the place reached are not the same ones.
        """
        was_before = self.catching_up
        self._chain.update(name.encode("utf-8", "replace") + b"\0" + content_sha256)
        self.count += 1
        if not was_before:
            return InputProgress(self.earlier.id, self.count, self._chain.digest(), None, self.count - 1)
        if not self.catching_up and self._chain.digest() != self.earlier.sha256:
            raise InputChanged(_changed(self.place, "does not begin with the same files as when it was read"))
        return None

    def end(self) -> InputProgress:
        """Return the last step: now the length of the list is known. Raises `InputChanged` if it is short."""
        if self.catching_up:
            raise InputChanged(_changed(self.place, "holds fewer files than had been read of it"))
        return InputProgress(self.earlier.id, self.count, self._chain.digest(), self.count, self.count)


def _changed(place: Place, how: str) -> str:
    return f"{place} {how}; import it again without --resume: what is stored already will not be doubled"
