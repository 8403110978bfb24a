"""Opening the archive, however long the database takes to appear; who opens it, and what came of the run."""

import contextlib
import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.items import Receipt, Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import Balance, begin_run
from ingestor.archive.writer import Writer
from ingestor.errors import ArchiveUnavailable, IngestorError, SchemaNewer, UpgradeFailed
from ingestor.logs import get_logger
from ingestor.pauses import pauses
from ingestor.service import T, in_background
from ingestor.settings import Settings

log = get_logger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
LOOK_SECONDS = 0.25
BREATH_SECONDS = 1.0
TRY_SECONDS = 5.0  # longer than opening takes where nothing is amiss
SAY_SECONDS = 3600.0
UPGRADE_SECONDS = 1800.0
"""A try that takes longer has finished nothing: the watchdog is fed no more."""

INSTALLATION: Final = "installation"
"""The file in the state directory that keeps the id of the installation."""

_NOT_OPEN = "the archive is not open yet"


def open_archive(settings: Settings, command: str, options: Mapping[str, object]) -> tuple[Engine, int]:
    """Return the engine, its schema at this program's version, and the number of a new row in `runs`.

    Raise ArchiveUnavailable when it cannot be reached, SchemaMismatch when it is a snapshot or not for us.
    """
    engine = open_engine(settings.database.url)
    try:
        ensure_schema(engine, auto_upgrade=settings.database.auto_upgrade)
        read_archive_key(engine)
        return engine, begin_run(engine, command, options, datetime.now(UTC))
    except BaseException:
        engine.dispose()
        raise


def patiently(
    attempt: Callable[[], T],
    *,
    stop_wished: Callable[[float], bool],
    tell: Callable[[str], None],
    alive: Callable[[], None],
) -> T | None:
    """Return what `attempt` returns, trying again for as long as the archive cannot be used.

    What waiting does not mend is said each hour, and tried again all the same: POSTs wait in the spool, where
    an end would let their providers give them up. Only SchemaNewer is raised.

    Each try has a thread of its own, which is abandoned when a stop is wished: a connection to a host that
    never answers cannot be interrupted. `stop_wished(seconds)` waits so long and says whether to give up,
    which makes the answer None. `tell(reason)` hears within seconds what is waited for, so that whoever
    started us need not wait too. `alive()` is called all the time, but not in a try longer than any upgrade.
    """
    lengths, waited, said = pauses(FIRST_PAUSE, LONGEST_PAUSE), False, -SAY_SECONDS
    while True:
        trying = _begun(attempt)
        if _abandoned(trying, stop_wished, tell, alive):
            return None
        try:
            answer = trying.result()
        except SchemaNewer:
            raise
        except IngestorError as error:
            if error.retry and not waited:
                log.warning("the archive is waited for", reason=str(error))
            elif not error.retry and time.monotonic() - said >= SAY_SECONDS:
                log.error(  # noqa: TRY400 - the sentence says it all
                    "the archive cannot be used; POSTs wait in the spool, mails on their servers",
                    reason=str(error),
                )
                said = time.monotonic()
            waited = True
            # A try to upgrade copies the archive first.
            seconds = SAY_SECONDS if isinstance(error, UpgradeFailed) else next(lengths)
            tell(f"waiting for the archive: {error}")
            next_try = time.monotonic() + seconds
            while (left := next_try - time.monotonic()) > 0:
                if stop_wished(min(left, BREATH_SECONDS)):
                    return None
                alive()
        else:
            if waited:
                log.info("the archive is there")
            return answer


def _begun(attempt: Callable[[], T]) -> Future[T]:
    try:
        return in_background("open-archive", attempt)
    except RuntimeError:  # TasksMax, or no address space: somebody else may end
        outcome: Future[T] = Future()
        outcome.set_exception(ArchiveUnavailable("no thread can be started to open the archive"))
        return outcome


def _abandoned(
    trying: Future[T],
    stop_wished: Callable[[float], bool],
    tell: Callable[[str], None],
    alive: Callable[[], None],
) -> bool:
    """Wait for the end of a try and return False, or return True as soon as a stop is wished."""
    looks = 0
    while not wait([trying], timeout=LOOK_SECONDS).done:
        if stop_wished(0):
            return True
        looks += 1
        if looks * LOOK_SECONDS == TRY_SECONDS:
            tell("waiting for the archive: it is being opened; an upgrade copies it first")
        if looks * LOOK_SECONDS < UPGRADE_SECONDS:
            alive()
    return False


def run_options(settings: Settings) -> dict[str, object]:
    """Return what the row in `runs` keeps of the settings: names, and nothing secret."""
    return {
        "mailboxes": [mailbox.name for mailbox in settings.mailbox],
        "webhook": settings.webhook.listen if settings.webhook else None,
    }


@dataclass(frozen=True, slots=True)
class Ended:
    """Run number, balance, how long it took, and why which mailbox failed (a single pass only)."""

    run: int
    balance: Balance
    seconds: float
    failures: Mapping[str, str] = field(default_factory=dict)


class WriterToBe:
    """The listener's way to the writer, from the first moment on: one in trouble until the archive is open.

    So POSTs go to the spool until then, and wait there: a provider gives a message up after a few tries, and
    must not find the port closed while PostgreSQL is still starting.
    """

    writer: Writer | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written now, None where it can."""
        return _NOT_OPEN if self.writer is None else self.writer.trouble

    def submit(self, submission: Submission, future: "Future[Receipt] | None" = None) -> "Future[Receipt]":
        """Hand `submission` to the writer. Raises ArchiveUnavailable until then."""
        if self.writer is None:
            raise ArchiveUnavailable(_NOT_OPEN)
        return self.writer.submit(submission, future)


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
            file = os.fdopen(os.open(self._directory / INSTALLATION, flags, 0o600), "r+", encoding="ascii")
            unless_taken.callback(file.close)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if written := file.read(100).strip():
                self._id = str(uuid.UUID(written))
            else:
                file.write(f"{self._id}\n")
                file.flush()
            unless_taken.pop_all()
            self._file = file
