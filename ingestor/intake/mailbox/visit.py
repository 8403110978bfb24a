"""One connection's life: every folder read, what is pending done, then waiting in IDLE for more."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

from ingestor.archive.inserts import read_archive_key
from ingestor.archive.items import Action, CursorMove
from ingestor.archive.mailbox_state import read_cursor
from ingestor.archive.payloads import usable_dictionary
from ingestor.intake.mailbox import pending
from ingestor.intake.mailbox.answers import FolderMissing, Refused, Selected
from ingestor.intake.mailbox.connection import Flooded
from ingestor.intake.mailbox.context import LOOK_SECONDS, Context, Timing, Unwritable
from ingestor.intake.mailbox.reading import FolderReading
from ingestor.intake.mailbox.session import Session
from ingestor.record import Outcome

WITHOUT_IDLE: Final = 3600.0  # seconds after a flood


class Visit:
    """Works over one session until the connection breaks or the thread is asked to stop."""

    def __init__(self, context: Context, session: Session) -> None:
        self._context = context
        self._session = session
        self._reading: FolderReading | None = None
        self._last = 0
        self._idle_refused = False
        memory = context.memory
        memory.dictionary = usable_dictionary(context.engine)  # a failover may have lost the last one
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

    def cycles(self, timing: Timing) -> Iterator[float]:
        """Make a full pass every `poll_seconds`, and watch the first folder in between, without end.

        Yields after each finished cycle how many seconds the wait that follows may take, for the watchdog.
        """
        mailbox = self._context.mailbox
        while True:
            pending.called_for(self._context)  # polls may be more frequent than looks
            self.full_pass()
            if len(self._context.memory.missing) == len(mailbox.folders):
                self.check_folders()
            # A connection wants to be used, however seldom a poll is asked for.
            due = time.monotonic() + min(timing.idle, mailbox.poll_seconds)
            while (left := due - time.monotonic()) > 0:
                yield left
                if not self.watching:
                    self._wait(left)
                    break
                if not self._idle(left) or len(mailbox.folders) > 1 or self._reading is None:
                    break
                self._last = self._catch_up(self._reading, self._last)

    def check_folders(self) -> None:
        if missing := self._context.memory.missing:
            raise FolderMissing("; ".join(missing.values()))

    @property
    def watching(self) -> bool:
        """Whether IDLE can stand on the first folder; else there is the poll alone."""
        able = self._context.mailbox.idle and self._session.can_idle and not self._idle_refused
        able = able and time.monotonic() >= self._context.memory.idle_again_at
        return able and self._reading is not None

    def _idle(self, seconds: float) -> bool:
        try:
            return self._session.idle(lambda: self._wait(seconds))
        except Refused as refusal:  # offered, and refused: this connection polls
            self._idle_refused = True
            self._context.log.warning("the server refuses IDLE; it is polled", reason=str(refusal))
            return False
        except Flooded:
            self._context.memory.idle_again_at = time.monotonic() + WITHOUT_IDLE
            self._context.log.warning("the server pushes without end in IDLE; it is polled for an hour")
            raise

    def _wait(self, seconds: float) -> bool:
        """Wait for news (True) or the end of `seconds`; meanwhile see to who acts on the mailbox."""
        until = time.monotonic() + seconds
        look = seconds if self._context.after_store is None else LOOK_SECONDS
        while True:
            left = until - time.monotonic()
            if self._session.wire.wait_for_news(min(left, look)):
                return True
            if left <= look:
                return False
            if pending.called_for(self._context):
                return True

    def rescan(self, folder: str, since: date | None, read_to: Mapping[str, int] | None = None) -> None:
        """Read a whole folder again (mails of day `since` or later); its cursor stays where it is.

        With `read_to`, UIDs by folder, only what stands below those or the cursor: the rest is still new.
        """
        reading = self._open(folder)
        upto = None if read_to is None else max(read_to.get(reading.folder.name, 0), reading.cursor_at)
        reading.start()  # what stands in `pending` must not be done to mails that were renumbered
        uidvalidity, reached = self._context.memory.rescanned.get(reading.folder.name, (0, 0))
        reading.reached = reached if uidvalidity == reading.folder.uidvalidity else 0
        try:
            reading.read_after(reading.reached, upto, since=since, move_cursor=False)
            self._context.delivery.settle()
        except Unwritable:  # what was handed over last is not in the archive
            reading.reached = 0
            raise
        finally:
            self._context.memory.rescanned[reading.folder.name] = reading.folder.uidvalidity, reading.reached
        pending.work_off(reading)

    def _open(self, folder: str) -> FolderReading:
        context, memory = self._context, self._context.memory
        name = self._session.require_folder(folder)
        writable = context.after_store is not None or name in memory.unkept
        selected = self._select(folder, name, writable=writable)
        cursor = read_cursor(context.engine, context.mailbox.name, name)
        if not writable and _forgets(selected, cursor):
            if selected.uidnext is None:
                memory.unkept.add(name)
            context.log.info(
                "the folder is opened read-write, so that the server keeps its numbers; no mail is touched",
                folder=folder,
            )
            selected = self._select(folder, name, writable=True)
        reading = FolderReading(context, self._session, selected, cursor)
        put_off = pending.put_off(context, selected)
        reading.fetch.recall(put_off)
        if put_off and memory.is_news("put off", name):
            reading.log.warning(
                "mails of this folder could not be fetched so far; each is tried again when it is due",
                count=len(put_off), uids=put_off[:20],
            )  # fmt: skip
        return reading

    def _select(self, folder: str, name: str, *, writable: bool) -> Selected:
        try:
            with contextlib.suppress(Refused):
                return self._session.select(name, writable=writable)
            return self._session.select(name, writable=False)
        except Refused as refusal:
            raise FolderMissing(f"folder {folder!r} cannot be opened: {refusal}") from None

    def _open_and_catch_up(self, folder: str) -> None:
        self._reading = None
        missing, log = self._context.memory.missing, self._context.log
        try:
            reading = self._open(folder)
        except FolderMissing as fault:
            if missing.get(folder) != str(fault):
                missing[folder] = str(fault)
                log.error(  # noqa: TRY400 - the sentence says it all
                    "a folder cannot be read; it is looked for again", folder=folder, reason=str(fault)
                )
            return
        if missing.pop(folder, None) is not None:
            log.info("the folder can be read again", folder=folder)
        self._last = self._catch_up(reading, reading.start())
        self._reading = reading

    def _catch_up(self, reading: FolderReading, last: int) -> int:
        before = Counter(self._context.delivery.tally)
        try:
            while True:
                last = reading.catch_up(last)
                self._context.memory.read_to[reading.folder.name] = last
                pending.work_off(reading)
                if not reading.news():
                    return last
        finally:
            read = self._context.delivery.tally - before
            if read:
                counts = {outcome.value: read[outcome] for outcome in Outcome if read[outcome]}
                reading.log.info("mails read", **counts)

    def _tell_weakness(self) -> None:
        """Say once what the server cannot do of what is asked for."""
        after, session = self._context.after_store, self._session
        if after not in (Action.MOVE, Action.DELETE) or session.can_expunge:
            return
        if not (after is Action.MOVE and session.can_move) and self._context.memory.is_news("weak server"):
            self._context.log.warning(
                "the server has neither MOVE nor UIDPLUS: mails are only marked as deleted, never expunged"
            )


def _forgets(folder: Selected, cursor: CursorMove | None) -> bool:
    """Say whether the server seems to write no UIDs down for who only looks.

    Courier-IMAP 5.0.13 gives no UIDNEXT and numbers new mails at each EXAMINE anew; it gives a mailbox that
    was never opened otherwise a new UIDVALIDITY each time, and so does GNU Mailutils 3.15. SELECT settles it.
    """
    return folder.uidnext is None or (cursor is not None and cursor.uidvalidity != folder.uidvalidity)
