"""What is handed to the writer: one submission in flight, every outcome counted."""

import threading
from concurrent.futures import Future

import pytest

from ingestor.archive.items import Receipt, Submission
from ingestor.intake.mailbox import context
from ingestor.intake.mailbox.context import Bell, Delivery, Stopped, Suspects
from ingestor.record import Outcome


class SlowWriter:
    """Takes submissions and leaves their futures to the test."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.taken: list[tuple[Submission, Future[Receipt]]] = []

    def submit(self, submission: Submission) -> "Future[Receipt]":
        """Take one."""
        future: Future[Receipt] = Future()
        self.taken.append((submission, future))
        return future


def delivery(writer: SlowWriter, stop: Bell) -> Delivery:
    """Return a delivery to `writer`."""
    return Delivery(writer, stop, Suspects())  # type: ignore[arg-type]  # a stand-in


def test_the_next_submission_waits_for_the_one_before() -> None:
    """A cursor can never be committed before the mails it claims to have passed."""
    writer, stop = SlowWriter(), Bell()
    one = delivery(writer, stop)
    one.submit(Submission(None, ignored=1))
    second = threading.Thread(target=lambda: one.submit(Submission(None, ignored=2)))
    second.start()

    second.join(0.2)
    assert len(writer.taken) == 1
    writer.taken[0][1].set_result(Receipt(()))
    second.join(30)

    assert [submission.ignored for submission, _ in writer.taken] == [1, 2]


def test_every_outcome_is_counted() -> None:
    """Items by their receipt, ignored and failed ones by the submission."""
    writer = SlowWriter()
    one = delivery(writer, Bell())
    before = one.settled_at
    one.submit(Submission(None, ignored=3, failed=2))
    writer.taken[0][1].set_result(Receipt((Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED)))

    one.settle()

    assert one.tally == {Outcome.STORED: 2, Outcome.DUPLICATE: 1, Outcome.IGNORED: 3, Outcome.FAILED: 2}
    assert one.settled_at > before


def test_a_stop_waits_a_moment_for_the_commit_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that comes in time is counted; one that does not come ends in Stopped."""
    monkeypatch.setattr(context, "LAST_SECONDS", 60.0)
    writer, stop = SlowWriter(), Bell()
    stop.ring()
    one = delivery(writer, stop)
    one.submit(Submission(None, ignored=1))
    threading.Timer(0.2, writer.taken[0][1].set_result, [Receipt(())]).start()
    one.settle()
    assert one.tally[Outcome.IGNORED] == 1

    monkeypatch.setattr(context, "LAST_SECONDS", 0.1)
    one.submit(Submission(None, ignored=1))
    with pytest.raises(Stopped):
        one.settle()
    assert one.tally[Outcome.IGNORED] == 1


def test_a_refused_submission_is_not_counted() -> None:
    """What the writer gives back with an exception stays uncounted, and nothing is in flight any more."""
    writer = SlowWriter()
    one = delivery(writer, Bell())
    one.submit(Submission(None, ignored=1))
    writer.taken[0][1].set_exception(RuntimeError())

    with pytest.raises(RuntimeError):
        one.settle()

    one.settle()
    assert not one.tally
