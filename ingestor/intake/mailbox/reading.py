"""Reading one folder: from the cursor to its end, in submissions that move the cursor with their mails."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Final

from ingestor.archive.items import Action, CursorMove, Item, Pending, Submission
from ingestor.archive.mailbox_state import reset_cursor
from ingestor.archive.queries import near_misses_since
from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.answers import SearchUseless, Selected
from ingestor.intake.mailbox.context import Context, account_of
from ingestor.intake.mailbox.fetch import Fetch
from ingestor.intake.mailbox.session import WINDOW, Session
from ingestor.intake.mailbox.standing import MARKED, Standing, Uids, mark_newest, marks_of, renumbered
from ingestor.providers.contract import NEAR_MISSES, NotOurs, Unreadable

LookAlikes = tuple[tuple[str, str, int], ...]

MOST_NAMES: Final = 10
"""Under how many names a mailbox may be reached in turn."""

MOST_NEAR_MISSES: Final = 1000
"""Mails of strangers that look like ours a mailbox keeps in a day of UTC, for the disk's sake; those beyond
are counted among the ignored."""

_STAYS: Final = -1


class FolderReading:
    """Reads the folder that `session` has open, and hands what it finds to `delivery`."""

    def __init__(
        self, context: Context, session: Session, folder: Selected, cursor: CursorMove | None
    ) -> None:
        self.context = context
        self.session = session
        self.delivery = context.delivery
        self.folder = folder
        self.log = context.log.bind(folder=folder.name)
        self.fetch = Fetch(context, session, folder)
        self._known = folder.exists
        self.reached = 0
        """The last UID that was handed over."""
        self._cursor = cursor
        self._account = account_of(context.mailbox)
        self._accounts: tuple[str, ...] = (self._account,)
        self._standing = Standing()
        self._compared = False
        self._unheard = False
        self.fresh: set[int] = set()
        """Mails stored since the folder was opened, and not acted on yet."""

    @property
    def cursor_at(self) -> int:
        """The UID of the archive's cursor, 0 where there is none."""
        return self._cursor.last_uid if self._cursor is not None else 0

    def catch_up(self, last: int) -> int:
        """Read everything after UID `last` until nothing is new; return the last UID met, all committed."""
        while True:
            met = self.read_after(last)
            self.delivery.settle()
            if not self._compared:
                self._compare(met)
                self._compared = True
            if not self.news() and met == last:
                return met
            last = met

    def news(self) -> bool:
        """Say whether new mail was announced in the middle of some other answer: it never is again.

        Some servers repeat EXISTS with each answer, so the count must have changed, or may have in between.
        """
        exists, expunged = self.session.told()
        unheard, self._unheard = self._unheard, False
        if exists is None:
            return unheard
        before, self._known = self._known, exists
        return unheard or expunged or exists != before

    def reopen(self) -> None:
        """Open the folder once more. Raises MailboxUnavailable where it is another one now."""
        again = self.session.select(self.folder.name, writable=self.folder.writable)
        if again.uidvalidity != self.folder.uidvalidity:
            raise MailboxUnavailable(f"UIDVALIDITY of {self.folder.name} changed while it was read")
        self.folder = again
        self.fresh.clear()
        self._unheard = True  # what came meanwhile was not announced

    def start(self) -> int:
        """Return the last UID that needs no reading: the cursor's, or 0 where the numbers mean nothing now.

        Then the folder is read again from its beginning, and the archive's unique keys tell what is new.
        """
        folder, cursor = self.folder, self._cursor
        if cursor is None:
            return 0
        accounts = tuple((cursor.accounts or "").splitlines())
        if accounts and self._account not in accounts:
            if cursor.uidvalidity == folder.uidvalidity and self._vouched(cursor):
                # It may be reached by several names; two daemons with one each would take turns for ever.
                self._accounts = (*accounts[-MOST_NAMES:], self._account)
            self._again("the mailbox has another server or user name; reading the whole folder again",
                        before=accounts[-1], now=self._account)  # fmt: skip
        elif cursor.uidvalidity != folder.uidvalidity:
            self.log.warning("UIDVALIDITY changed; reading the whole folder again",
                             before=cursor.uidvalidity, now=folder.uidvalidity)  # fmt: skip
            # At once, even for an empty folder: the change is told and acted on once.
            self._submit(cursor_at=0)
        elif folder.uidnext is not None and cursor.last_uid >= folder.uidnext:
            self._again("the server's next UID is below our cursor; reading the whole folder again",
                        cursor=cursor.last_uid, uidnext=folder.uidnext)  # fmt: skip
        elif not self._vouched(cursor):
            self._again(
                "other mails stand under the UIDs of those that were read; reading the whole folder again"
            )
        else:
            self._accounts = accounts or self._accounts
            return cursor.last_uid
        return 0

    def _vouched(self, cursor: CursorMove) -> bool:
        """Say whether the mails in the folder are those of the last pass; take over what is known of it."""
        standing = Standing(cursor.uids or "", cursor.marks or b"")
        if self.folder.exists and renumbered(standing, self.fetch, self.context.memory.archive_key):
            return False
        self._standing = standing
        return True

    def _again(self, why: str, **details: object) -> None:
        self.log.warning(why, **details)
        self._standing = Standing()
        reset_cursor(self.context.engine, self.context.mailbox.name, self.folder.name)
        self._cursor = None

    def _compare(self, last: int) -> None:
        """Read what stands below `last` and did not at the last pass, and forget what has gone.

        In a large folder nothing has changed as long as the number of mails and the newest hundred have not.
        A look at a folder of 200,000 mails took a local Dovecot 0.35 s and this program 0.01 s; with its
        UIDs, because one mail had gone, 0.7 s and 0.2 s.
        """
        known = self._standing.uids
        first = self._cursor is not None and self._cursor.uids is None
        before = str(known), self._standing.kept_marks()
        if self.folder.exists <= WINDOW or self._known != len(known):
            now = Uids()
            for window in self._windows(0, None):
                uids = [uid for uid in window if uid <= last]
                now.add(uids)
                came = [uid for uid in uids if uid not in known and not first]
                if came:
                    self.log.info(
                        "mails stand below the cursor that did not at the last pass; they are read",
                        count=len(came),
                    )
                for portion in self.fetch.portions(came):
                    self._read(portion, cursor_at=last)
            self._standing.replace(now)
        mark_newest(self._standing, self.fetch, self.context.memory.archive_key)
        if before != (str(self._standing.uids), self._standing.kept_marks()):
            self._submit(cursor_at=last)
            self.delivery.settle()

    def read_after(
        self, last: int, upto: int | None = None, *, since: date | None = None, move_cursor: bool = True
    ) -> int:
        """Read all mails after UID `last` up to `upto` (of day `since` or later); return the last UID met."""
        for window in self._windows(last, since):
            uids = [uid for uid in window if upto is None or uid <= upto]
            if not uids:
                return last
            for portion in self.fetch.portions(uids):
                self._read(portion, None if move_cursor else _STAYS)
            last = max(last, uids[-1])
        return last

    def _windows(self, last: int, since: date | None) -> Iterator[list[int]]:
        """Yield the UIDs after `last` in ascending lists; by number (of any day) where SEARCH is useless."""
        try:
            for uids in self._searched(last, since):
                yield uids
                last = uids[-1]
        except SearchUseless as useless:
            if self.context.memory.is_news("useless search", self.folder.name):
                self.log.warning(
                    "the server's SEARCH contradicts what it says of the folder; mails are listed by number",
                    reason=str(useless),
                )
            if uids := self.session.by_number(last + 1):
                yield uids

    def _searched(self, last: int, since: date | None) -> Iterator[list[int]]:
        """Yield the UIDs after `last` in ascending lists, by SEARCH.

        Of many, every WINDOWth is asked for by number first, and the searches go from one of these UIDs to
        the next: no answer outgrows imaplib's line or a server's hidden limit, no empty UID space is walked,
        and an expunge in between, which shifts all numbers, cannot hide a mail.
        """
        folder, session = self.folder, self.session
        expected = folder.exists
        if folder.uidnext is not None:
            expected = min(expected, max(0, folder.uidnext - 1 - last))
        if expected <= WINDOW:
            uids = session.search(last + 1, None, since)
            if len(uids) <= WINDOW:
                if uids:
                    yield uids
                return
            self.reopen()
            folder, expected = self.folder, self.folder.exists
        first = last + 1
        for landmark in session.landmarks(folder.exists - expected + 1, folder.exists):
            if landmark >= first:
                if uids := session.search(first, landmark, since):
                    yield uids
                first = landmark + 1
        if uids := session.search(first, None, since):
            yield uids

    def _read(self, uids: Sequence[int], cursor_at: int | None) -> None:
        """Submit all of `uids`: each ends in an item, in the count of ignored mails, or in `pending`.

        The cursor moves along with them (None), or to `cursor_at`, or stays.
        """
        headers = self.fetch.headers(uids)
        # What did not come though it is there is put off; the others were removed meanwhile.
        lost = sorted(self.session.present([uid for uid in uids if uid not in headers]))
        wanted = self.fetch.wanted(headers)
        foreign = [uid for uid in headers if uid not in wanted]
        self.fetch.passed(foreign)
        groups = list(self.fetch.groups(wanted))
        done = 0
        for number, group in enumerate(groups or [[]], 1):
            upto = uids[-1] if number >= len(groups) else group[-1]
            items = self.fetch.items(group, wanted) if group else {}
            # What is not there yet was just sent as something else, so it is there.
            missing = [uid for uid in group if uid in self.fetch.unready]
            rest = [uid for uid in group if uid not in items and uid not in missing]
            missing += sorted(self.session.present(rest))
            passed = [uid for uid in foreign if done < uid <= upto]
            put_off = [uid for uid in lost if done < uid <= upto] + missing
            met = [*items, *passed, *put_off]
            newest = {uid: headers[uid] for uid in sorted(met)[-MARKED:] if uid in headers}
            self._standing.met(met, marks_of(newest, items, self.context.memory.archive_key))
            kept, ignored, look_alikes = self.sort(items.values())
            self._submit(
                items=kept, ignored=ignored + len(passed), look_alikes=look_alikes, missing=put_off,
                cursor_at=upto if cursor_at is None else cursor_at,
            )  # fmt: skip
            self.reached = done = upto

    def sort(self, found: Iterable[Item | NotOurs]) -> tuple[tuple[Item, ...], int, LookAlikes]:
        """Return which of `found` are kept, how many are ignored, and what the look-alikes of these lack."""
        kept: list[Item] = []
        ignored = 0
        lacking: Counter[str] = Counter()
        room: int | None = None
        for one in found:
            if isinstance(one, NotOurs):
                ignored += 1
                if one.missing is not None:
                    lacking[one.missing] += 1
                continue
            if isinstance(one.reading, Unreadable) and one.reading.reason in NEAR_MISSES:
                room = (self._room_for_near_misses() if room is None else room) - 1
                if room < 0:
                    self._say_full()
                    ignored += 1
                    lacking["sender"] += 1
                    continue
            kept.append(one)
        name = self.context.mailbox.name
        return tuple(kept), ignored, tuple((name, missing, number) for missing, number in lacking.items())

    def _room_for_near_misses(self) -> int:
        context, now = self.context, self.context.clock()
        if context.memory.near_misses_full == now.date():
            return 0
        self.delivery.settle()  # those of the submission before count too
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return MOST_NEAR_MISSES - near_misses_since(context.engine, context.mailbox.name, midnight)

    def _say_full(self) -> None:
        memory, today = self.context.memory, self.context.clock().date()
        if memory.near_misses_full != today:
            memory.near_misses_full = today
            self.context.log.warning(
                "more mails of strangers look like SMS than are kept in a day; the rest is only counted",
                kept=MOST_NEAR_MISSES, see="ingestor quarantine list",
                fix="add the sender to [agile] senders, then: ingestor rescan",
            )  # fmt: skip

    def _submit(
        self, *, items: tuple[Item, ...] = (), ignored: int = 0, missing: Sequence[int] = (),
        cursor_at: int | None = None, look_alikes: LookAlikes = (),
    ) -> None:  # fmt: skip
        context, standing = self.context, self._standing
        here = context.mailbox.name, self.folder.name, self.folder.uidvalidity
        cursor: CursorMove | None = None
        if cursor_at not in (None, _STAYS):
            accounts = "\n".join(self._accounts)
            cursor = CursorMove(*here, cursor_at, accounts, str(standing.uids), standing.kept_marks())
        self.delivery.submit(
            Submission(
                run_id=context.run_id, items=items, ignored=ignored, failed=len(missing), cursor=cursor,
                to_do=tuple(Pending(*here, uid, Action.FETCH) for uid in missing),
                after_store=context.after_store, look_alikes=look_alikes,
            )
        )  # fmt: skip
        if context.after_store is not None:
            self.fresh.update(item.position.uid for item in items if item.position.uid is not None)
        if missing:
            self.log.warning(
                "mails could not be fetched; they will be tried again",
                count=len(missing), uids=list(missing)[:20],
                reasons=sorted({self.fetch.why_missing(uid) for uid in missing}),
            )  # fmt: skip
