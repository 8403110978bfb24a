"""The mailbox threads as a set: started, woken, replaced on reload, raised again when one dies, stopped."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from ingestor.service.watchdog import Beat
from ingestor.settings import Mailbox

log = structlog.get_logger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
SOUND_AFTER = 600.0  # seconds; a thread that lived this long died of something new


class Reader(Protocol):
    """What the service needs of `intake.mailbox.MailboxThread`."""

    progress: float
    """Monotonic time of the last finished cycle."""

    @property
    def stall_limit(self) -> float:
        """Seconds a cycle may take at most."""

    def start(self) -> None:
        """Begin to read."""

    def wake(self) -> None:
        """Look for new mail now."""

    def stop(self) -> None:
        """End soon: after the batch in hand, and out of a hung read."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; return whether it has come, or nothing was ever begun."""


@dataclass
class _Watched:
    mailbox: Mailbox
    reader: Reader
    started: float
    deaths: int = 0
    died: float = 0.0
    again_at: float | None = None


class Mailboxes:
    """One reader a mailbox. Only the main thread changes the set; `wake` may come from anywhere."""

    def __init__(
        self, make: Callable[[Mailbox], Reader], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make readers by `make`, with today's rules; `clock` is monotonic."""
        self._make = make
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()

    def start(self, mailboxes: Sequence[Mailbox]) -> None:
        """Start a reader for each of `mailboxes`."""
        for mailbox in mailboxes:
            reader = self._begin(mailbox)
            with self._lock:
                self._watched[mailbox.name] = _Watched(mailbox, reader, self._clock())

    def tend(self) -> None:
        """Raise readers that died again, each after its pause, which doubles with every death."""
        now = self._clock()
        for name, watched in self._watched.items():
            if not watched.reader.join(0):
                continue
            if watched.again_at is None:
                if now - watched.started > SOUND_AFTER:
                    watched.deaths = 0
                watched.deaths += 1
                pause = min(FIRST_PAUSE * 2 ** (watched.deaths - 1), LONGEST_PAUSE)
                watched.died = now
                watched.again_at = now + pause * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret
                log.error("mailbox thread died", mailbox=name, deaths=watched.deaths, again_in=round(pause))
            elif now >= watched.again_at:
                watched.reader = self._begin(watched.mailbox)
                watched.started, watched.again_at = now, None
                if not watched.reader.join(0):
                    log.info("mailbox thread started again", mailbox=name)

    def _begin(self, mailbox: Mailbox) -> Reader:
        """Return a reader for `mailbox`, started; where no thread is to be had `tend` finds it dead."""
        reader = self._make(mailbox)
        try:
            reader.start()
        except (RuntimeError, MemoryError) as fault:
            log.error(  # noqa: TRY400 - the sentence says it all
                "no thread can be started for a mailbox", mailbox=mailbox.name, reason=type(fault).__name__,
                needs="a higher TasksMax of the unit, or more memory",
            )  # fmt: skip
        return reader

    def wake(self, name: str) -> None:
        """Make mailbox `name` look for new mail now."""
        with self._lock:
            watched = self._watched.get(name)
        if watched is not None:
            watched.reader.wake()

    def beats(self) -> list[Beat]:
        """Return how each reader stands; for a dead one its death is the cycle, its pause the next."""
        return [
            Beat(f"mailbox {name}", watched.reader.progress, watched.reader.stall_limit)
            if watched.again_at is None
            else Beat(f"mailbox {name}", watched.died, watched.again_at - watched.died + 60)
            for name, watched in self._watched.items()
        ]

    def stop(self, seconds: float) -> None:
        """Stop all readers at once and wait up to `seconds` for them together."""
        for watched in self._watched.values():
            watched.reader.stop()
        deadline = self._clock() + seconds
        for name, watched in self._watched.items():
            if not watched.reader.join(max(deadline - self._clock(), 0)):
                # A silent name server cannot be interrupted. Nothing uncommitted counts as done.
                log.warning("mailbox thread left behind", mailbox=name, seconds=seconds)
        with self._lock:
            self._watched.clear()
