"""Reading one folder: from the cursor to its end, in submissions that move the cursor with their mails."""

from collections.abc import Iterator, Sequence
from datetime import date

import structlog

from ingestor.archive.cursors import read_cursor, reset_cursor
from ingestor.archive.entries import Action, CursorMove, Item, Pending, Submission
from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.context import Context, Memory
from ingestor.intake.mailbox.delivery import Delivery
from ingestor.intake.mailbox.fetching import Fetch
from ingestor.intake.mailbox.session import WINDOW, SearchUseless, Selected, Session

log = structlog.get_logger()


class FolderReading:
    """Reads the folder that `session` has open, and hands what it finds to `delivery`."""

    def __init__(
        self, context: Context, session: Session, folder: Selected, delivery: Delivery, memory: Memory
    ) -> None:
        self.folder = folder
        self.fetch = Fetch(context, session, folder, memory)
        self._context = context
        self._session = session
        self._delivery = delivery
        self._memory = memory
        self._known = folder.exists
        self.reached = 0
        """The last UID that was handed over."""

    def catch_up(self, last: int) -> int:
        """Read everything after UID `last` until nothing is new; return the last UID met, all committed."""
        while True:
            met = self.read_after(last)
            self._delivery.settle()
            if not self.news() and met == last:
                return met
            last = met

    def news(self) -> bool:
        """Say whether new mail was announced in the middle of some other answer: it never is again.

        Some servers repeat EXISTS with each answer, so the count must have changed, or may have in between.
        """
        exists, expunged = self._session.told()
        if exists is None:
            return False
        before, self._known = self._known, exists
        return expunged or exists != before

    def start(self) -> int:
        """Return the last UID that needs no reading: the cursor's, or 0 where the numbers mean nothing now.

        Nothing is ever deleted when the server numbers its mails anew: the folder is read again from its
        beginning, and the archive's unique keys tell what is new.
        """
        context, folder = self._context, self.folder
        cursor = read_cursor(context.engine, context.mailbox.name, folder.name)
        if cursor is None:
            return 0
        if cursor.uidvalidity != folder.uidvalidity:
            log.warning(
                "UIDVALIDITY changed; reading the whole folder again",
                mailbox=context.mailbox.name, folder=folder.name,
                before=cursor.uidvalidity, now=folder.uidvalidity,
            )  # fmt: skip
            # At once, even for an empty folder: the change is told and acted on once.
            self._submit(cursor_at=0)
            return 0
        if folder.uidnext is not None and cursor.last_uid >= folder.uidnext:
            log.warning(
                "the server's next UID is below our cursor; reading the whole folder again",
                mailbox=context.mailbox.name, folder=folder.name,
                cursor=cursor.last_uid, uidnext=folder.uidnext,
            )  # fmt: skip
            reset_cursor(context.engine, context.mailbox.name, folder.name)
            return 0
        return cursor.last_uid

    def read_after(self, last: int, *, since: date | None = None, move_cursor: bool = True) -> int:
        """Read every mail after UID `last` (of day `since` or later); return the last UID met."""
        for uids in self._windows(last, since):
            for portion in self.fetch.portions(uids):
                self._read(portion, move_cursor)
            last = max(last, uids[-1])
        return last

    def _windows(self, last: int, since: date | None) -> Iterator[list[int]]:
        """Yield the UIDs after `last` in ascending lists; by number (of any day) where SEARCH is useless."""
        try:
            for uids in self._searched(last, since):
                yield uids
                last = uids[-1]
        except SearchUseless as useless:
            if self.folder.name not in self._memory.useless_search:
                self._memory.useless_search.add(self.folder.name)
                log.warning(
                    "the server's SEARCH contradicts what it says of the folder; mails are listed by number",
                    mailbox=self._context.mailbox.name, folder=self.folder.name, reason=str(useless),
                )  # fmt: skip
            if uids := self._session.by_number(last + 1):
                yield uids

    def _searched(self, last: int, since: date | None) -> Iterator[list[int]]:
        """Yield the UIDs after `last` in ascending lists, by SEARCH.

        Of many, every WINDOWth is asked for by number first, and the searches go from one of these UIDs to
        the next: no answer outgrows imaplib's line or a server's hidden limit, no empty UID space is walked,
        and an expunge in between, which shifts all numbers, cannot hide a mail.
        """
        folder, session = self.folder, self._session
        expected = folder.exists
        if folder.uidnext is not None:
            expected = min(expected, max(0, folder.uidnext - 1 - last))
        if expected <= WINDOW:
            uids = session.search(last + 1, None, since)
            if len(uids) <= WINDOW:
                if uids:
                    yield uids
                return
            again = session.select(folder.name, writable=folder.writable)
            if again.uidvalidity != folder.uidvalidity:
                raise MailboxUnavailable(f"UIDVALIDITY of {folder.name} changed while it was read")
            folder, expected = again, again.exists
        first = last + 1
        for landmark in session.landmarks(folder.exists - expected + 1, folder.exists):
            if landmark >= first:
                if uids := session.search(first, landmark, since):
                    yield uids
                first = landmark + 1
        if uids := session.search(first, None, since):
            yield uids

    def _read(self, uids: Sequence[int], move_cursor: bool) -> None:
        """Submit all of `uids`: each ends in an item, in the count of ignored mails, or in `pending`."""
        context = self._context
        headers = self.fetch.headers(uids)
        lost = self._still_there([uid for uid in uids if uid not in headers])
        wanted = {
            uid: header
            for uid, header in headers.items()
            if context.reader.may_be_ours(header.lines, context.rules)
        }
        foreign = [uid for uid in headers if uid not in wanted]
        self.fetch.passed(foreign)
        groups = list(self.fetch.groups(wanted))
        done = 0
        for number, group in enumerate(groups or [[]], 1):
            upto = uids[-1] if number >= len(groups) else group[-1]
            items = self.fetch.items(group, wanted) if group else {}
            # What is not there yet was just sent as something else, so it is there.
            missing = [uid for uid in group if uid in self.fetch.unready]
            missing += self._still_there([uid for uid in group if uid not in items and uid not in missing])
            self._submit(
                items=tuple(item for item in items.values() if item is not None),
                ignored=sum(item is None for item in items.values())
                + sum(done < uid <= upto for uid in foreign),
                missing=[uid for uid in lost if done < uid <= upto] + missing,
                cursor_at=upto if move_cursor else None,
            )
            self.reached = done = upto

    def _still_there(self, uids: Sequence[int]) -> list[int]:
        """Return those mails that did not come though they are there; the others were removed meanwhile."""
        present = self._session.present(uids)
        return [uid for uid in uids if uid in present]

    def _submit(
        self, *, items: tuple[Item, ...] = (), ignored: int = 0, missing: Sequence[int] = (),
        cursor_at: int | None = None,
    ) -> None:  # fmt: skip
        context, folder = self._context, self.folder
        name = context.mailbox.name
        self._delivery.submit(
            Submission(
                run_id=context.run_id,
                items=items,
                ignored=ignored,
                failed=len(missing),
                cursor=None if cursor_at is None
                else CursorMove(name, folder.name, folder.uidvalidity, cursor_at),
                to_do=tuple(
                    Pending(name, folder.name, folder.uidvalidity, uid, Action.FETCH) for uid in missing
                ),
                after_store=context.after_store,
            )
        )  # fmt: skip
        if missing:
            self._tell_missing(missing)

    def _tell_missing(self, uids: Sequence[int]) -> None:
        log.warning(
            "mails could not be fetched; they will be tried again",
            mailbox=self._context.mailbox.name, folder=self.folder.name,
            count=len(uids), uids=list(uids)[:20],
            reasons=sorted({self.fetch.why_missing(uid) for uid in uids}),
        )  # fmt: skip
