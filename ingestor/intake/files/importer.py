"""The import itself: files are opened one after the other, and what is in them goes to the workers.

The parent reads, hashes and writes alone: arrivals follow the files whatever the number of workers.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ingestor.archive.items import InputProgress
from ingestor.errors import InputUnreadable
from ingestor.intake.files.blocks import BLOCK, MOST_MAILS, Block, Blocks, LongMail
from ingestor.intake.files.books import Books, InputChanged, ListInput, StreamInput, Tally
from ingestor.intake.files.delivery import Copies, CoverageBroken, InputQueue, Packing
from ingestor.intake.files.leaves import Interrupted, Leaf, OpenFile, Place
from ingestor.intake.files.mbox import CANDIDATE, Dialect, count_separators
from ingestor.intake.files.parse import MailReader
from ingestor.intake.files.sinks import ArchiveSink, DrySink
from ingestor.intake.files.streams import BombSuspected, Stream
from ingestor.intake.files.walk import KNOWN, FileReference, Kind, without_flags
from ingestor.intake.files.workers import Pool
from ingestor.redaction import as_text, one_line

# Maildir++ and Dovecot: what the file had when it was delivered, before any compression.
_SIZE = re.compile(r",S=(\d{1,12})(?![0-9])")
_CRASHED = bytes(8)

INPUT_COST = 1 << 18
"""Bytes that a member with a row of its own in `run_inputs` counts as: each row is a transaction."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """A forced kind and dialect, the name of the provenance, and whether every file is whole as it stands."""

    forced: Kind | None = None
    dialect: Dialect = Dialect.MBOX
    source: str | None = None
    whole: bool = False


class Importer:
    """Imports files, one call of `run`."""

    def __init__(
        self,
        pool: Pool,
        reader: MailReader,
        sink: ArchiveSink | DrySink,
        books: Books,
        wishes: Wishes,
        *,
        stopping: Callable[[], bool] = lambda: False,
        notice: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        """`books` know how far each input is; `notice` is called often with how far it is."""
        self.tally = Tally()
        self._wanted = reader.wanted
        self._queue = InputQueue(pool, sink, books.run_id, self.tally, notice, reader.secret)
        self._books = books
        self._wishes = wishes
        self._stopping = stopping
        self._buffer = bytearray(BLOCK)
        self._packing = Packing(reader, self._queue)
        self._lists: dict[Place, ListInput] = {}
        self._failures = 0
        self._told: set[str] = set()
        self._begun: dict[Place, int] = {}
        self._path = ""
        self._mails = self._others = self._failures_before = 0
        self._failed_paths: set[str] = set()
        self._taken_before = 0
        self._opened: OpenFile | None = None

    def run(self, references: Iterable[tuple[str, FileReference]]) -> bool:
        """Import (name of the provenance, file); return whether the end was reached.

        Raises ArchiveUnavailable, WorkersGone, CoverageBroken: what was committed stays.
        """
        with self._queue:
            try:
                for source, reference in references:
                    self._check()
                    self._begin_source(source)
                    self._read_file(reference)
                self._end_source()
                self._end_lists()
                for path, missing in self._books.missing():
                    if path not in self._failed_paths:
                        self._fail(missing)
                finished = True
            except Interrupted:
                finished = False
            self._packing.flush()
            # Failures count at the end only: a run that is resumed tries them again.
            self._queue.finish(self._failures if finished else 0)
            return finished

    def _begin_source(self, path: str) -> None:
        if path != self._path:
            self._end_source()
            self._path, self._mails, self._others, self._failures_before = path, 0, 0, self._failures
        source = self._wishes.source or path
        if source != self._queue.source:
            self._packing.flush()
            self._queue.source = source

    def _end_source(self) -> None:
        """Let no PATH end well that had only files of which nothing could be made."""
        if self._others and not self._mails and self._failures == self._failures_before:
            self._fail(
                f"{one_line(self._path)}: none of its {self._others:,} files is a mail, a mailbox or an "
                "archive of them"
            )

    def _read_file(self, reference: FileReference) -> None:
        if reference.left_out:
            self.tally.left_out.add(one_line(as_text(reference.path)), 0, reference.left_out)
            self._others += reference.left_out != KNOWN
            return
        try:
            opened = OpenFile(reference, self._wishes.forced, self._stopping)
        except InputUnreadable as fault:
            self._fail(str(fault))
            self._failed_paths.add(as_text(reference.path))
            return
        failures = self._failures
        self._opened = opened
        try:
            for source in opened:
                self._check()
                self._read_guarded(source)
            if opened.change and self._failures == failures:
                self._tell_change(reference, opened.change)
        except InputUnreadable as fault:
            self._fail(str(fault))
        finally:
            opened.close()
            self._opened = None
            self._taken_before += reference.size or opened.budget.taken
            self.tally.taken = self._taken_before

    def _tell_change(self, reference: FileReference, change: str) -> None:
        words = f"{one_line(as_text(reference.path))}: {change}"
        if "longer" in change:
            self.tally.notes.append(f"{words}; import it again for what was added since")
        else:
            self._fail(f"{words}; import it again")

    def _change(self, leaf: Leaf) -> str | None:
        """Say how the file of `leaf` is being written to; never where the user says that it is whole."""
        if self._wishes.whole or leaf.place.member is not None or self._opened is None:
            return None
        return self._opened.change

    def _doubts_of(self, leaf: Leaf) -> Callable[[], bool] | None:
        return None if self._wishes.whole else lambda: self._change(leaf) is not None

    def _read_guarded(self, leaf: Leaf) -> None:
        """Read one leaf; damage in it ends this leaf, a bomb ends the whole file."""
        try:
            if leaf.fault:
                self._fail(str(leaf.fault))  # raised, it would hold its source and all that it has open
            else:
                self._read(leaf)
        except BombSuspected:
            raise
        except InputUnreadable as fault:
            self._fail(str(fault))

    def _read(self, leaf: Leaf) -> None:
        if leaf.mark:
            self.tally.gaps.add(str(leaf.place), 0, "byte order mark", leaf.mark)
        if leaf.kind is Kind.MBOX:
            self._packing.flush()
            if leaf.listed is None or not self._read_small_mbox(leaf, leaf.listed):
                self._read_mbox(leaf)
        elif leaf.listed is not None:
            self._read_listed(leaf, self._list(leaf.listed))
        elif leaf.kind is Kind.UNKNOWN:
            raise InputUnreadable(
                f"{leaf.place} is neither mail, mailbox nor archive; --format forces a reading"
            )
        elif leaf.kind is Kind.MAIL:
            if leaf.looks is Kind.MBOX:
                self.tally.overruled.add(
                    str(leaf.place), 0, "a mailbox, but --format eml made one mail of it"
                )
            self._read_mail(leaf)

    def _read_mbox(self, leaf: Leaf) -> None:
        if self._opened is not None and leaf.place.member is not None:
            self._opened.budget.give(INPUT_COST)
        place = self._told_apart(leaf.place)
        state = StreamInput(place, self._books.begin(place))
        start = state.catch_up(leaf.stream, leaf.mark)
        dialect = self._wishes.dialect
        blocks = Blocks(
            leaf.stream, dialect, self._wanted, offset=start, hasher=state.hasher,
            buffer=self._buffer, doubted=self._doubts_of(leaf),
        )  # fmt: skip
        copies = Copies(self._books.copies(place, start))
        for piece in blocks:
            step = state.progress(piece.end, piece.sha256)
            if isinstance(piece, LongMail):
                self._packing.add_long(place, piece, step, copies)
            else:
                self._packing.add_block(place, piece, dialect, step, copies)
            self._check()
        if blocks.offset + blocks.held != leaf.stream.consumed:
            raise CoverageBroken(
                f"{place}: {leaf.stream.consumed} bytes were read but {blocks.offset} accounted "
                "for; please report it"
            )
        end = state.progress(blocks.offset, blocks.sha256, None if blocks.held else blocks.offset)
        self._packing.add_step(end)
        has_mail = blocks.found or start > leaf.mark
        self._judge_end(place, blocks, has_mail=has_mail, listed=leaf.listed is not None)

    def _read_small_mbox(self, leaf: Leaf, archive: Place) -> bool:
        """Read a mailbox as one member of an archive's list; return whether that could be.

        A row in `run_inputs` costs a transaction: an archive of 60,000 mailboxes took half an hour. The list
        is for what is committed together and can never grow.
        """
        data = leaf.stream.whole(consume=False)
        if leaf.place.member is None or data is None or data.count(CANDIDATE) > MOST_MAILS:
            return False
        if self._books.has_read(leaf.place, leaf.mark + len(data)):
            return False  # by an earlier version, which made a row for each
        blocks = Blocks(
            Stream(io.BytesIO(data)), self._wishes.dialect, self._wanted, offset=leaf.mark,
            buffer=self._buffer, doubted=self._doubts_of(leaf),
        )  # fmt: skip
        block = next(iter(blocks), None)
        if not isinstance(block, Block) or len(block.data) < len(data) or not blocks.found:
            return False
        inputs = self._list(archive)
        self._mails += 1
        step = inputs.add(without_flags(leaf.place.name), block.sha256)
        if step is not None:
            self._packing.add_block(leaf.place, block, self._wishes.dialect, step, Copies())
        return True

    def _judge_end(self, place: Place, blocks: Blocks, *, has_mail: bool, listed: bool) -> None:
        """Count a mailbox as failed that ends inside a mail, or has none."""
        self._mails += has_mail
        if blocks.held:
            change = self._opened.change if self._opened and place.member is None else None
            self._fail(
                f"{place}: the file ends inside a mail: {blocks.held:,} bytes from {blocks.offset:,} on were "
                f"not taken{f'; {change}' if change else ''}. Import it again once it is whole; if it is "
                "already, with --whole"
            )
        elif not has_mail and blocks.is_more_than_blank:
            self._others += 1
            if not listed:
                self._fail(f"{place}: no mail was found in it")

    def _told_apart(self, place: Place) -> Place:
        """Return the place of a new input: where several in an archive have one name, each has a number."""
        own, number = place, self._begun.get(place, 0)
        while own in self._begun:
            number += 1
            own = Place(place.path, f"{place.member or ''} ({number + 1})")
        self._begun[place] = number
        self._begun.setdefault(own, 0)
        return own

    def _read_listed(self, leaf: Leaf, inputs: ListInput) -> None:
        """Read one file of a list: a mail, or something that is none and only fills its place."""
        catching_up = inputs.catching_up
        # The name alone: reading a mail moves it from `new` to `cur` and gives it flags.
        name = without_flags(leaf.place.name)
        if leaf.kind is Kind.EMPTY:
            if leaf.in_maildir and not catching_up:
                self.tally.gaps.add(str(leaf.place), 0, "an empty file where a mail should be")
                self._others += 1
            self._packing.add_step(inputs.add(name, b""))
        elif leaf.kind is Kind.UNKNOWN:
            length = beginnings = 0
            for size in iter(lambda: leaf.stream.readinto(memoryview(self._buffer)), 0):
                length += size
                beginnings += count_separators(self._buffer, size)
            step = inputs.add(name, str(length).encode())
            if not catching_up:
                self.tally.add_no_mail(str(leaf.place), leaf.place.name, length, beginnings)
            self._packing.add_step(step)
            self._others += 1
        else:
            self._add_mail(leaf, lambda digest, _: inputs.add(name, digest), skip=catching_up)

    def _read_mail(self, leaf: Leaf) -> None:
        place = self._told_apart(leaf.place)
        state = StreamInput(place, self._books.begin(place))
        start = state.catch_up(leaf.stream, leaf.mark)
        if state.earlier.position and start == state.earlier.position:
            if leaf.stream.read(1):
                raise InputChanged(f"{leaf.place} has grown since it was read; import it without --resume")
            return
        self._add_mail(
            leaf, lambda digest, size: state.progress(start + size, digest, start + size), skip=False
        )

    def _add_mail(
        self, leaf: Leaf, step: Callable[[bytes, int], InputProgress | None], *, skip: bool
    ) -> None:
        self._mails += 1
        mail = leaf.stream.whole()
        if mail is not None:
            self._require_unchanged(leaf)
            self._require_whole(leaf, mail)
            progress = step(hashlib.sha256(mail).digest(), len(mail))
            if not skip:
                self._packing.add_mail(leaf.place, leaf.mark + leaf.offset, mail, progress)
            return
        offset = leaf.mark + leaf.offset
        blocks = Blocks(leaf.stream, None, self._wanted, offset=offset, buffer=self._buffer)
        for piece in blocks:
            self._require_unchanged(leaf)
            mail = bytes(piece.data) if isinstance(piece, Block) else None
            if mail is not None:
                self._require_whole(leaf, mail)
            progress = step(piece.sha256, piece.end - leaf.mark)
            if skip:
                continue
            if isinstance(piece, LongMail):
                self._packing.add_long(leaf.place, piece, progress)
            elif mail is not None:
                self._packing.add_mail(leaf.place, leaf.mark, mail, progress)

    def _require_whole(self, leaf: Leaf, mail: bytes) -> None:
        """Raise `InputUnreadable` where the file of a `mail` says that it is cut."""
        if mail.endswith(_CRASHED):
            raise InputUnreadable(f"{leaf.place} ends in NUL bytes, as a crash leaves them: it is cut")
        named = _SIZE.search(leaf.place.name) if leaf.in_maildir and mail[-1:] != b"\n" else None
        if named and len(mail) < int(named[1]) and not self._wishes.whole:
            raise InputUnreadable(
                f"{leaf.place} ends inside a mail: it has {len(mail):,} of the {int(named[1]):,} bytes "
                "that its name says. Import it again once it is whole; if it is already, with --whole"
            )

    def _require_unchanged(self, leaf: Leaf) -> None:
        if change := self._change(leaf):
            raise InputUnreadable(f"{leaf.place}: {change}; import it again")

    def _list(self, place: Place) -> ListInput:
        if place not in self._lists:
            own = self._told_apart(place)
            self._lists[place] = ListInput(own, self._books.begin(own))
        return self._lists[place]

    def _end_lists(self) -> None:
        self._packing.flush()
        for inputs in self._lists.values():
            try:
                step = inputs.end()
            except InputChanged as fault:
                self._fail(str(fault))
            else:
                self._packing.add_step(step)

    def _fail(self, reason: str) -> None:
        if reason in self._told:
            return  # the damage of a stream shows in its member and in the archive around it
        self._told.add(reason)
        self.tally.add_failure(reason)
        self._failures += 1

    def _check(self) -> None:
        if self._opened is not None:
            self.tally.taken = self._taken_before + self._opened.budget.taken
        if self._stopping():
            raise Interrupted
