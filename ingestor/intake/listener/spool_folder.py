"""The spool folder that is open: still the one at its path?

Somebody may move it away, or put another in its place. What was acknowledged lies in the old one then, where
no restart looks: so it is held open, nothing more is acknowledged by it, and what waits in it is replayed.
"""

import contextlib
import os
from pathlib import Path

from ingestor.intake.listener import spool


class SpoolFolder:
    """One folder, held open by a descriptor: its files are reached wherever it is moved."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._opened: tuple[int, int] | None = None

    @property
    def place(self) -> Path:
        """The path by which files of the open folder are reached."""
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
        """Make the folder where it is missing, prove it, and hold it open instead of the one before.

        Raises ConfigurationError where only a person can help, OSError where it may pass.
        """
        spool.prepare(self._directory)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.close()
        self._descriptor, self._opened = descriptor, _identity(os.fstat(descriptor))
        with contextlib.suppress(OSError, ValueError):
            *folder, waiting = _noted(self._directory)
            if tuple(folder) == self._opened or not waiting:
                self.forget()

    def note(self, waiting: int) -> None:
        """Write beside the path how many POSTs wait in the folder that was moved: `status` has no other
        way to know, and a restart none either."""
        numbers = (*(self._opened or (0, 0)), waiting)
        with contextlib.suppress(OSError):
            _note_of(self._directory).write_text(" ".join(map(str, numbers)), encoding="ascii")

    def forget(self) -> None:
        """Take that note away: the folder is back, or nothing waited in it."""
        with contextlib.suppress(OSError):
            _note_of(self._directory).unlink()

    def close(self) -> None:
        """Hold it no longer."""
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
