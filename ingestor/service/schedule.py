"""The scheduled poll: APScheduler wakes each mailbox's thread, and does nothing else.

Its jobs cannot be killed and must not touch a connection that another thread owns, so a job here only sets a
flag. Settings against its defaults: a run that comes more than a second late would be dropped
(`misfire_grace_time`), and local time has hours that happen twice (UTC).
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC

import structlog
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobEvent,
)
from apscheduler.schedulers.background import BackgroundScheduler

log = structlog.get_logger(__name__)

_TROUBLE = {EVENT_JOB_ERROR: "error", EVENT_JOB_MISSED: "missed", EVENT_JOB_MAX_INSTANCES: "still_running"}


class Schedule:
    """Jobs by name, each called every so many seconds in a thread of the scheduler's."""

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

    def replace(self, jobs: Mapping[str, tuple[float, Callable[[], None]]]) -> None:
        """Call exactly `jobs` from now on: by name, the seconds between two calls and what is called."""
        self._scheduler.remove_all_jobs()
        for name, (seconds, call) in jobs.items():
            self._scheduler.add_job(call, "interval", seconds=seconds, id=name, name=name)

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
