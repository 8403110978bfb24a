"""What is pending in a folder: mails to fetch once more, and what to do on the server after a commit.

Nothing here happens before the commit that queued it, everything survives a crash, and what was done twice
does no harm: a mail that is gone is done.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from ingestor.archive.cursors import PendingWork, note_failure, pending_work
from ingestor.archive.items import Action, Item, Pending, Submission
from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.acting import Acting
from ingestor.intake.mailbox.context import HANGS_UP, NO_MEMORY, Context, Memory
from ingestor.intake.mailbox.delivery import Delivery, Unwritable
from ingestor.intake.mailbox.fetching import NO_BODY, NOTICE
from ingestor.intake.mailbox.reading import FolderReading
from ingestor.intake.mailbox.session import Selected, Session
from ingestor.providers.contract import NotOurs

MOST_FETCHES: Final = 100
"""Put-off mails tried in one cycle; they go one by one, after everything else."""

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
        self._acting = Acting(context, session, delivery, memory)
        self._suspects = memory.suspects

    def called_for(self) -> bool:
        """Renew the right to act, or try to get it; say whether something new waits to be done with it."""
        return self._acting.called_for()

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
        self._acting.work_off(work, reading)
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

    def _fetch_again(self, entry: PendingWork, reading: FolderReading) -> None:
        """Fetch one put-off mail with the utmost care; a further failure waits longer each time."""
        work = entry.work
        last_time = _is_given_up(entry, self._context.clock())
        head = b""
        try:
            # Every other time only: a server may refuse to give a header in part.
            bounded = entry.attempts % 2 == 1
            header = self._session.headers([work.uid], sized=not bounded, bounded=bounded).get(work.uid)
            if header is None or not reading.fetch.concerns(header):
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

    def _done(self, work: Sequence[Pending]) -> None:
        self._delivery.submit(Submission(run_id=self._context.run_id, done=tuple(work)))


def _is_given_up(entry: PendingWork, now: datetime) -> bool:
    """Whether the next attempt is the last one of a mail that is ours: tried often, and for days."""
    return entry.attempts >= FEWEST_ATTEMPTS and now - entry.noted_at > GIVEN_UP_AFTER


def _is_due(entry: PendingWork, now: datetime) -> bool:
    if entry.tried_at is None:
        return True
    longest = HANG_UP_MINUTES if entry.reason == HANGS_UP else 60
    pause = timedelta(minutes=min(longest, 2 ** min(entry.attempts - 1, 20)))
    # A clock that was wrong may have put the last attempt into the future.
    return not timedelta(0) <= now - entry.tried_at < pause
