"""In what order an import feeds its workers and writes what they have done."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from ingestor.archive.items import (
    ArrivalContent,
    Payload,
    PlaceColumns,
    Receipt,
    Row,
    Submission,
)
from ingestor.errors import ArchiveUnavailable, IngestorError
from ingestor.intake.files import delivery
from ingestor.intake.files.books import Tally
from ingestor.intake.files.delivery import InputQueue, Stretch
from ingestor.intake.files.leaves import Place
from ingestor.intake.files.parse import Findings
from ingestor.record import Outcome

ROW = Row(
    content_key=b"k" * 20, channel="import", number=0, source="", parser="agile.mail/1", reason="odd",
    arrived_at=None, sender_verified=None, sender_check=None, again=False,
    place=PlaceColumns(b"", None, None, None, 0, 10), arrival_content=ArrivalContent(*[None] * 5),
    sms=None, content=None, numbers=None, payload=Payload(None, 10, b"s" * 32, None, b"packed"),
)  # fmt: skip
"""A mail of ten bytes that cannot be read."""

LIMIT = 4
PLACE = (Place("/old.mbox", None), 0)


def found(rows: int, size: int = 6) -> Findings:
    """Return what a worker says of a stretch with so many rows, each of `size` bytes compressed."""
    row = ROW._replace(payload=Payload(None, 10, b"s" * 32, None, b"x" * size))
    return Findings([row.plain()] * rows, mails=rows, mail_bytes=10 * rows)


class Workers:
    """A pool that does its work when it is told to."""

    def __init__(self, slots: int) -> None:
        self.free = slots
        self.owed: list[int] = []
        self.done: list[tuple[int, Findings]] = []

    @property
    def outstanding(self) -> int:
        """How many stretches have not been collected."""
        return len(self.owed) + len(self.done)

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return self.free > 0

    def submit(self, number: int, data: bytes, task: tuple[Any, ...]) -> None:
        """Take work."""
        self.free -= 1
        self.owed.append(number)

    def work(self, rows: int) -> None:
        """Be done with all that was taken."""
        self.done += [(number, found(rows)) for number in self.owed]
        self.free += len(self.owed)
        self.owed = []

    def collect(self, *, block: bool) -> list[tuple[int, Findings]]:
        """Return what is done; who waits is answered with stretches of `LIMIT` rows."""
        if block and not self.done:
            self.work(LIMIT)
        done, self.done = self.done, []
        return done


class Written:
    """A sink that notes how many rows each transaction had."""

    limit = LIMIT
    beside = False

    def __init__(self) -> None:
        self.rows: list[int] = []

    def write(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Take it."""
        self.rows.append(sum(len(one.items) for one in submissions))
        return [Receipt((Outcome.STORED,) * len(one.items)) for one in submissions]


def feed(given: InputQueue, rows: int = LIMIT) -> None:
    """Have a worker do one stretch."""
    given.send(Stretch([PLACE], 10 * rows), b"", ("mbox", (0, "mboxrd")))


@pytest.fixture
def sink() -> Written:
    """Return a sink."""
    return Written()


def made(workers: Workers, sink: Written) -> tuple[InputQueue, Tally]:
    """Return a queue to `sink`, and what it counts."""
    tally = Tally()
    return InputQueue(workers, sink, None, tally, lambda _: None, bytes(32)), tally  # type: ignore[arg-type]  # a stand-in


def test_workers_are_fed_before_a_full_batch_is_written(sink: Written) -> None:
    """They have something to do while a transaction takes its time."""
    workers = Workers(slots=3)
    given, _ = made(workers, sink)
    feed(given)
    workers.work(LIMIT)
    feed(given)
    feed(given)
    feed(given)
    assert (sink.rows, len(workers.owed)) == ([], 3)
    feed(given)
    assert sink.rows


def test_of_many_full_batches_only_one_waits(sink: Written) -> None:
    """Memory stays bounded where the workers are faster than the database."""
    workers = Workers(slots=50)
    given, _ = made(workers, sink)
    for _ in range(20):
        feed(given)
        workers.work(LIMIT)
    assert len(sink.rows) >= 18


