"""The import itself: blocks go out to the workers, rows come back in order, batches go to the sink.

The parent reads, hashes and writes; nothing else. What the workers return is taken in the order in which it
was sent, so that arrivals follow the files whatever the number of workers.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingestor.archive.entries import InputProgress
from ingestor.archive.prepared import PreparedSubmission, Row, Where
from ingestor.errors import IngestorError, InputUnreadable
from ingestor.intake.files.blocks import BLOCK, Block, Blocks, LongMail
from ingestor.intake.files.folders import FileReference, without_flags
from ingestor.intake.files.inputs import InputChanged, ListInput, OpenBooks, StreamInput
from ingestor.intake.files.kinds import Kind
from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.reading import SKIP_BITS, Reader
from ingestor.intake.files.sinks import Sink
from ingestor.intake.files.sources import OpenFile, Place, Source
from ingestor.intake.files.streams import BombSuspected
from ingestor.intake.files.tally import Tally
from ingestor.intake.files.workers import Pool
from ingestor.record import Outcome

MOST_IN_PACK = 1000
"""Single mails that travel to a worker together."""

SKIPPED = (1 << SKIP_BITS) - 1

MOST_BYTES = 8 << 20
"""Compressed bytes in one batch."""


class CoverageBroken(IngestorError):
    """Bytes of an input were not accounted for: a fault of ours, and nothing may be claimed about the run."""


class _Stopped(Exception):
    """The user wants to end: it steers, it is no error."""


@dataclass(slots=True)
class _Ticket:
    """One stretch of input on its way: what came back, and what becomes durable with it."""

    places: list[tuple[Place, int]]
    expected: int
    progress: dict[int, InputProgress] = field(default_factory=dict)
    answer: tuple[Any, ...] | None = None
    packed: bool = False
    source: str = ""

    def where(self, found: Row) -> Where:
        """Return the place of a row, which has its number among single mails or its offset in the block."""
        number, offset = (found[0] >> SKIP_BITS, found[0] & SKIPPED) if self.packed else (0, found[0])
        place, base = self.places[number]
        return Where(place.path, place.member, base + offset)


@dataclass(slots=True)
class _Pack:
    """Single mails that are being collected in a slot."""

    slot: int
    view: memoryview
    used: int = 0
    mails: list[tuple[int, int, int]] = field(default_factory=list)
    places: list[tuple[Place, int]] = field(default_factory=list)
    progress: dict[int, InputProgress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants of an import: a forced kind and dialect, and the name of the provenance."""

    run_id: int | None
    forced: Kind | None = None
    dialect: Dialect = Dialect.MBOX
    source: str | None = None


_NOTHING: tuple[Any, ...] = ([], 0, 0, 0, 0, [], {})


