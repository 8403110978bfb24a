"""Opening the archive, however long the database takes to appear."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from threading import Thread
from typing import TypeVar

import structlog
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable, IngestorError, SchemaNewer, UpgradeFailed
from ingestor.pauses import pauses
from ingestor.settings import Settings

log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
LOOK_SECONDS = 0.25
TRY_SECONDS = 20.0  # longer than a try to connect may take
SAY_SECONDS = 3600.0
UPGRADE_SECONDS = 1800.0

T = TypeVar("T")


def open_archive(settings: Settings, command: str, options: Mapping[str, object]) -> tuple[Engine, int]:
    """Return the engine and the number of a new row in `runs`, with the schema at this program's version.

    Raise ArchiveUnavailable when the database cannot be reached, SchemaMismatch when it is not for us or a
    snapshot.
    """
    engine = open_engine(settings.database.url)
    try:
        ensure_schema(engine, auto_upgrade=settings.database.auto_upgrade)
        Store(engine).archive_key()
        return engine, begin_run(engine, command, options, datetime.now(UTC))
    except BaseException:
        engine.dispose()
        raise


def patiently(
    attempt: Callable[[], T],
    *,
    stop_wished: Callable[[float], bool],
    tell: Callable[[str, float], None],
) -> T | None:
    """Return what `attempt` returns, trying again for as long as the archive cannot be used.

    What waiting does not mend is said each hour, and tried again all the same: POSTs wait in the spool, where
    an end would let their providers give them up. Only SchemaNewer is raised.

    Each try has a thread of its own, which is abandoned when a stop is wished: a connection to a host that
    never answers cannot be interrupted. `stop_wished(seconds)` waits so long and says whether to give up,
    which makes the answer None; `tell(reason, seconds)` hears what is waited for and how long it may take.
    """
    lengths, waited, said = pauses(FIRST_PAUSE, LONGEST_PAUSE), False, -SAY_SECONDS
    while True:
        trying = _in_background(attempt)
        if _abandoned(trying, stop_wished, tell):
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
            tell(f"waiting for the archive: {error}", seconds + TRY_SECONDS)
            if stop_wished(seconds):
                return None
        else:
            if waited:
                log.info("the archive is there")
            return answer


def _in_background(attempt: Callable[[], T]) -> Future[T]:
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(attempt())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
            outcome.set_exception(error)

    try:
        Thread(target=work, name="open-archive", daemon=True).start()
    except RuntimeError:  # TasksMax, or no address space: somebody else may end
        outcome.set_exception(ArchiveUnavailable("no thread can be started to open the archive"))
    return outcome


def _abandoned(
    trying: Future[T], stop_wished: Callable[[float], bool], tell: Callable[[str, float], None]
) -> bool:
    """Wait for the end of a try and return False, or return True as soon as a stop is wished."""
    looks = 0
    while not wait([trying], timeout=LOOK_SECONDS).done:
        if stop_wished(0):
            return True
        looks += 1
        if looks * LOOK_SECONDS % TRY_SECONDS == 0:
            tell("opening the archive; an upgrade copies it first", UPGRADE_SECONDS)
    return False
