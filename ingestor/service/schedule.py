"""What is due by the clock: APScheduler looks after the archive, sees a failover and begins a day.

A job cannot be killed, and must not touch a connection that another thread owns. Settings against its
defaults: a run that comes more than a second late would be dropped (`misfire_grace_time`), and local time has
hours that happen twice (UTC). And the clock may be set while it runs: see `_Scheduler` and `_Every`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobEvent,
)
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ingestor.archive.engine import reading
from ingestor.archive.intact import Difference, NotCompared, differences
from ingestor.archive.mailbox_state import kept_alive
from ingestor.archive.runs import balance, begin_run, end_run, find_run, lease_of
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.errors import IngestorError
from ingestor.logs import get_logger
from ingestor.pauses import pauses
from ingestor.redaction import some_of

log = get_logger(__name__)

SETTLING_SECONDS = 10.0
COMPARE_SECONDS = 24 * 3600.0
SAY_SECONDS = 3600.0
GUARD_SECONDS = 60.0
FAILOVER_SECONDS = 5.0
_MOST_NAMED = 5
_TROUBLE = {EVENT_JOB_ERROR: "error", EVENT_JOB_MISSED: "missed", EVENT_JOB_MAX_INSTANCES: "still_running"}


def schedule(
    jobs: Mapping[str, tuple[float, Callable[[], None]]],
    daily: Mapping[str, Callable[[], None]] = MappingProxyType({}),
) -> BackgroundScheduler:
    """Call, by name, `jobs` every so many seconds and `daily` at midnight UTC; return who does it.

    A job that fails, comes too late, or finds its last run still going, is said in the log and called again.
    """
    # Its own record of every run would be two lines a look.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    scheduler = _Scheduler(
        timezone=UTC,
        daemon=True,
        job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
    )
    scheduler.add_listener(_note, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    for name, (seconds, call) in jobs.items():
        scheduler.add_job(call, _Every(timedelta(seconds=seconds)), id=name, name=name)
    for name, call in daily.items():
        scheduler.add_job(call, "cron", hour=0, minute=0, id=name, name=name)
    scheduler.start()
    return scheduler


class _Every(BaseTrigger):  # type: ignore[misc]  # it has no types
    """Due so long after each call. APScheduler's own trigger counts up each time that a clock jumped over:
    set right from 1970 it made a list of 350 million, and called nobody meanwhile."""

    def __init__(self, pause: timedelta) -> None:
        self._pause = pause

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """Return when it is due next."""
        return now + self._pause


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]  # it has no types
    """One that goes on where the clock is set back: by the hour of before nothing was due for an hour."""

    def _process_jobs(self) -> float | None:
        wait = super()._process_jobs()
        now = datetime.now(UTC)  # behind it: the clock may be set in between
        for job in self.get_jobs():
            if job.next_run_time > (due := job.trigger.get_next_fire_time(None, now)):
                job.modify(next_run_time=due)  # which ends the wait
        return wait  # type: ignore[no-any-return]


def _note(event: JobEvent) -> None:
    error = getattr(event, "exception", None)
    log.warning(
        "a scheduled call went wrong", job=event.job_id, what=_TROUBLE[event.code],
        error=type(error).__name__ if error else None,
    )  # fmt: skip


def next_run(engine: Engine, writer: Writer, run: int, options: Mapping[str, object]) -> int:
    """Close `run` and return the number of a new one, under which `writer` counts from now on.

    What it was handed before is counted under the old one, which is closed after it. Where the database does
    not answer, the day begins in the old run.
    """
    try:
        new = begin_run(engine, "run", options, datetime.now(UTC))
    except IngestorError as error:
        log.warning("the day begins in the old run", run=run, reason=str(error))
        return run
    writer.run = new
    until = time.monotonic() + SETTLING_SECONDS
    while writer.queued and time.monotonic() < until:
        time.sleep(0.01)
    try:
        end_run(engine, run, datetime.now(UTC))
        log.info("a new run begins", before=run, read=balance(engine, run).read, run=new)
    except (IngestorError, LookupError) as error:  # a failover may have lost the row
        log.warning("the run stays open", run=run, reason=str(error))
    return new


class ArchiveGuard:
    """Compares the archive with what this version makes of it, and holds the store back where that is unsafe.

    Where only a guard or a view of ours differs, storing goes on. Where rows may be refused, swallowed,
    hidden or doubled, POSTs go to the spool and mails stay on their servers. Either is said each hour.
    """

    def __init__(
        self, engine: Engine, store: Store, tell: Callable[[str | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`tell` hears what differs, in one line, and None when that is over."""
        self._engine, self._store, self._tell, self._clock = engine, store, tell, clock
        self._compared = self._said = -COMPARE_SECONDS
        self._found: list[Difference] = []

    def look(self) -> None:
        """Compare where a day is over, or something differed the last time; called once a minute."""
        now = self._clock()
        if not self._found and now - self._compared < COMPARE_SECONDS:
            return
        try:
            found = differences(self._engine)
        except NotCompared as reason:  # what was found before stands until it is seen to be over
            if now - self._compared >= COMPARE_SECONDS:
                self._compared = now
                log.info("the archive is not compared with what this version makes", reason=str(reason))
            return
        except IngestorError:
            return  # the writer says what ails the archive, and in a minute it is looked at again
        self._compared = now
        self._take(found, now)

    def _take(self, found: list[Difference], now: float) -> None:
        before, self._found = self._found, found
        if not found:
            self._store.held = None
            self._tell(None)
            if before:
                log.info("the archive is as this version makes it again")
            return
        harmed = [one for one in found if one.harms]
        told, harm = some_of(found, _MOST_NAMED), some_of(harmed, _MOST_NAMED)
        self._store.held = f"the archive was changed: {harm}; `ingestor check`" if harmed else None
        self._tell(told)
        if found != before or now - self._said >= SAY_SECONDS:
            self._said = now
            log.error(
                "the archive is not as this version makes it",
                differs=told,
                consequence="POSTs go to the spool, mails wait" if harmed else "storing goes on",
                needs="ingestor check, and ingestor db repair for what is ours",
            )