def test_long_mails_do_not_pile_up(sink: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mails that no worker has to do with are written while no worker is asked for anything."""
    monkeypatch.setattr(delivery, "MOST_BYTES", 1000)
    given, tally = made(Workers(slots=2), sink)
    for _ in range(20):
        given.put(Stretch([PLACE], 10, found=found(1, size=1000)))
    assert len(sink.rows) >= 18
    given.finish(failed=0)
    assert (sum(sink.rows), tally.mails, tally.mail_bytes) == (20, 20, 200)


def test_a_slow_stream_is_written_though_no_batch_is_full(
    sink: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came is durable soon, whether or not more comes."""
    monkeypatch.setattr(delivery, "LONGEST_WAIT", -1.0)
    workers = Workers(slots=8)
    given, _ = made(workers, sink)
    feed(given, rows=1)
    workers.work(1)
    feed(given)
    assert sink.rows == [1]


def test_a_slow_database_gets_no_smaller_batches(sink: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while a transaction is overdue goes together into the next."""
    monkeypatch.setattr(delivery, "LONGEST_WAIT", -1.0)
    workers = Workers(slots=8)
    given, _ = made(workers, sink)
    for _ in range(4):
        feed(given, rows=1)
    workers.work(1)
    given.finish(failed=0)
    assert sink.rows == [1, 3]


def test_everything_is_written_at_the_end(sink: Written) -> None:
    """Full batches, the begun one, and the count of inputs that failed."""
    given, tally = made(Workers(slots=3), sink)
    for _ in range(7):
        feed(given)
    given.finish(failed=2)
    assert sum(sink.rows) == 7 * LIMIT
    assert (tally.outcomes[Outcome.STORED], tally.outcomes[Outcome.FAILED]) == (7 * LIMIT, 2)


class Server(Written):
    """A sink that is written to beside the reading, and answers when it is told to."""

    beside = True

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.answer = threading.Semaphore(0)
        self.fault: IngestorError | None = None

    def write(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Take it, after a while."""
        self.begun.release()
        assert self.answer.acquire(timeout=60)
        if self.fault is not None:
            raise self.fault
        return super().write(submissions)


def test_reading_goes_on_while_the_server_has_a_transaction() -> None:
    """One is on its way, one waits, and workers are fed; it is counted when it is there, and not before."""
    server, workers = Server(), Workers(slots=8)
    given, tally = made(workers, server)
    with given:
        feed(given)
        workers.work(LIMIT)
        feed(given)
        assert server.begun.acquire(timeout=60)
        workers.work(LIMIT)
        feed(given)
        feed(given)
        assert (len(workers.owed), server.rows, tally.mails) == (2, [], 0)
        for _ in range(4):
            server.answer.release()
        given.finish(failed=0)
    assert (server.rows, tally.mails) == ([LIMIT] * 4, 4 * LIMIT)


def test_a_transaction_that_fails_beside_the_reading_ends_it() -> None:
    """What the server says is raised, and nothing of it is counted."""
    server, workers = Server(), Workers(slots=8)
    given, tally = made(workers, server)
    server.fault = ArchiveUnavailable("the archive is away")

    def read() -> None:
        with given:
            feed(given)
            server.answer.release()
            given.finish(failed=0)

    with pytest.raises(ArchiveUnavailable):
        read()
    assert (server.rows, tally.mails) == ([], 0)


def test_what_is_on_its_way_is_counted_whatever_ends_the_reading() -> None:
    """Of a fault elsewhere the balance of the run does not suffer."""
    server, workers = Server(), Workers(slots=8)
    given, tally = made(workers, server)

    def read() -> None:
        with given:
            feed(given)
            workers.work(LIMIT)
            feed(given)
            server.answer.release()
            raise RuntimeError("elsewhere")

    with pytest.raises(RuntimeError, match="elsewhere"):
        read()
    assert (server.rows, tally.mails) == ([LIMIT], LIMIT)
