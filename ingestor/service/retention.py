"""What is kept no longer: planned each day, and erased where the configuration says so."""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Final

from sqlalchemy import Engine, select

from ingestor.archive import erasure
from ingestor.archive.engine import reading
from ingestor.archive.erasure_plan import Selection
from ingestor.archive.holds import Keep, count_due, due
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.mailbox_state import note_source, read_sources
from ingestor.archive.views import erasures_done
from ingestor.errors import IngestorError
from ingestor.logs import get_logger
from ingestor.settings.models import Retention
from ingestor.settings.values import before
from ingestor.timestamps import iso_utc

LOOK_SECONDS: Final = 60.0
DAY_SECONDS: Final = 24 * 3600.0
KIND: Final = "retention"
BASIS: Final = "retention"
LEAP: Final = timedelta(days=7)
"""A clock that went on by so much since the last look may be wrong, and what it erases does not come back."""
_WAITS: Final = timedelta(hours=23)
_AT_ONCE = 20_000
_MOST_COUNTED = 1_000_000

log = get_logger(__name__)


class RetentionCare:
    """Looks each day for what is due. It erases in batches as small as a person's, and stops between two."""

    def __init__(
        self, engine: Engine, section: Retention, clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC), pause: float = erasure.PAUSE_SECONDS,
    ) -> None:  # fmt: skip
        self._engine, self._section, self._clock, self._now, self._pause = engine, section, clock, now, pause
        self._looked = -DAY_SECONDS
        stop = Event()
        self.stop, self.stopping = stop.set, stop.is_set

    def look(self) -> None:
        """Say, or erase, what is due, where a day is over; called once a minute."""
        if self._clock() - self._looked < DAY_SECONDS:
            return
        try:
            self._look()
        except IngestorError as error:  # changed meanwhile, or the database is away: again in a minute
            log.warning("what is kept no longer waits", reason=str(error))
        else:
            self._looked = self._clock()

    def _look(self) -> None:
        sms, waiting = count_due(self._engine, *self._rules(), _MOST_COUNTED)
        more = " or more" if _MOST_COUNTED in (sms, waiting) else ""
        told = f"{sms:,} SMS and {waiting:,} of the quarantine{more}"
        if not self._section.apply:
            state = "due" if sms or waiting else "planned"
            detail = f"{told}; retention.apply is false, so they stay{self._last()}"
        elif (sms or waiting) and self._doubted(told):
            return
        elif sms or waiting:
            note_source(self._engine, KIND, KIND, "erasing", f"due: {told}", None, self._now(), success=False)
            done = self._erase()
            left = erasure.leave_no_bytes(self._engine)
            state = "stopped" if self.stopping() else "done"
            detail = (
                f"erased {done.sms:,} SMS and {done.arrivals:,} arrivals with {done.payloads:,} raw bytes"
            )
            detail += f"; {left}" if left else ""
            log.info("what is kept no longer was erased", sms=done.sms, arrivals=done.arrivals)
        else:
            state, detail = "done", f"nothing is due{self._last()}"
        note_source(self._engine, KIND, KIND, state, detail, None, self._now(), success=state != "stopped")

    def _doubted(self, told: str) -> bool:
        """Say whether what is due waits for a day, since the clock went on by a week or more at once."""
        noted = [one for one in read_sources(self._engine) if one.kind == KIND]
        last, now = noted[0].last_success if noted else None, self._now()
        if last is None or now - last < LEAP:
            return False
        if last == (told_at := noted[0].updated_at) or now - told_at >= LEAP:
            detail = (
                f"{told}; they go in a day: since the last look the clock went on by {(now - last).days} days"
            )
            note_source(self._engine, KIND, KIND, "due", detail, None, now, success=False)
            log.warning("what is kept no longer waits", reason=detail)
            return True
        return now - told_at < _WAITS

    def _erase(self) -> erasure.Done:
        secret = read_archive_key(self._engine)
        done = erasure.Done()
        while not self.stopping():
            sms, waiting = due(self._engine, *self._rules(), _AT_ONCE)
            if not sms and not waiting:
                break
            due_now = Selection(sms=tuple(sms), quarantine=tuple(waiting))
            plan = erasure.plan(self._engine, secret, due_now, BASIS, self._now())
            steps = erasure.apply(
                self._engine, secret, plan, self._now, pause=self._pause, stop=self.stopping
            )
            done += deque(steps, maxlen=1).pop()
        return done

    def _last(self) -> str:
        """Return what was last erased by age, where anything ever was."""
        done = erasures_done.c
        query = select(done.ended_at, done.sms).where(done.basis == BASIS).order_by(done.ended_at.desc())
        with reading(self._engine) as connection:
            row = connection.execute(query.limit(1)).first()
        return f"; last erased: {row.sms:,} SMS on {iso_utc(row.ended_at)[:10]}" if row is not None else ""

    def _rules(self) -> tuple[list[Keep], datetime | None]:
        now, section = self._now(), self._section
        keeps = [Keep(before(one.keep, now), one.destination, one.provider) for one in section.rule]
        if section.keep is not None:
            keeps.append(Keep(before(section.keep, now)))
        return keeps, before(section.quarantine, now) if section.quarantine is not None else None
