"""From the importer to the workers and on to the archive, in the order in which the files are read.

Blocks go to a worker as they are, single mails many together (`Packing`). What comes back, in any order,
becomes submissions and transactions in the order of the input (`InputQueue`), one at a time. While PostgreSQL
has one, reading goes on.
"""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ingestor.archive.items import InputProgress, Receipt, Row, Submission
from ingestor.archive.rows import place_of
from ingestor.errors import IngestorError
from ingestor.intake.files.blocks import BLOCK, Block, LongMail
from ingestor.intake.files.books import Tally
from ingestor.intake.files.leaves import Place
from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.parse import Findings, MailReader
from ingestor.intake.files.sinks import ArchiveSink, DrySink
from ingestor.intake.files.workers import Pool
from ingestor.record import REFUSED, Outcome

_ONE_MORE = "ON CONFLICT (key) DO UPDATE SET n = n + 1 RETURNING key, n - 1"


class Copies:
    """Counts the mails of one input by content key, in a temporary database of SQLite's.

    That keeps 2 MB in memory: a million keys in a dictionary took 150 MB. A key takes 2 of a mail's 120 µs.
    """

    def __init__(self, before: Iterable[tuple[bytes, int]] = ()) -> None:
        """`before` gives how many of each key were met in an input that is read on from some point."""
        self._before = before
        self._counts: sqlite3.Connection | None = None

    def numbers(self, content_keys: Sequence[bytes]) -> list[int]:
        """Return for each mail with one of these keys how many with the same one came before it."""
        if self._counts is None:
            self._counts = self._open()
        values = ", ".join(["(?, 1)"] * len(content_keys))
        add = f"INSERT INTO counts VALUES {values} {_ONE_MORE}"  # noqa: S608 -- as many question marks as keys
        free: dict[bytes, int] = {}
        for key, number in self._counts.execute(add, content_keys):  # in any order
            free[key] = min(number, free.get(key, number))
        numbers = []
        for key in content_keys:
            numbers.append(free[key])
            free[key] += 1
        return numbers

    def __del__(self) -> None:
        if self._counts is not None:
            with suppress(sqlite3.Error):
                self._counts.close()

    def _open(self) -> sqlite3.Connection:
        counts = sqlite3.connect("", isolation_level=None)
        counts.execute("PRAGMA journal_mode = OFF")
        counts.execute("CREATE TABLE counts (key BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID")
        counts.execute("BEGIN")
        counts.executemany("INSERT INTO counts VALUES (?, ?)", self._before)
        return counts


MOST_IN_PACK = 1000  # single mails that travel to a worker together

MOST_BYTES = 8 << 20  # compressed, in one batch

MOST_FULL = 1
"""Batches that may wait while workers can be fed."""

MOST_AHEAD = 64
"""Blocks that may be read past the one that a slow worker has: what comes of them stays in memory."""

LONGEST_WAIT = 2.0
"""Seconds after which a batch is written however small it is, as where hardly a mail is ours."""


class CoverageBroken(IngestorError):
    """Bytes of an input were not accounted for: a fault of ours, and nothing may be claimed about the run."""


@dataclass(slots=True)
class Stretch:
    """A part of the input on its way: what it came to, and what becomes durable with it.

    `origins` (file, offset) has one entry for a block, one a mail where single mails are packed together.
    `copies` numbers equal mails of an mbox; None where each mail has a file or a member of its own.
    """

    origins: list[tuple[Place, int]] = field(default_factory=list)
    expected: int = 0
    progress: dict[int, InputProgress] = field(default_factory=dict)
    found: Findings | None = None
    source: str = ""
    copies: Copies | None = None

    def add_step(self, step: InputProgress) -> None:
        self.progress[step.input_id] = step.after(self.progress.get(step.input_id))

    def take_rows(self, found: Findings, secret: bytes) -> list[Row]:
        """Take the rows of `found`, in the order of the input, equal ones with the place of a copy each."""
        rows = [Row.of_plain(values) for values in found.rows]
        found.rows = []
        if self.copies is not None and rows:
            for at, copy in enumerate(self.copies.numbers([row.content_key for row in rows])):
                if copy:
                    rows[at] = _as_copy(rows[at], copy, secret)
        return rows


def _as_copy(row: Row, copy: int, secret: bytes) -> Row:
    where = row.arrival_content
    return row._replace(place=row.place._replace(place=place_of(secret, where.input, where.member, copy)))


@dataclass(slots=True)
class _Transaction:
    parts: list[tuple[Submission, Findings, tuple[Place, int] | None]] = field(default_factory=list)
    items: int = 0
    size: int = 0


