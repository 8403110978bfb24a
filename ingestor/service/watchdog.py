"""Liveness is progress: the watchdog is fed on the finished cycles of every part.

Each finished cycle pays for the time that the next one may take, and for no more. A loop that goes on
retrying a dead network or a stopped database finishes a cycle with each try: a restart would mend neither. A
loop that hangs finishes none, and then nothing is fed until systemd ends us.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from ingestor.service.notify import Notifier

STOOD_STILL_SECONDS = 10.0
"""Without a look for so long it was the whole process that stood still: SIGSTOP, a frozen machine."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Beat:
    """How a part stands: when it last finished a cycle (monotonic), and how long one may take at most."""

    part: str
    finished: float
    limit: float

    def late(self, now: float, awake_since: float = 0.0) -> bool:
        """Whether the cycle in hand takes too long; what was before `awake_since` does not count."""
        return now - max(self.finished, awake_since) > self.limit


class Watchdog:
    """Feeds systemd's watchdog, and says once which part hangs and once that it goes on."""

    def __init__(self, notifier: Notifier) -> None:
        """Report to `notifier`."""
        self._notifier = notifier
        self._hanging: set[str] = set()
        self._looked = float("inf")
        self._awake_since = 0.0

    @property
    def hanging(self) -> frozenset[str]:
        """The parts that did not finish in time, by the last look."""
        return frozenset(self._hanging)

    def look(self, beats: Sequence[Beat], now: float) -> None:
        """Feed the watchdog unless a part is late."""
        if now - self._looked > STOOD_STILL_SECONDS:
            log.info("the process stood still", seconds=round(now - self._looked))
            self._awake_since = now
        self._looked = now
        late = {
            beat.part
            for beat in beats
            if beat.late(now, 0.0 if beat.part in self._hanging else self._awake_since)
        }
        for part in sorted(late - self._hanging):
            log.error("a part hangs", part=part, consequence="the watchdog is not fed until it goes on")
        for part in sorted(self._hanging - late):
            log.info("the part goes on", part=part)
        self._hanging = late
        if not late:
            self._notifier.alive()