class FailoverCare:
    """Sees that another PostgreSQL server was promoted, and has that done which makes up for what it lacked.

    A synchronous standby lacks nothing, and an asynchronous one the last commits: POSTs that were
    acknowledged, and mails over which the cursors of this daemon's memory have passed. So both are submitted
    again, as a run `rescan`; what is there is a duplicate. The timeline that all was done for stands in the
    state directory: a daemon that was stopped meanwhile, or in the midst of it, does it at its start.
    """

    def __init__(
        self, engine: Engine, directory: Path, run: Callable[[], int], begin_anew: Callable[[], None],
        steps: Callable[[int], Sequence[Callable[[], bool]]],
    ) -> None:  # fmt: skip
        """`run` tells under which run the daemon counts; `begin_anew` begins another: its row may be lost.

        `steps` is given the number of the run of what is done again: each step says whether it is done, or
        raises IngestorError where it is to be tried again.
        """
        self._engine, self._run, self._begin_anew, self._steps = engine, run, begin_anew, steps
        self._file = directory / "timeline"
        self._stop = Event()
        self._done = self._doing = ""
        with suppress(OSError):
            self._done = self._file.read_text(encoding="ascii").strip()

    def look(self) -> None:
        """Begin to make up where another server was promoted; called at the start and every few seconds."""
        if self._engine.dialect.name != "postgresql":
            return
        try:
            now = _timeline(self._engine)
            lost = not _is_there(self._engine, self._run())
        except (IngestorError, DBAPIError):
            return  # it is away, no primary yet, or none that has such a thing
        if not self._done:
            self._note(now)
        if now == self._doing or (now == self._done and not lost):
            return
        log.warning(
            "another PostgreSQL server was promoted; what it may lack is given to it again",
            timeline=now, before=self._done, run_lost=lost,
        )  # fmt: skip
        self._begin_anew()
        self._stop.set()  # what is done for a server that is no more
        self._stop, self._doing = Event(), now
        Thread(target=self._make_up, args=(now, self._stop), name="failover", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more; what is left is done at the next start."""
        self._stop.set()

    def _make_up(self, timeline: str, stop: Event) -> None:
        run: int | None = None
        left: list[Callable[[], bool]] = []
        for pause in pauses(30.0, 1800.0):  # a mailbox that refuses the password must not be hammered
            try:
                if run is None:
                    run = begin_run(self._engine, "rescan", {"failover_to": timeline}, datetime.now(UTC))
                    left = list(self._steps(run))
                with kept_alive(self._engine, lease_of(run)):
                    left = [step for step in left if stop.is_set() or not _is_done(step)]
                if not left:
                    end_run(self._engine, run, datetime.now(UTC))
                    outcomes = balance(self._engine, run)
                    break
            except (IngestorError, LookupError) as error:
                log.info("what a failover may have lost is not given again yet", reason=str(error))
            if stop.wait(pause):
                return
        self._note(timeline)
        self._doing = ""
        log.info("what the promoted server may have lacked was given to it again", run=run,
                 lacked=outcomes.stored, known=outcomes.duplicate)  # fmt: skip

    def _note(self, timeline: str) -> None:
        self._done = timeline
        with suppress(OSError):
            self._file.write_text(f"{timeline}\n", encoding="ascii")


def _is_done(step: Callable[[], bool]) -> bool:
    try:
        return step()
    except IngestorError as error:
        log.info("what a failover may have lost is not given again yet", reason=str(error))
        return False


def _is_there(engine: Engine, run: int) -> bool:
    try:
        find_run(engine, run)
    except LookupError:
        return False
    return True


def _timeline(engine: Engine) -> str:
    """Return the name of the history that a PostgreSQL server writes: each promotion begins another.

    Not pg_control_checkpoint(): after a promotion that tells of the old one for minutes. Raises
    ArchiveUnavailable where it cannot be told now, by a standby too.
    """
    with reading(engine) as connection:
        file = connection.exec_driver_sql("SELECT pg_walfile_name(pg_current_wal_lsn())").scalar_one()
    return str(file)[:8]