class Importer:
    """Imports files, one call of `run`."""

    def __init__(
        self,
        pool: Pool,
        reader: Reader,
        sink: Sink,
        books: OpenBooks,
        wishes: Wishes,
        *,
        stopping: Callable[[], bool] = lambda: False,
        notice: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        """`books` know how far each input is; `notice` is called often with how far it is."""
        self.tally = Tally()
        self._pool = pool
        self._reader = reader
        self._sink = sink
        self._books = books
        self._wishes = wishes
        self._stopping = stopping
        self._notice = notice
        self._buffer = bytearray(BLOCK)
        self._tickets: dict[int, _Ticket] = {}
        self._next_ticket = 0
        self._next_settled = 0
        self._pack: _Pack | None = None
        self._lists: dict[Place, ListInput] = {}
        self._batch: list[PreparedSubmission] = []
        self._batch_items = 0
        self._batch_bytes = 0
        self._failures = 0
        self._taken_before = 0
        self._source = ""

    def run(self, references: Iterable[tuple[str, FileReference]]) -> bool:
        """Import (name of the provenance, file) one after the other; return whether the end was reached.

        Raises ArchiveUnavailable, WorkersGone, CoverageBroken: what was committed stays.
        """
        try:
            for source, reference in references:
                self._check()
                self._begin_source(self._wishes.source or source)
                self._read_file(reference)
            self._end_lists()
            for missing in self._books.missing():
                self._fail(missing)
            finished = True
        except _Stopped:
            finished = False
        self._flush_pack()
        self._drain()
        if finished and self._failures:
            # Not before the end: a run that is resumed tries them again, and counts them once.
            self._submit(PreparedSubmission(self._wishes.run_id, failed=self._failures))
        self._flush()
        self._notice(self.tally)
        return finished

    def _begin_source(self, source: str) -> None:
        if source != self._source:
            self._flush_pack()
            self._source = source

    def _read_file(self, reference: FileReference) -> None:
        try:
            opened = OpenFile(reference, self._wishes.forced)
        except InputUnreadable as fault:
            self._fail(str(fault))
            return
        try:
            for source in opened:
                self._check()
                self._read_guarded(source)
                self.tally.taken = self._taken_before + opened.budget.taken
        except InputUnreadable as fault:
            self._fail(str(fault))
        finally:
            opened.close()
            self._taken_before += reference.size or opened.budget.taken
            self.tally.taken = self._taken_before

    def _read_guarded(self, source: Source) -> None:
        """Read one leaf; damage in it ends this leaf, a bomb ends the whole file."""
        try:
            if source.fault:
                raise source.fault
            self._read(source)
        except BombSuspected:
            raise
        except InputUnreadable as fault:
            self._fail(str(fault))

    def _read(self, source: Source) -> None:
        if source.mark:
            self.tally.add_gap(str(source.place), 0, source.mark, "byte order mark")
        if source.kind is Kind.MBOX:
            self._flush_pack()
            self._read_mbox(source)
        elif source.listed is not None:
            self._read_listed(source, self._list(source.listed))
        elif source.kind is Kind.UNKNOWN:
            raise InputUnreadable(
                f"{source.place} is neither mail, mailbox nor archive; --format forces a reading"
            )
        elif source.kind is Kind.MAIL:
            self._read_mail(source)

    def _read_mbox(self, source: Source) -> None:
        state = StreamInput(source.place, self._books.begin(source.place))
        start = state.catch_up(source.stream, source.mark)
        dialect = self._wishes.dialect
        blocks = Blocks(
            source.stream, dialect, self._reader.wanted, offset=start, hasher=state.hasher,
            buffer=self._buffer,
        )  # fmt: skip
        for piece in blocks:
            if isinstance(piece, LongMail):
                progress = state.progress(piece.end, piece.sha256)
                self._add_long(source.place, piece, {progress.input_id: progress})
            else:
                self._send_block(source.place, piece, dialect, state)
            self._check()
        if blocks.offset != source.stream.consumed:
            raise CoverageBroken(
                f"{source.place}: {source.stream.consumed} bytes were read but {blocks.offset} accounted "
                "for; please report it"
            )
        end = state.progress(blocks.offset, state.hasher.digest(), blocks.offset)
        self._put(_Ticket([(source.place, 0)], 0, {end.input_id: end}, _NOTHING))

    def _send_block(self, place: Place, block: Block, dialect: Dialect, state: StreamInput) -> None:
        slot = self._slot()
        length = len(block.data)
        with self._pool.view(slot) as view:
            view[:length] = block.data
        step = state.progress(block.end, block.sha256)
        number = self._put(_Ticket([(place, block.offset)], length, {step.input_id: step}))
        self._pool.submit(number, slot, ("mbox", (length, dialect.value)))

    def _read_listed(self, source: Source, inputs: ListInput) -> None:
        """Read one file of a list: a mail, or something that is none and only fills its place."""
        catching_up = inputs.catching_up
        # The name alone: reading a mail moves it from `new` to `cur` and gives it flags.
        name = without_flags((source.place.member or source.place.path).rpartition("/")[2])
        if source.kind is Kind.EMPTY:
            self._step(inputs.add(name, b""))
        elif source.kind is Kind.UNKNOWN:
            length = 0
            for size in iter(lambda: source.stream.readinto(memoryview(self._buffer)), 0):
                length += size
            step = inputs.add(name, str(length).encode())
            if not catching_up:
                self.tally.add_gap(
                    str(source.place), source.mark, length, "neither mail, mailbox nor archive"
                )
            self._step(step)
        else:
            self._add_mail(source, lambda digest, _: inputs.add(name, digest), skip=catching_up)

    def _read_mail(self, source: Source) -> None:
        """Read a mail that was named by itself: its position is the end once it is done."""
        state = StreamInput(source.place, self._books.begin(source.place))
        start = state.catch_up(source.stream, source.mark)
        if state.earlier.position and start == state.earlier.position:
            if source.stream.read(1):
                raise InputChanged(f"{source.place} has grown since it was read; import it without --resume")
            return
        self._add_mail(
            source, lambda digest, size: state.progress(start + size, digest, start + size), skip=False
        )

    def _add_mail(
        self, source: Source, step: Callable[[bytes, int], InputProgress | None], *, skip: bool
    ) -> None:
        mail = source.stream.whole()
        if mail is not None:
            progress = step(hashlib.sha256(mail).digest(), len(mail))
            if not skip:
                self._collect_mail(source.place, source.mark, mail, progress)
            return
        blocks = Blocks(source.stream, None, self._reader.wanted, offset=source.mark, buffer=self._buffer)
        for piece in blocks:
            progress = step(piece.sha256, piece.end - source.mark)
            if skip:
                continue
            if isinstance(piece, Block):
                self._collect_mail(source.place, source.mark, bytes(piece.data), progress)
            else:
                self._flush_pack()
                self._add_long(source.place, piece, {progress.input_id: progress} if progress else {})

    def _collect_mail(self, place: Place, offset: int, mail: bytes, progress: InputProgress | None) -> None:
        pack = self._pack
        if pack is not None and (pack.used + len(mail) > BLOCK or len(pack.mails) >= MOST_IN_PACK):
            self._flush_pack()
            pack = None
        if pack is None:
            slot = self._slot()
            pack = self._pack = _Pack(slot, self._pool.view(slot))
        end = pack.used + len(mail)
        pack.view[pack.used : end] = mail
        pack.mails.append((len(pack.places), pack.used, end))
        pack.places.append((place, offset))
        pack.used = end
        if progress:
            pack.progress[progress.input_id] = progress

    def _flush_pack(self) -> None:
        pack, self._pack = self._pack, None
        if pack is None:
            return
        pack.view.release()
        ticket = _Ticket(pack.places, pack.used, pack.progress, packed=True)
        number = self._put(ticket)
        self._pool.submit(number, pack.slot, ("mails", pack.mails))

    def _step(self, progress: InputProgress | None) -> None:
        """Move an input on where no mail goes with it."""
        if progress is None:
            return
        if self._pack is not None:
            self._pack.progress[progress.input_id] = progress
        else:
            self._put(_Ticket([], 0, {progress.input_id: progress}, _NOTHING))

    def _add_long(self, place: Place, mail: LongMail, progress: dict[int, InputProgress]) -> None:
        """Take in a mail that was longer than a block: it is never parsed."""
        rows: list[Row] = []
        if mail.raw is not None:
            rows.append(self._reader.oversized(mail))
        is_mail = mail.gap is None
        gaps = [] if mail.gap is None else [(0, mail.gap.length, mail.gap.reason)]
        answer: tuple[Any, ...] = (
            rows,
            int(is_mail and not rows),
            int(is_mail),
            mail.size,
            mail.separators,
            gaps,
            {},
        )
        expected = mail.size + mail.separators + sum(length for _, length, _ in gaps)
        self._put(_Ticket([(place, mail.offset)], expected, progress, answer))

    def _list(self, place: Place) -> ListInput:
        if place not in self._lists:
            self._lists[place] = ListInput(place, self._books.begin(place))
        return self._lists[place]

    def _end_lists(self) -> None:
        self._flush_pack()
        for inputs in self._lists.values():
            try:
                step = inputs.end()
            except InputChanged as fault:
                self._fail(str(fault))
            else:
                self._put(_Ticket([], 0, {step.input_id: step}, _NOTHING))

    def _fail(self, reason: str) -> None:
        if reason in self.tally.failures:
            return  # the damage of a stream shows in its member and in the archive around it
        self.tally.failures.append(reason)
        self._failures += 1

    def _check(self) -> None:
        if self._stopping():
            raise _Stopped

    def _slot(self) -> int:
        """Return a free slot; while there is none, take in what the workers have done."""
        while True:
            self._take_in(block=False)
            slot = self._pool.slot()
            if slot is not None:
                return slot
            self._take_in(block=True)

    def _put(self, ticket: _Ticket) -> int:
        number = self._next_ticket
        self._next_ticket += 1
        ticket.source = self._source
        self._tickets[number] = ticket
        return number

    def _take_in(self, *, block: bool) -> None:
        for number, answer in self._pool.collect(block=block):
            self._tickets[number].answer = answer
        self._settle()

    def _drain(self) -> None:
        while self._pool.outstanding:
            self._take_in(block=True)
        self._settle()

    def _settle(self) -> None:
        """Turn what has come back, in order, into submissions."""
        while (ticket := self._tickets.get(self._next_settled)) is not None and ticket.answer is not None:
            del self._tickets[self._next_settled]
            self._next_settled += 1
            self._settle_one(ticket, ticket.answer)

    def _settle_one(self, ticket: _Ticket, answer: tuple[Any, ...]) -> None:
        rows, ignored, mails, mail_bytes, separators, gaps, senders = answer
        tally = self.tally
        covered = mail_bytes + separators + sum(length for _, length, _ in gaps)
        if covered != ticket.expected or mails != len(rows) + ignored:
            place = ticket.places[0][0] if ticket.places else "?"
            raise CoverageBroken(
                f"{place}: {covered} of {ticket.expected} bytes and {len(rows) + ignored} of {mails} mails "
                "are accounted for; please report it"
            )
        tally.mails += mails
        tally.mail_bytes += mail_bytes
        tally.separator_bytes += separators
        for offset, length, reason in gaps:
            place, base = ticket.places[0]
            tally.add_gap(str(place), base + offset, length, reason)
        tally.senders.update(senders)
        self._submit(
            PreparedSubmission(
                self._wishes.run_id,
                ticket.source,
                rows,
                [ticket.where(found) for found in rows],
                ignored,
                progress=tuple(ticket.progress.values()),
                compressed_bytes=sum(len(found[7]) for found in rows),
            )
        )

    def _submit(self, submission: PreparedSubmission) -> None:
        if self._batch and self._batch_items + len(submission.rows) > self._sink.limit:
            self._flush()
        self._batch.append(submission)
        self._batch_items += len(submission.rows)
        self._batch_bytes += submission.compressed_bytes
        if self._batch_items >= self._sink.limit or self._batch_bytes >= MOST_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Commit the batch, and only then count it."""
        batch, self._batch = self._batch, []
        self._batch_items = self._batch_bytes = 0
        if not batch:
            return
        tally = self.tally
        for submission, outcomes in zip(batch, self._sink.write(batch), strict=True):
            tally.outcomes.update(outcomes)
            tally.outcomes[Outcome.IGNORED] += submission.ignored
            tally.outcomes[Outcome.FAILED] += submission.failed
            if Outcome.QUARANTINED in outcomes:
                self._note_quarantined(submission, outcomes)
        self._notice(tally)

    def _note_quarantined(self, submission: PreparedSubmission, outcomes: Sequence[Outcome]) -> None:
        for row, where, outcome in zip(submission.rows, submission.places, outcomes, strict=True):
            if outcome is Outcome.QUARANTINED:
                place = str(Place(where.input, where.member))
                self.tally.add_quarantined(place, where.offset, row[11] or "the database refused it")
