"""From the workers to the archive: what was sent comes back in any order, and is written in the order sent.

Each stretch of input has a ticket. Its rows become a submission together with the step of its inputs, and
submissions become a batch: one transaction.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingestor.archive.items import InputProgress, Receipt, Row, Submission
from ingestor.archive.rows import REFUSED
from ingestor.errors import IngestorError
from ingestor.intake.files.books import Tally
from ingestor.intake.files.leaves import Place
from ingestor.intake.files.sinks import Sink
from ingestor.intake.files.workers import Pool
from ingestor.record import Outcome

MOST_BYTES = 8 << 20
"""Compressed bytes in one batch."""

MOST_FULL = 1
"""Batches that may wait while workers can be fed."""

LONGEST_WAIT = 2.0
"""Seconds after which a batch is written however small it is, as where hardly a mail is ours."""

NOTHING: tuple[Any, ...] = ([], 0, 0, 0, 0, [], {}, 0, {})
"""The answer for a stretch without any byte."""


class CoverageBroken(IngestorError):
    """Bytes of an input were not accounted for: a fault of ours, and nothing may be claimed about the run."""


@dataclass(slots=True)
class Ticket:
    """One stretch of input on its way: what came back, and what becomes durable with it.

    `places` has one entry for a block, one a mail where single mails are packed together.
    """

    places: list[tuple[Place, int]]
    expected: int
    progress: dict[int, InputProgress] = field(default_factory=dict)
    answer: tuple[Any, ...] | None = None
    source: str = ""

    def rows(self, found: Iterable[tuple[int, Sequence[Any]]]) -> list[Row]:
        """Return the rows that a worker found, each with its place in the input instead of in the stretch."""
        return [self._placed(Row.of_plain(values), *self.places[number]) for number, values in found]

    def _placed(self, row: Row, place: Place, base: int) -> Row:
        return row._replace(
            source=self.source,
            place=row.place._replace(byte_offset=base + (row.place.byte_offset or 0)),
            arrival_content=row.arrival_content._replace(input=place.path, member=place.member),
        )


@dataclass(frozen=True, slots=True)
class _Counted:
    """Where the bytes of a stretch belong: told once its mails are committed, like their outcomes."""

    mails: int
    mail_bytes: int
    separators: int
    gaps: Sequence[tuple[int, int, str]]
    senders: Mapping[str, int]
    odd: int
    begin: tuple[Place, int] | None

    def add_to(self, tally: Tally) -> None:
        tally.mails += self.mails
        tally.mail_bytes += self.mail_bytes
        tally.separator_bytes += self.separators
        tally.senders.update(self.senders)
        tally.odd_separators += self.odd
        if self.begin is not None:
            place, base = self.begin
            for offset, length, reason in self.gaps:
                tally.add_gap(str(place), base + offset, length, reason)


@dataclass(slots=True)
class _Batch:
    """What is to become one transaction."""

    submissions: list[Submission] = field(default_factory=list)
    counted: list[_Counted | None] = field(default_factory=list)
    items: int = 0
    size: int = 0


class Delivery:
    """Keeps the order, the batch and the counts. `source` is what arrivals name from now on."""

    def __init__(
        self, pool: Pool, sink: Sink, run_id: int | None, tally: Tally, notice: Callable[[Tally], None]
    ) -> None:
        """`notice` is called often with how far it is."""
        self.source = ""
        self._pool = pool
        self._sink = sink
        self._run_id = run_id
        self._tally = tally
        self._notice = notice
        self._tickets: dict[int, Ticket] = {}
        self._next_ticket = 0
        self._next_settled = 0
        self._batch = _Batch()
        self._full: deque[_Batch] = deque()
        self._written = time.monotonic()

    def slot(self) -> int:
        """Return a free slot; while there is none, write what the workers have done.

        In this order, because no worker is fed during a transaction: when each batch was written as soon as
        it was full, the workers stood still for an eighth of an import into PostgreSQL.
        """
        while True:
            self._take_in(block=False)
            self._write_due()
            slot = self._pool.slot()
            if slot is not None:
                return slot
            if self._full:
                self._write_one()
            else:
                self._take_in(block=True)

    def put(self, ticket: Ticket) -> int:
        """Take a ticket in its turn; return its number."""
        number = self._next_ticket
        self._next_ticket += 1
        ticket.source = self.source
        self._tickets[number] = ticket
        if ticket.answer is not None:  # no worker comes back with it: of long mails, many would pile up
            self._settle()
            self._write_due()
        return number

    def send(self, ticket: Ticket, slot: int, task: tuple[Any, ...]) -> None:
        """Take a ticket in its turn, and have a worker do its task."""
        self._pool.submit(self.put(ticket), slot, task)
        self._notice(self._tally)  # many blocks may be read between two transactions

    def finish(self, failed: int) -> None:
        """Wait for what is under way and write it all, with a count of inputs that failed."""
        while self._pool.outstanding:
            self._take_in(block=True)
            self._write_all()
        self._settle()
        if failed:
            self._submit(Submission(self._run_id, failed=failed))
        self._close_batch()
        self._write_all()
        self._notice(self._tally)

    def _take_in(self, *, block: bool) -> None:
        for number, answer in self._pool.collect(block=block):
            self._tickets[number].answer = answer
        self._settle()

    def _settle(self) -> None:
        """Turn what has come back, in order, into submissions."""
        while (ticket := self._tickets.get(self._next_settled)) is not None and ticket.answer is not None:
            del self._tickets[self._next_settled]
            self._next_settled += 1
            self._settle_one(ticket, ticket.answer)

    def _settle_one(self, ticket: Ticket, answer: tuple[Any, ...]) -> None:
        found, ignored, mails, mail_bytes, separators, gaps, senders, odd, look_alikes = answer
        covered = mail_bytes + separators + sum(length for _, length, _ in gaps)
        if covered != ticket.expected or mails != len(found) + ignored:
            place = ticket.places[0][0] if ticket.places else "?"
            raise CoverageBroken(
                f"{place}: {covered} of {ticket.expected} bytes and {len(found) + ignored} of {mails} mails "
                "are accounted for; please report it"
            )
        counted = _Counted(
            mails, mail_bytes, separators, gaps, senders, odd, ticket.places[0] if gaps else None
        )
        rows = ticket.rows(found)
        submission = Submission(
            self._run_id,
            rows,
            ignored,
            progress=tuple(ticket.progress.values()),
            look_alikes=tuple((ticket.source, *one) for one in look_alikes.items()),
        )
        self._submit(submission, counted, sum(len(row.payload.compressed) for row in rows if row.payload))

    def _submit(self, submission: Submission, counted: "_Counted | None" = None, size: int = 0) -> None:
        if self._batch.submissions and self._batch.items + len(submission.items) > self._sink.limit:
            self._close_batch()
        batch = self._batch
        batch.submissions.append(submission)
        batch.counted.append(counted)
        batch.items += len(submission.items)
        batch.size += size
        full = batch.items >= self._sink.limit or batch.size >= MOST_BYTES
        if full or (self._late and not self._full):  # what waits already makes up for the delay
            self._close_batch()

    @property
    def _late(self) -> bool:
        return time.monotonic() - self._written > LONGEST_WAIT

    def _close_batch(self) -> None:
        if self._batch.submissions:
            self._full.append(self._batch)
            self._batch = _Batch()

    def _write_due(self) -> None:
        while len(self._full) > MOST_FULL or (self._full and self._late):
            self._write_one()

    def _write_all(self) -> None:
        while self._full:
            self._write_one()

    def _write_one(self) -> None:
        """Commit the oldest batch, and only then count it."""
        batch = self._full.popleft()
        tally = self._tally
        for submission, receipt in zip(batch.submissions, self._sink.write(batch.submissions), strict=True):
            for outcome in (Outcome.STORED, Outcome.DUPLICATE, Outcome.QUARANTINED):
                tally.outcomes[outcome] += receipt.outcomes.count(outcome)
            tally.outcomes[Outcome.IGNORED] += submission.ignored
            tally.outcomes[Outcome.FAILED] += submission.failed
            for _, missing, number in submission.look_alikes:
                tally.look_alikes[missing] += number
            if Outcome.QUARANTINED in receipt.outcomes:
                self._note_quarantined(submission, receipt)
        for part in batch.counted:
            if part is not None:
                part.add_to(tally)
        self._written = time.monotonic()
        self._notice(tally)

    def _note_quarantined(self, submission: Submission, receipt: Receipt) -> None:
        for row, outcome in zip(submission.items, receipt.outcomes, strict=True):
            if outcome is Outcome.QUARANTINED and isinstance(row, Row):
                place = Place(row.arrival_content.input or "", row.arrival_content.member)
                self._tally.add_quarantined(str(place), row.place.byte_offset or 0, row.reason or REFUSED)
