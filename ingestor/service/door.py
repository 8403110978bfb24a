"""The listener's way to the writer, there from the first moment on: before the archive is open, and after."""

from concurrent.futures import Future

from ingestor.archive.entries import Receipt, Submission
from ingestor.archive.writer import Writer
from ingestor.errors import ArchiveUnavailable

_CLOSED = "the archive is not open yet"


class Door:
    """Looks like a writer that is in trouble until it is opened; so POSTs go to the spool, and wait there.

    A provider gives a message up after a few tries: it must not find the port closed while PostgreSQL is
    still starting.
    """

    def __init__(self) -> None:
        """Begin closed."""
        self._writer: Writer | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written now, None where it can."""
        return _CLOSED if self._writer is None else self._writer.trouble

    def submit(self, submission: Submission) -> "Future[Receipt]":
        """Hand `submission` to the writer. Raises ArchiveUnavailable while closed."""
        if self._writer is None:
            raise ArchiveUnavailable(_CLOSED)
        return self._writer.submit(submission)

    def open(self, writer: Writer) -> None:
        """Let everything through to `writer` from now on."""
        self._writer = writer