class InputQueue:
    """Keeps the order, the transactions and the counts. `source` is what arrivals name from now on.

    At the end of its block no transaction is on its way, whatever was raised.
    """

    def __init__(
        self, pool: Pool, sink: ArchiveSink | DrySink, run_id: int | None, tally: Tally,
        notice: Callable[[Tally], None], secret: bytes,
    ) -> None:  # fmt: skip
        """`notice` is called often with how far it is; `secret` is the archive's key."""
        self._secret = secret
        self.source = ""
        self._pool = pool
        self._sink = sink
        self._run_id = run_id
        self._tally = tally
        self._notice = notice
        self._sent: dict[int, Stretch] = {}
        self._next_sent = 0
        self._next_settled = 0
        self._open = _Transaction()
        self._full: deque[_Transaction] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._on_its_way: tuple[_Transaction, Future[list[Receipt]]] | None = None
        self._written = time.monotonic()

    def __enter__(self) -> "InputQueue":
        return self

    def __exit__(self, *raised: object) -> None:
        with suppress(IngestorError):  # then one is on its way already
            self._count_written()
        self._thread.shutdown()

    def send(self, stretch: Stretch, data: bytes | bytearray | memoryview, task: tuple[Any, ...]) -> None:
        """Take a stretch in its turn, and have a worker do `task` on its bytes; wait until one can."""
        self._make_room()
        origins = [(self.source, place.path, place.member, offset) for place, offset in stretch.origins]
        self._pool.submit(self.put(stretch), data, (*task, origins))
        self._notice(self._tally)  # many blocks may be read between two transactions

    def put(self, stretch: Stretch) -> int:
        """Take a stretch in its turn; return its number."""
        number = self._next_sent
        self._next_sent += 1
        stretch.source = self.source
        self._sent[number] = stretch
        if stretch.found is not None:  # no worker comes back with it: of long mails, many would pile up
            self._settle()
            self._write_due()
        return number

    def _make_room(self) -> None:
        """Wait until a worker can be fed; write first: none is fed during a transaction of SQLite."""
        while True:
            self._take_in(block=False)
            self._write_due()
            if self._pool.has_room and len(self._sent) < MOST_AHEAD:
                return
            if self._full and not self._sink.beside:
                self._write_one()
            else:
                self._take_in(block=True)

    def finish(self, failed: int) -> None:
        """Wait for what is under way and write it all, with a count of inputs that failed."""
        while self._pool.outstanding:
            self._take_in(block=True)
            self._write_all()
        self._settle()
        if failed:
            self._submit(Submission(self._run_id, failed=failed), Findings(), None, 0)
        self._close()
        self._write_all()
        self._notice(self._tally)

    def _take_in(self, *, block: bool) -> None:
        for number, found in self._pool.collect(block=block):
            self._sent[number].found = found
        self._settle()

    def _settle(self) -> None:
        while (stretch := self._sent.get(self._next_settled)) is not None and stretch.found is not None:
            del self._sent[self._next_settled]
            self._next_settled += 1
            self._settle_one(stretch, stretch.found)

    def _settle_one(self, stretch: Stretch, found: Findings) -> None:
        origin = stretch.origins[0] if stretch.origins else None
        if found.covered != stretch.expected or found.mails != len(found.rows) + found.ignored:
            raise CoverageBroken(
                f"{origin[0] if origin else '?'}: {found.covered} of {stretch.expected} bytes and "
                f"{len(found.rows) + found.ignored} of {found.mails} mails are accounted for; "
                "please report it"
            )
        rows = stretch.take_rows(found, self._secret)
        submission = Submission(
            self._run_id,
            rows,
            found.ignored,
            progress=tuple(stretch.progress.values()),
            look_alikes=tuple((stretch.source, *one) for one in found.look_alikes.items()),
        )
        size = sum(len(row.payload.compressed) for row in rows if row.payload)
        self._submit(submission, found, origin, size)

    def _submit(
        self, submission: Submission, found: Findings, origin: tuple[Place, int] | None, size: int
    ) -> None:
        if self._open.parts and self._open.items + len(submission.items) > self._sink.limit:
            self._close()
        self._open.parts.append((submission, found, origin))
        self._open.items += len(submission.items)
        self._open.size += size
        full = self._open.items >= self._sink.limit or self._open.size >= MOST_BYTES
        if full or (self._late and not self._full):  # what waits already makes up for the delay
            self._close()

    @property
    def _late(self) -> bool:
        return self._on_its_way is None and time.monotonic() - self._written > LONGEST_WAIT

    def _close(self) -> None:
        if self._open.parts:
            self._full.append(self._open)
            self._open = _Transaction()

    def _write_due(self) -> None:
        if self._on_its_way is not None and self._on_its_way[1].done():
            self._count_written()
        while len(self._full) > MOST_FULL or (self._full and (self._late or self._could_begin)):
            self._write_one()

    @property
    def _could_begin(self) -> bool:
        return self._sink.beside and self._on_its_way is None

    def _write_all(self) -> None:
        while self._full:
            self._write_one()
        self._count_written()

    def _write_one(self) -> None:
        """Commit the oldest transaction, or begin to, when the one before it is there."""
        self._count_written()
        oldest = self._full.popleft()
        submissions = [submission for submission, _, _ in oldest.parts]
        if self._sink.beside:
            self._on_its_way = oldest, self._thread.submit(self._sink.write, submissions)
            return
        self._count(oldest, self._sink.write(submissions))

    def _count_written(self) -> None:
        """Wait for the transaction that is on its way, if any, and only then count it."""
        if self._on_its_way is not None:
            (transaction, written), self._on_its_way = self._on_its_way, None
            self._count(transaction, written.result())

    def _count(self, transaction: _Transaction, receipts: Sequence[Receipt]) -> None:
        for (submission, found, origin), receipt in zip(transaction.parts, receipts, strict=True):
            outcomes = self._tally.outcomes
            outcomes.update(receipt.outcomes)
            outcomes[Outcome.IGNORED] += submission.ignored
            outcomes[Outcome.FAILED] += submission.failed
            self._tally.add(found, origin)
            if Outcome.QUARANTINED in receipt.outcomes:
                self._note_quarantined(submission, receipt)
        self._written = time.monotonic()
        self._notice(self._tally)

    def _note_quarantined(self, submission: Submission, receipt: Receipt) -> None:
        for row, outcome in zip(submission.items, receipt.outcomes, strict=True):
            if outcome is Outcome.QUARANTINED and isinstance(row, Row):
                place = Place(row.arrival_content.input or "", row.arrival_content.member)
                self._tally.add_quarantined(str(place), row.place.byte_offset or 0, row.reason or REFUSED)


