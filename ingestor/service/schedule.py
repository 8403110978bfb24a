"""What is due by the clock: APScheduler looks after the archive and begins a day. A mailbox polls by itself.

A job cannot be killed, and must not touch a connection that another thread owns. Settings against its
defaults: a run that comes more than a second late would be dropped (`misfire_grace_time`), and local time has
hours that happen twice (UTC).
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import structlog
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobEvent,
)
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine

from ingestor.archive.runs import balance, begin_run, end_run
from ingestor.archive.writer import Writer
from ingestor.errors import IngestorError

log = structlog.get_logger(__name__)

_NOTHING: Mapping[str, Callable[[], None]] = MappingProxyType({})
SETTLING_SECONDS = 10.0
_TROUBLE = {EVENT_JOB_ERROR: "error", EVENT_JOB_MISSED: "missed", EVENT_JOB_MAX_INSTANCES: "still_running"}


class Schedule:
    """Jobs by name, called every so many seconds or each midnight (UTC) in a thread of the scheduler's."""

    def __init__(self) -> None:
        """Prepare; nothing is called before `start`."""
        self.trouble: Counter[str] = Counter()
        """How often a job failed (`error`), was dropped (`missed`) or found its last run `still_running`."""
        # Its own record of every run would be two lines a poll.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            daemon=True,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        self._scheduler.add_listener(self._note, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Begin to call."""
        self._scheduler.start()

    def replace(
        self,
        jobs: Mapping[str, tuple[float, Callable[[], None]]],
        daily: Mapping[str, Callable[[], None]] = _NOTHING,
    ) -> None:
        """Call exactly these from now on, by name: `jobs` every so many seconds, `daily` at midnight UTC."""
        self._scheduler.remove_all_jobs()
        for name, (seconds, call) in jobs.items():
            self._scheduler.add_job(call, "interval", seconds=seconds, id=name, name=name)
        for name, call in daily.items():
            self._scheduler.add_job(call, "cron", hour=0, minute=0, id=name, name=name)

    def stop(self) -> None:
        """Call nothing any more; a call in hand is not waited for."""
        self._scheduler.shutdown(wait=False)

    def _note(self, event: JobEvent) -> None:
        what = _TROUBLE[event.code]
        self.trouble[what] += 1
        error = getattr(event, "exception", None)
        log.warning(
            "a scheduled call went wrong",
            job=event.job_id,
            what=what,
            error=type(error).__name__ if error else None,
            times=self.trouble[what],
        )


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
        log.info("a new day, and a new run", before=run, read=balance(engine, run).read, run=new)
    except IngestorError as error:
        log.warning("the run stays open", run=run, reason=str(error))
    return new
