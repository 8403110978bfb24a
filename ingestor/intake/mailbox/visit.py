"""One connection's life: every folder read, duties done, then waiting in IDLE for more."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Final

import structlog

from ingestor.archive.cursors import Cursor, read_cursor
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.items import Action
from ingestor.archive.payloads import usable_dictionary
from ingestor.intake.mailbox.context import Context, Memory
from ingestor.intake.mailbox.delivery import Delivery, Unwritable
from ingestor.intake.mailbox.duties import Duties
from ingestor.intake.mailbox.lease import LOOK_SECONDS
from ingestor.intake.mailbox.reading import FolderReading
from ingestor.intake.mailbox.session import FolderMissing, Selected, Session
from ingestor.intake.mailbox.stream import Flooded
from ingestor.intake.mailbox.waiting import Timing
from ingestor.intake.mailbox.words import Refused
from ingestor.record import Outcome

WITHOUT_IDLE: Final = 3600.0  # seconds after a flood

log = structlog.get_logger()


class Visit:
    """Works over one session until the connection breaks or the thread is asked to stop."""

    def __init__(self, context: Context, session: Session, delivery: Delivery, memory: Memory) -> None:
        self._context = context
        self._session = session
        self._delivery = delivery
        self._memory = memory
        self._duties = Duties(context, session, delivery, memory)
        self._reading: FolderReading | None = None
        self._last = 0
        self._idle_refused = False
        if memory.dictionary is None:
            memory.dictionary = usable_dictionary(context.engine)
        memory.archive_key = memory.archive_key or read_archive_key(context.engine)

    def full_pass(self) -> None:
        """Read every folder from its cursor; the first one is read first, and is open at the end."""
        self._tell_weakness()
        first, *others = self._context.mailbox.folders
        self._open_and_catch_up(first)
        for folder in others:
            self._open_and_catch_up(folder)
        if others:
            self._open_and_catch_up(first)

    def stay(self, timing: Timing, finished: Callable[[], None], waits: Callable[[float], None]) -> None:
        """Make a full pass every `poll_seconds`, and watch the first folder in between.

        Ends only by an exception: Stopped, or what broke the connection. `finished` is told of each finished
        cycle; `waits` feeds the watchdog: it hears how many seconds the next wait may take.
        """
        mailbox = self._context.mailbox
        while True:
            self._duties.called_for()  # polls may be more frequent than looks
            self.full_pass()
            if len(self._memory.missing) == len(mailbox.folders):
                check_folders(self._memory)
            finished()
            # A connection wants to be used, however seldom a poll is asked for.
            due = time.monotonic() + min(timing.idle, mailbox.poll_seconds)
            while (left := due - time.monotonic()) > 0:
                waits(left)
                if not self.watching:
                    self._wait(left)
                    break
                if not self._idle(left) or len(mailbox.folders) > 1 or self._reading is None:
                    break
                self._last = self._catch_up(self._reading, self._last)
                finished()

    @property
    def watching(self) -> bool:
        """Whether IDLE can stand on the first folder; else there is the poll alone."""
        able = self._context.mailbox.idle and self._session.can_idle and not self._idle_refused
        able = able and time.monotonic() >= self._memory.idle_again_at
        return able and self._reading is not None

    def _idle(self, seconds: float) -> bool:
        """Wait in IDLE; return whether the server had news."""
        try:
            return self._session.idle(lambda: self._wait(seconds))
        except Refused as refusal:  # offered, and refused: this connection polls
            self._idle_refused = True
            log.warning(
                "the server refuses IDLE; it is polled",
                mailbox=self._context.mailbox.name,
                reason=str(refusal),
            )
            return False
        except Flooded:
            self._memory.idle_again_at = time.monotonic() + WITHOUT_IDLE
            log.warning(
                "the server pushes without end in IDLE; it is polled for an hour",
                mailbox=self._context.mailbox.name,
            )
            raise

    def _wait(self, seconds: float) -> bool:
        """Wait for news (True) or the end of `seconds`; meanwhile see to who acts on the mailbox."""
        until = time.monotonic() + seconds
        look = seconds if self._context.after_store is None else LOOK_SECONDS
        while True:
            left = until - time.monotonic()
            if self._session.wire.stream.wait_for_news(min(left, look)):
                return True
            if left <= look:
                return False
            if self._duties.called_for():
                return True

    def rescan(self, folder: str, since: date | None) -> None:
        """Read a whole folder again (mails of day `since` or later); its cursor stays where it is."""
        reading = self._open(folder)
        reading.start()  # what stands in `pending` must not be done to mails that were renumbered
        uidvalidity, reached = self._memory.rescanned.get(reading.folder.name, (0, 0))
        reading.reached = reached if uidvalidity == reading.folder.uidvalidity else 0
        try:
            reading.read_after(reading.reached, since=since, move_cursor=False)
            self._delivery.settle()
        except Unwritable:  # what was handed over last is not in the archive
            reading.reached = 0
            raise
        finally:
            self._memory.rescanned[reading.folder.name] = reading.folder.uidvalidity, reading.reached
        self._duties.work_off(reading)

    def _open(self, folder: str) -> FolderReading:
        context, memory = self._context, self._memory
        name = self._session.require_folder(folder)
        writable = context.after_store is not None or name in memory.unkept
        selected = self._select(folder, name, writable=writable)
        cursor = read_cursor(context.engine, context.mailbox.name, name)
        if not writable and _forgets(selected, cursor):
            if selected.uidnext is None:
                memory.unkept.add(name)
            log.info(
                "the folder is opened read-write, so that the server keeps its numbers; no mail is touched",
                mailbox=context.mailbox.name, folder=folder,
            )  # fmt: skip
            selected = self._select(folder, name, writable=True)
        return self._reading_of(selected, cursor)

    def _select(self, folder: str, name: str, *, writable: bool) -> Selected:
        try:
            with contextlib.suppress(Refused):
                return self._session.select(name, writable=writable)
            return self._session.select(name, writable=False)
        except Refused as refusal:
            raise FolderMissing(f"folder {folder!r} cannot be opened: {refusal}") from None

    def _reading_of(self, selected: Selected, cursor: Cursor | None) -> FolderReading:
        reading = FolderReading(self._context, self._session, selected, self._delivery, self._memory, cursor)
        put_off = self._duties.put_off(selected)
        reading.fetch.recall(put_off)
        if put_off and selected.name not in self._memory.put_off_told:
            self._memory.put_off_told.add(selected.name)
            log.warning(
                "mails of this folder could not be fetched so far; each is tried again when it is due",
                mailbox=self._context.mailbox.name, folder=selected.name,
                count=len(put_off), uids=put_off[:20],
            )  # fmt: skip
        return reading

    def _open_and_catch_up(self, folder: str) -> None:
        self._reading = None
        try:
            reading = self._open(folder)
        except FolderMissing as fault:
            self._miss(folder, str(fault))
            return
        if self._memory.missing.pop(folder, None) is not None:
            log.info("the folder can be read again", mailbox=self._context.mailbox.name, folder=folder)
        self._last = self._catch_up(reading, reading.start())
        self._reading = reading

    def _miss(self, folder: str, reason: str) -> None:
        if self._memory.missing.get(folder) != reason:
            self._memory.missing[folder] = reason
            log.error(
                "a folder cannot be read; it is looked for again",
                mailbox=self._context.mailbox.name, folder=folder, reason=reason,
            )  # fmt: skip

    def _catch_up(self, reading: FolderReading, last: int) -> int:
        before = Counter(self._delivery.tally)
        try:
            while True:
                last = reading.catch_up(last)
                self._duties.work_off(reading)
                if not reading.news():
                    return last
        finally:
            read = self._delivery.tally - before
            if read:
                counts = {outcome.value: read[outcome] for outcome in Outcome if read[outcome]}
                log.info(
                    "mails read",
                    mailbox=self._context.mailbox.name, folder=reading.folder.name, **counts,
                )  # fmt: skip

    def _tell_weakness(self) -> None:
        """Say once what the server cannot do of what is asked for."""
        session, after = self._session, self._context.after_store
        if self._memory.weak_told or after not in (Action.MOVE, Action.DELETE) or session.can_expunge:
            return
        if after is Action.MOVE and session.can_move:
            return
        self._memory.weak_told = True
        log.warning(
            "the server has neither MOVE nor UIDPLUS: mails are only marked as deleted, never expunged",
            mailbox=self._context.mailbox.name,
        )


def check_folders(memory: Memory) -> None:
    """Raise FolderMissing where a configured folder could not be read."""
    if memory.missing:
        raise FolderMissing("; ".join(memory.missing.values()))


def _forgets(folder: Selected, cursor: Cursor | None) -> bool:
    """Say whether the server seems to write no UIDs down for who only looks.

    Courier-IMAP 5.0.13 gives no UIDNEXT and numbers new mails at each EXAMINE anew; it gives a mailbox that
    was never opened otherwise a new UIDVALIDITY each time, and so does GNU Mailutils 3.15. SELECT settles it.
    """
    return folder.uidnext is None or (cursor is not None and cursor.uidvalidity != folder.uidvalidity)