class Packing:
    """Puts what the importer has read into a queue, in the order in which it is added."""

    def __init__(self, reader: MailReader, queue: InputQueue) -> None:
        self._reader = reader
        self._queue = queue
        self._pack = Stretch()
        self._data = bytearray()
        self._mails: list[tuple[int, int]] = []

    def add_block(
        self, place: Place, block: Block, dialect: Dialect, step: InputProgress, copies: Copies
    ) -> None:
        """Add a block of an mbox, whose equal mails `copies` numbers."""
        self.flush()
        length = len(block.data)
        stretch = Stretch([(place, block.offset)], length, {step.input_id: step}, copies=copies)
        self._queue.send(stretch, block.data, ("mbox", (length, dialect.value)))

    def add_mail(self, place: Place, offset: int, mail: bytes, step: InputProgress | None) -> None:
        if len(self._data) + len(mail) > BLOCK or len(self._mails) >= MOST_IN_PACK:
            self.flush()
        begin = len(self._data)
        self._data += mail
        self._mails.append((begin, len(self._data)))
        self._pack.origins.append((place, offset))
        if step:
            self._pack.add_step(step)

    def flush(self) -> None:
        if self._mails:
            self._pack.expected = len(self._data)
            self._queue.send(self._pack, self._data, ("mails", self._mails))
            self._pack, self._data, self._mails = Stretch(), bytearray(), []

    def add_step(self, step: InputProgress | None) -> None:
        """Move an input on where no mail goes with it."""
        if step is not None and self._mails:
            self._pack.add_step(step)
        elif step is not None:
            self._queue.put(Stretch(progress={step.input_id: step}, found=Findings()))

    def add_long(
        self, place: Place, mail: LongMail, step: InputProgress | None, copies: Copies | None = None
    ) -> None:
        """Add a mail that was longer than a block: it is never parsed. `copies` as of a block."""
        self.flush()
        found = self._reader.read_long(mail, (self._queue.source, place.path, place.member, mail.offset))
        mail.raw = None  # packed: whoever still holds the mail would keep 32 MiB while it is written
        stretch = Stretch([(place, mail.offset)], found.covered, found=found, copies=copies)
        if step:
            stretch.add_step(step)
        self._queue.put(stretch)
