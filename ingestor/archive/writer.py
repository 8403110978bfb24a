"""The daemon's one writer: whatever waits goes into one transaction, a lone item does not wait.

It has a thread of its own. What went into one transaction mostly comes again together: clients send their
next POST when the last one is answered. So the thread sleeps on after a transaction until as many wait, and
as came meanwhile, for 12 ms at most. Woken by the first, it took half of them while the listener read the
others, and both threads fought for the interpreter: with 64 clients a POST took 199 µs of CPU instead of 158
on SQLite, and one in seven fewer came through on both databases. Where the first woke it to begin that wait,
a POST took 4 to 6 % more.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime

from ingestor.archive.items import Item, Receipt, Row, Submission
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable, IngestorError, RunLost
from ingestor.logs import OncePerMinute, get_logger
from ingestor.pauses import pauses
from ingestor.record import REFUSED, Outcome
from ingestor.timestamps import utc_now

MAX_ITEMS = 1000
_TOGETHER_SECONDS = 0.012
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_SAY_SECONDS = 3600.0

log = get_logger(__name__)

Waiting = tuple[Submission, "Future[Receipt]"]


class Writer:
    """Takes submissions from any thread and commits them in the order they came.

    While the database cannot take them they wait here, and `trouble` says why; nothing is given up before
    `stop`. A future fails only when the submission itself cannot be written by this program, or when the
    archive has not come back by the end of `stop`.
    """

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._give_up_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="archive-writer", daemon=True)
        self._in_hand = 0
        self._together = 0  # how many went into the last transaction
        self._enough = 1  # how many end the thread's wait
        self._quarantined = OncePerMinute(_say_quarantined)
        self._said = 0.0
        self.run: int | None = None
        """What submissions that name no run are counted under."""
        self.trouble: str | None = None
        """Why the database takes no writes now, None while it does."""
        self.progress = time.monotonic()
        """Monotonic time of the last finished cycle: work taken up, or tried in vain."""

    @property
    def queued(self) -> int:
        """How many submissions are not committed yet."""
        with self._changed:  # what is just being taken up would be counted nowhere
            return len(self._waiting) + self._in_hand

    def start(self) -> None:
        """Begin to write; the archive need not be there yet."""
        self._thread.start()

    def submit(self, submission: Submission, future: "Future[Receipt] | None" = None) -> "Future[Receipt]":
        """Queue `submission`; the future (the one given, if any) holds its receipt once it is durable.

        A future that is cancelled before its turn takes the submission back. Raises ArchiveUnavailable after
        `stop`.
        """
        if future is None:
            future = Future()
        if submission.run_id is None and self.run is not None:
            submission = submission._replace(run_id=self.run)
        with self._changed:
            if self._stopping:
                raise ArchiveUnavailable("the writer is stopping and takes nothing more")
            if not self.queued:
                self.progress = time.monotonic()  # being idle was no delay
            self._waiting.append((submission, future))
            if len(self._waiting) >= self._enough:
                self._changed.notify()
        return future

    def stop(self, timeout: float) -> bool:
        """Write what is queued and end the thread; return whether all is durable in time. The rest fails."""
        with self._changed:
            self._stopping = True
            self._give_up_at = time.monotonic() + timeout
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(ArchiveUnavailable("the archive did not come back before the stop"))
        return not left and not self._thread.is_alive() and not self._in_hand

    def _run(self) -> None:
        while (batch := self._take()) and self._write_until_done(batch):
            self._in_hand = 0
        self._quarantined.end()

    def _take(self) -> list[Waiting]:
        """Return what waits, up to the bound; empty when it is time to end."""
        with self._changed:
            while True:
                self._let_gather()
                while not (self._waiting or self._stopping):
                    self._changed.wait(self._quarantined.tick())
                batch: list[Waiting] = []
                size = 0
                while self._waiting and (not batch or size + len(self._waiting[0][0].items) <= MAX_ITEMS):
                    submission, future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((submission, future))
                        size += max(1, len(submission.items))
                self._in_hand = self._together = len(batch)
                self.progress = time.monotonic()
                if batch or self._stopping:  # else everybody has taken back what waited
                    return batch

    def _let_gather(self) -> None:
        """Sleep on for a moment until as many wait as went into the last transaction, or came during it."""
        self._enough = self._together + len(self._waiting)
        self._changed.wait_for(
            lambda: self._stopping or len(self._waiting) >= self._enough, _TOGETHER_SECONDS
        )
        self._enough = 1

    def _write_until_done(self, batch: list[Waiting]) -> bool:
        lengths = pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
        submissions = [submission for submission, _ in batch]
        while True:
            try:
                receipts = self._store.write(submissions, self._clock())
            except IngestorError as error:
                if isinstance(error, RunLost):  # by the next try there may be another
                    submissions = [one._replace(run_id=self.run or one.run_id) for one in submissions]
                self.progress = time.monotonic()
                self._say_trouble(error)
                self.progress = time.monotonic()
                if not self._sleep(next(lengths)):
                    self._abandon(batch, error)
                    return False
            except Exception as error:  # noqa: BLE001 - waiting mends neither a submission nor the program
                return self._write_apart(batch, error)
            else:
                self._say_over()
                self._note_quarantined(submissions, receipts)
                for (_, future), receipt in zip(batch, receipts, strict=True):
                    future.set_result(receipt)
                return True

    def _note_quarantined(self, submissions: list[Submission], receipts: list[Receipt]) -> None:
        """Say what went to the quarantine: acknowledged, kept, and missing among the SMS."""
        for submission, receipt in zip(submissions, receipts, strict=True):
            if Outcome.QUARANTINED in receipt.outcomes:
                for item, outcome in zip(submission.items, receipt.outcomes, strict=True):
                    if outcome is Outcome.QUARANTINED:
                        self._quarantined.note((item.source, item.reason or REFUSED), item)

    def _write_apart(self, batch: list[Waiting], error: Exception) -> bool:
        """Find the submission that the program cannot write, and let the others through."""
        if len(batch) == 1:
            log.error("a submission cannot be written", error=type(error).__name__)
            batch[0][1].set_exception(error)
            return True
        for i, one in enumerate(batch):
            if not self._write_until_done([one]):
                self._abandon(batch[i + 1 :], error)
                return False
        return True

    def _sleep(self, seconds: float) -> bool:
        """Wait; return False when `stop` will not wait any longer."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := min(until, self._give_up_at or until) - time.monotonic()) > 0:
                self._changed.wait(left)
        return self._give_up_at is None or time.monotonic() < self._give_up_at

    def _abandon(self, batch: list[Waiting], error: Exception) -> None:
        for _, future in batch:
            future.set_exception(ArchiveUnavailable(f"not written before the stop: {error}"))

    def _say_trouble(self, error: IngestorError) -> None:
        said = str(error)
        if self.trouble is None or time.monotonic() - self._said >= _SAY_SECONDS:
            log.error("the archive takes no writes; intake waits and tries again", reason=said)
            self._said = time.monotonic()
        self.trouble = said

    def _say_over(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            log.info("the archive takes writes again")


def _say_quarantined(kind: tuple[str, str], newest: Item | Row, count: int) -> None:
    source, reason = kind
    log.warning(
        "quarantined: kept, but no SMS was made of it",
        source=source, channel=str(newest.channel), reason=reason, count=count,
        see="ingestor quarantine list",
    )  # fmt: skip
