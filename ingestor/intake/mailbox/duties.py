"""What is pending in a folder: mails to fetch once more, and what to do on the server after a commit.

Nothing here happens before the commit that queued it, everything survives a crash, and what was done twice
does no harm: a mail that is gone is done.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from ingestor.archive.cursors import PendingWork, note_failure, pending_work
from ingestor.archive.entries import Action, Item, Pending, Submission
from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.context import HANGS_UP, NO_MEMORY, Context, Memory
from ingestor.intake.mailbox.delivery import Delivery, Unwritable
from ingestor.intake.mailbox.fetching import NO_BODY, NOTICE
from ingestor.intake.mailbox.pieces import PIECE_BYTES
from ingestor.intake.mailbox.reading import FolderReading
from ingestor.intake.mailbox.session import Header, Selected, Session
from ingestor.intake.mailbox.words import Refused
from ingestor.providers.contract import NotOurs, Readable

MOST_FETCHES: Final = 100
"""Put-off mails tried in one cycle; they go one by one, after everything else."""

AT_ONCE: Final = 500

GIVEN_UP_AFTER: Final = timedelta(days=3)
FEWEST_ATTEMPTS: Final = 6
"""So often, and for so long, a mail of ours is fetched again before what there is of it is quarantined."""

HANG_UP_MINUTES: Final = 12 * 60
"""The longest pause between two attempts that cost a connection each."""

log = structlog.get_logger()


class Duties:
    """Works off the pending list of the folder that is open."""

    def __init__(self, context: Context, session: Session, delivery: Delivery, memory: Memory) -> None:
        self._context = context
        self._session = session
        self._delivery = delivery
        self._memory = memory
        self._complained = memory.complained
        self._suspects = memory.suspects

    def put_off(self, folder: Selected) -> list[int]:
        """Return the mails of `folder` that are known to break connections, or the program."""
        work = pending_work(self._context.engine, self._context.mailbox.name, folder.name)
        return [
            entry.work.uid for entry in work
            if entry.work.action is Action.FETCH and entry.work.uidvalidity == folder.uidvalidity
            and entry.attempts and entry.reason not in (NO_BODY, NOTICE)
        ]  # fmt: skip

    def work_off(self, reading: FolderReading) -> None:
        """Do what is pending in the folder of `reading`, as far as the server lets us."""
        folder = reading.folder
        work = pending_work(self._context.engine, self._context.mailbox.name, folder.name)
        if not work:
            return
        work = self._without_stale(work, folder)
        for action in (Action.SEEN, Action.MOVE, Action.DELETE):
            uids = [entry.work.uid for entry in work if entry.work.action is action]
            for begin in range(0, len(uids), AT_ONCE):
                self._act(action, uids[begin : begin + AT_ONCE], folder)
        now = self._context.clock()
        due = [entry for entry in work if entry.work.action is Action.FETCH and _is_due(entry, now)]
        for entry in due[:MOST_FETCHES]:
            self._fetch_again(entry, reading)
            try:
                self._delivery.settle()
            except Unwritable as fault:
                note_failure(self._context.engine, entry.work, str(fault), self._context.clock())
                raise
        self._delivery.settle()

    def _without_stale(self, work: Sequence[PendingWork], folder: Selected) -> list[PendingWork]:
        """Take off what means nothing any more: UIDs of an old UIDVALIDITY, actions no longer asked for."""
        renumbered = [e.work for e in work if e.work.uidvalidity != folder.uidvalidity]
        unwanted = [
            e.work
            for e in work
            if e.work.uidvalidity == folder.uidvalidity
            and e.work.action not in (Action.FETCH, self._context.after_store)
        ]
        for dropped, why in (
            (renumbered, "the folder has a new UIDVALIDITY, and is read again as a whole"),
            (unwanted, "after_store no longer asks for it"),
        ):
            if dropped:
                log.info("pending work dropped", why=why, count=len(dropped), folder=folder.name,
                         mailbox=self._context.mailbox.name)  # fmt: skip
                self._done(dropped)
        gone = set(renumbered + unwanted)
        return [entry for entry in work if entry.work not in gone]

    def _act(self, action: Action, uids: Sequence[int], folder: Selected) -> None:
        perform: Callable[[Sequence[int]], None]
        perform = {Action.SEEN: self._see, Action.MOVE: self._move, Action.DELETE: self._delete}[action]
        if not folder.writable:
            self._complain(folder.name, action, len(uids), "the folder can only be read")
            return
        try:
            ours, unknown = self._ours(uids, folder)
            perform(ours)
        except Refused as refusal:
            self._complain(folder.name, action, len(uids), str(refusal))
            return
        self._complained.discard((folder.name, action))
        self._done([self._pending(uid, action, folder) for uid in uids if uid not in unknown])

    def _ours(self, uids: Sequence[int], folder: Selected) -> tuple[list[int], set[int]]:
        """Return which of `uids` are mails of ours, and which do not show their header now.

        A server restored from an old copy gives the same UIDs to other people's mails, and need not say so.
        """
        present = self._session.present(uids)
        headers = self._session.headers(sorted(present)) if present else {}
        ours = sorted(uid for uid, header in headers.items() if self._is_ours(uid, header))
        if foreign := len(headers) - len(ours):
            log.warning(
                "pending work names mails that are not ours; they are left alone",
                mailbox=self._context.mailbox.name, folder=folder.name, count=foreign,
            )  # fmt: skip
        return ours, present - headers.keys()

    def _is_ours(self, uid: int, header: Header) -> bool:
        """Say whether a mail is an SMS of ours: by its header, or where that leaves a doubt by the whole."""
        reader, rules = self._context.reader, self._context.rules
        if reader.is_ours(header.lines, rules):
            return True
        if not reader.may_be_ours(header.lines, rules) or (header.size or 0) > PIECE_BYTES:
            return False
        raw = self._session.bodies([uid]).get(uid)
        return raw is not None and isinstance(reader.read_mail(raw, rules), Readable)

    def _complain(self, folder: str, action: Action, count: int, reason: str) -> None:
        if (folder, action) not in self._complained:
            self._complained.add((folder, action))
            log.error(
                "the server refuses what is asked for after storing; the mails stay, and it is tried again",
                mailbox=self._context.mailbox.name, folder=folder, action=action.value, count=count,
                reason=reason,
            )  # fmt: skip

    def _see(self, uids: Sequence[int]) -> None:
        if uids:
            self._session.flag(uids, b"\\Seen")

    def _delete(self, uids: Sequence[int]) -> None:
        if not uids:
            return
        self._session.flag(uids, b"\\Deleted")
        if self._session.can_expunge:
            self._session.expunge(uids)

    def _move(self, uids: Sequence[int]) -> None:
        if not uids:
            return
        target = self._target()
        selected = self._session.selected
        if selected is not None and selected.name == target:
            return  # a mail moved to where it is would come back as a new one, for ever
        if self._session.can_move and self._moved(uids, target):
            return
        # What is marked already was copied before a crash; copied again it would stand there twice.
        marked = self._session.present(uids, "DELETED")
        if unmarked := [uid for uid in uids if uid not in marked]:
            self._session.copy(unmarked, target)
        self._delete(uids)

    def _moved(self, uids: Sequence[int], target: str) -> bool:
        """Move at one go; return False where the server offers that and refuses it, as some do for ever."""
        try:
            self._session.move(uids, target)
        except Refused as refusal:
            if not self._memory.move_refused_told:
                self._memory.move_refused_told = True
                log.warning(
                    "the server offers MOVE and refuses it; mails are copied, marked as deleted and expunged",
                    mailbox=self._context.mailbox.name, reason=str(refusal),
                )  # fmt: skip
            return False
        return True

    def _target(self) -> str:
        name = self._context.mailbox.move_to or ""
        found = self._session.folder_named(name)
        if found is None:
            found = self._session.create_folder(name)
            log.info("folder created to move mails to", mailbox=self._context.mailbox.name, folder=found)
        return found

    def _fetch_again(self, entry: PendingWork, reading: FolderReading) -> None:
        """Fetch one put-off mail with the utmost care; a further failure waits longer each time."""
        work = entry.work
        last_time = _is_given_up(entry, self._context.clock())
        head = b""
        try:
            # Every other time only: a server may refuse to give a header in part.
            bounded = entry.attempts % 2 == 1
            header = self._session.headers([work.uid], sized=not bounded, bounded=bounded).get(work.uid)
            ours = header is not None and self._context.reader.may_be_ours(header.lines, self._context.rules)
            if header is None or not ours:
                self._settle_again(work, reading, came=header is not None)
                return
            head = self._session.whole_header(work.uid) if last_time else b""
            items = reading.fetch.items([work.uid], {work.uid: header})
        except MailboxUnavailable as fault:
            reason = NO_MEMORY if NO_MEMORY in str(fault) else HANGS_UP
            if last_time and head:
                self._give_up(work, reading, head, reason)
                self._delivery.settle()
            else:
                note_failure(self._context.engine, work, reason, self._context.clock())
            self._suspects.narrowed += 1  # it is not due again for a while
            raise
        unready = reading.fetch.unready.get(work.uid)
        if not items and last_time and (raw := (unready.raw if unready else b"") or head):
            self._give_up(work, reading, raw, unready.reason if unready else NO_BODY)
        else:
            self._settle_again(
                work, reading, tuple(items.values()), came=bool(items), reason=unready and unready.reason
            )

    def _settle_again(
        self, work: Pending, reading: FolderReading, items: Sequence[Item | NotOurs] = (), *, came: bool,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        """Hand over what came of a put-off mail, or note that nothing did though the mail is there."""
        context = self._context
        if not came and self._session.present([work.uid]):
            note_failure(context.engine, work, reason or NO_BODY, context.clock())
            return
        kept, _, look_alikes = reading.sort(items)
        self._delivery.submit(
            Submission(
                context.run_id, kept, int(came and not kept), done=(work,), after_store=context.after_store,
                look_alikes=look_alikes,
            )
        )  # fmt: skip

    def _give_up(self, work: Pending, reading: FolderReading, raw: bytes, reason: str) -> None:
        """Put into the quarantine what there is of a mail that will not come any more."""
        item = reading.fetch.given_up(work.uid, raw, f"{reason}, tried for {GIVEN_UP_AFTER.days} days")
        log.warning(
            "a mail never came; what there is of it goes to the quarantine",
            mailbox=work.mailbox, folder=work.folder, uid=work.uid, reason=reason,
        )  # fmt: skip
        self._delivery.submit(Submission(self._context.run_id, (item,), done=(work,)))

    def _pending(self, uid: int, action: Action, folder: Selected) -> Pending:
        return Pending(self._context.mailbox.name, folder.name, folder.uidvalidity, uid, action)

    def _done(self, work: Sequence[Pending]) -> None:
        self._delivery.submit(Submission(run_id=self._context.run_id, done=tuple(work)))


def _is_given_up(entry: PendingWork, now: datetime) -> bool:
    """Whether the next attempt is the last one of a mail that is ours: tried often, and for days."""
    return entry.attempts >= FEWEST_ATTEMPTS and now - entry.noted_at > GIVEN_UP_AFTER


def _is_due(entry: PendingWork, now: datetime) -> bool:
    if entry.tried_at is None:
        return True
    longest = HANG_UP_MINUTES if entry.reason == HANGS_UP else 60
    pause = timedelta(minutes=min(longest, 2 ** min(entry.attempts, 20)))
    # A clock that was wrong may have put the last attempt into the future.
    return not timedelta(0) <= now - entry.tried_at < pause
