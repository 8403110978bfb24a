"""What a mailbox hands to the writer: one submission in flight, so that no cursor can overtake its mails."""

import concurrent.futures
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ingestor.archive.items import Item, Position, Receipt, Submission
from ingestor.archive.writer import Writer
from ingestor.errors import IngestorError, MailboxUnavailable
from ingestor.intake.mailbox.context import UNWRITABLE
from ingestor.intake.mailbox.waiting import Bell, Stopped
from ingestor.record import Outcome

LAST_SECONDS = 2.0
"""How long a commit in hand is waited for once the thread is asked to stop."""


class Unwritable(MailboxUnavailable):
    """What was read can never be written as it is; waiting mends neither it nor the program."""


class Delivery:
    """Submits to the writer and counts the outcomes. While one submission is stored the next is fetched."""

    def __init__(
        self, writer: Writer, stop: Bell, progressed: Callable[[], None],
        suspect: Callable[[Sequence[Position], str], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.tally: Counter[Outcome] = Counter()
        self.waiting = False
        """True while nothing but the writer's answer is waited for."""
        self._writer = writer
        self._stop = stop
        self._progressed = progressed
        self._suspect = suspect
        self._in_flight: tuple[Submission, concurrent.futures.Future[Receipt]] | None = None

    def submit(self, submission: Submission) -> None:
        """Hand over `submission`, after the one before it has been committed."""
        self.settle()
        self._in_flight = submission, self._writer.submit(submission)

    def settle(self) -> None:
        """Wait until everything handed over is committed.

        Raises Stopped when the thread is asked to stop and the commit does not come within seconds: it then
        happens, whole, or not at all, and the cursor tells. Raises Unwritable where the program cannot write
        it: its mails are suspects then, and put off one by one like those over which a server hangs up.
        """
        if self._in_flight is None:
            return
        submission, future = self._in_flight
        self.waiting = True
        try:
            receipt = self._wait(future)
        except (IngestorError, Stopped):
            raise
        except Exception as fault:
            if not submission.items:
                raise
            reason = f"{UNWRITABLE} ({type(fault).__name__})"
            self._suspect([item.position for item in submission.items if isinstance(item, Item)], reason)
            raise Unwritable(reason) from None
        finally:
            self.waiting = False
            self._in_flight = None
        self.tally.update(receipt.outcomes)
        self.tally[Outcome.IGNORED] += submission.ignored
        self.tally[Outcome.FAILED] += submission.failed
        self._progressed()

    def _wait(self, future: "concurrent.futures.Future[Receipt]") -> Receipt:
        asked_at: float | None = None
        while True:
            try:
                return future.result(timeout=0.1 if asked_at is None else 0.02)
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise
                if asked_at is None and self._stop.rung:
                    asked_at = time.monotonic()
                if asked_at is not None and time.monotonic() - asked_at > LAST_SECONDS:
                    raise Stopped from None
            except concurrent.futures.CancelledError:
                raise Stopped from None
