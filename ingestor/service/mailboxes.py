"""The mailbox threads as a set: started, watched, replaced on reload, stopped."""

import time
from collections.abc import Callable, Sequence

import structlog

from ingestor.intake.mailbox import MailboxThread
from ingestor.service.watchdog import Beat
from ingestor.settings import Mailbox

log = structlog.get_logger(__name__)


class Mailboxes:
    """One thread a mailbox, which tries again by itself whatever goes wrong. For the main thread alone."""

    def __init__(
        self, make: Callable[[Mailbox], MailboxThread], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make threads by `make`, with today's rules; `clock` is monotonic."""
        self._make = make
        self._clock = clock
        self._threads: list[MailboxThread] = []
        self._waiting: list[MailboxThread] = []

    def start(self, mailboxes: Sequence[Mailbox]) -> None:
        """Start a thread for each of `mailboxes`; where none is to be had, say so, and leave it to `tend`."""
        self._threads = [self._make(mailbox) for mailbox in mailboxes]
        self._waiting = self._threads
        for thread, fault in self._start():
            log.error(
                "no thread can be started for a mailbox; it is tried again", mailbox=thread.name,
                reason=type(fault).__name__, needs="a higher TasksMax of the unit, or more memory",
            )  # fmt: skip

    def tend(self) -> None:
        """Start the threads that could not be started so far; to be called every second or so."""
        self._start()

    def _start(self) -> list[tuple[MailboxThread, Exception]]:
        refused: list[tuple[MailboxThread, Exception]] = []
        for thread in self._waiting:
            try:
                thread.start()
            except (RuntimeError, MemoryError) as fault:
                refused.append((thread, fault))
        self._waiting = [thread for thread, _ in refused]
        return refused

    def beats(self) -> list[Beat]:
        """Return how each thread stands; one that waits to be started has its last try for a cycle."""
        return [Beat(f"mailbox {one.name}", one.progress, one.stall_limit) for one in self._threads]

    def stop(self, seconds: float) -> None:
        """Stop all threads at once and wait up to `seconds` for them together."""
        for thread in self._threads:
            thread.stop()
        deadline = self._clock() + seconds
        for thread in self._threads:
            if not thread.join(max(deadline - self._clock(), 0)):
                # A silent name server cannot be interrupted. Nothing uncommitted counts as done.
                log.warning("mailbox thread left behind", mailbox=thread.name, seconds=seconds)
        self._threads, self._waiting = [], []
