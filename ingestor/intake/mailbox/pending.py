"""What is pending in a folder: mails to fetch once more, and what to do on the server after a commit.

Everything here survives a crash, and what was done twice does no harm: a mail that is gone is done. Acted on
are those very mails whose SMS are durable, and no others.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from ingestor.archive.columns import in_parts
from ingestor.archive.engine import reading as reading_archive
from ingestor.archive.inserts import sms_of_mails
from ingestor.archive.items import Action, Item, Pending, Submission
from ingestor.archive.mailbox_state import (
    PendingWork,
    actions_pending,
    note_begun,
    note_failure,
    pending_work,
)
from ingestor.archive.rows import keyed, mail_content_key
from ingestor.errors import IngestorError, MailboxUnavailable
from ingestor.intake.mailbox.answers import Refused, Selected
from ingestor.intake.mailbox.context import HANGS_UP, NO_MEMORY, Context, Unwritable
from ingestor.intake.mailbox.fetch import CAME, CUT, NO_BODY
from ingestor.intake.mailbox.reading import FolderReading
from ingestor.intake.mailbox.session import PIECE_BYTES
from ingestor.providers.contract import NotOurs

MOST_FETCHES: Final = 100
"""Put-off mails tried in one cycle; they go one by one, after everything else."""

GIVEN_UP_AFTER: Final = timedelta(days=3)
FEWEST_ATTEMPTS: Final = 6
"""So often, and for so long, a mail of ours is fetched again before what there is of it is quarantined."""

HANG_UP_MINUTES: Final = 12 * 60
"""The longest pause between two attempts that cost a connection each."""

AT_ONCE: Final = 100
"""Mails acted on in one command: one that hangs up half-way leaves so many to be looked for."""

LOOKED_AT: Final = 2000
"""The newest mails of the target among which copies of an attempt that broke off are looked for."""


def put_off(context: Context, folder: Selected) -> list[int]:
    """Return the mails of `folder` that are known to break connections, or the program."""
    work = pending_work(context.engine, context.mailbox.name, folder.name)
    return [
        entry.work.uid for entry in work
        if entry.work.action is Action.FETCH and entry.work.uidvalidity == folder.uidvalidity
        and entry.attempts and entry.reason not in CAME
    ]  # fmt: skip


def work_off(reading: FolderReading) -> None:
    """Do what is pending in the folder of `reading`, as far as the server lets us."""
    context = reading.context
    work = pending_work(context.engine, context.mailbox.name, reading.folder.name)
    if not work:
        return
    work = _without_stale(work, reading)
    _act_on(work, reading)
    now = context.clock()
    due = [entry for entry in work if entry.work.action is Action.FETCH and _is_due(entry, now)]
    for entry in due[:MOST_FETCHES]:
        _fetch_again(entry, reading)
        try:
            reading.delivery.settle()
        except Unwritable as fault:
            note_failure(context.engine, entry.work, str(fault), context.clock())
            raise
    reading.delivery.settle()


def _without_stale(work: Sequence[PendingWork], reading: FolderReading) -> list[PendingWork]:
    """Take off what means nothing any more: UIDs of an old UIDVALIDITY, actions no longer asked for."""
    context, folder = reading.context, reading.folder
    renumbered = [e.work for e in work if e.work.uidvalidity != folder.uidvalidity]
    unwanted = [
        e.work
        for e in work
        if e.work.uidvalidity == folder.uidvalidity
        and e.work.action not in (Action.FETCH, context.after_store)
    ]
    for dropped, why in (
        (renumbered, "the folder has a new UIDVALIDITY, and is read again as a whole"),
        (unwanted, "after_store no longer asks for it"),
    ):
        if dropped:
            reading.log.info("pending work dropped", why=why, count=len(dropped))
            _done(dropped, reading)
    gone = set(renumbered + unwanted)
    return [entry for entry in work if entry.work not in gone]


def _fetch_again(entry: PendingWork, reading: FolderReading) -> None:
    """Fetch one put-off mail with the utmost care; a further failure waits longer each time."""
    work, context, session = entry.work, reading.context, reading.session
    last_time = entry.attempts >= FEWEST_ATTEMPTS and context.clock() - entry.noted_at > GIVEN_UP_AFTER
    head = b""
    try:
        # Every other time only: a server may refuse to give a header in part. A cut mail is told by its size.
        bounded = entry.attempts % 2 == 1 and entry.reason != CUT
        header = session.headers([work.uid], sized=not bounded, bounded=bounded, believed=last_time).get(
            work.uid
        )
        if header is None or not reading.fetch.concerns(header):
            _settle_again(work, reading, came=header is not None)
            return
        head = session.whole_header(work.uid) if last_time else b""
        items = reading.fetch.items([work.uid], {work.uid: header})
    except MailboxUnavailable as fault:
        reason = NO_MEMORY if NO_MEMORY in str(fault) else HANGS_UP
        if last_time and head:
            _give_up(work, reading, head, reason)
            reading.delivery.settle()
        else:
            note_failure(context.engine, work, reason, context.clock())
        context.memory.suspects.narrowed += 1  # it is not due again for a while
        raise
    unready = reading.fetch.unready.get(work.uid)
    if not items and last_time and (raw := (unready.raw if unready else b"") or head):
        _give_up(work, reading, raw, unready.reason if unready else NO_BODY)
    else:
        _settle_again(
            work, reading, tuple(items.values()), came=bool(items), reason=unready and unready.reason
        )


def _settle_again(
    work: Pending, reading: FolderReading, items: Sequence[Item | NotOurs] = (), *, came: bool,
    reason: str | None = None,
) -> None:  # fmt: skip
    """Hand over what came of a put-off mail, or note that nothing did though the mail is there."""
    context = reading.context
    if not came and reading.session.present([work.uid]):
        note_failure(context.engine, work, reason or NO_BODY, context.clock())
        return
    kept, _, look_alikes = reading.sort(items)
    reading.delivery.submit(
        Submission(
            context.run_id, kept, int(came and not kept), done=(work,), after_store=context.after_store,
            look_alikes=look_alikes,
        )
    )  # fmt: skip


def _give_up(work: Pending, reading: FolderReading, raw: bytes, reason: str) -> None:
    item = reading.fetch.given_up(work.uid, raw, f"{reason}, tried for {GIVEN_UP_AFTER.days} days")
    reading.log.warning(
        "a mail never came; what there is of it goes to the quarantine", uid=work.uid, reason=reason
    )
    reading.delivery.submit(Submission(reading.context.run_id, (item,), done=(work,)))


def _done(work: Sequence[Pending], reading: FolderReading) -> None:
    reading.delivery.submit(Submission(run_id=reading.context.run_id, done=tuple(work)))


def called_for(context: Context) -> bool:
    """Renew the lease, or try to take it; say whether something waits that was not seen before.

    Another daemon may have stored it, or have died. Who cannot do this has a dead line, and renews no longer.
    """
    memory, lease = context.memory, context.lease
    had = lease.ours
    if context.after_store is None or not lease.held():
        return False
    try:
        waiting = actions_pending(context.engine, context.mailbox.name)
    except IngestorError:
        return False
    known, memory.waiting = memory.waiting, waiting
    return waiting > 0 and (not had or waiting != known)


def _act_on(work: Sequence[PendingWork], reading: FolderReading) -> None:
    for action in (Action.SEEN, Action.MOVE, Action.DELETE):
        entries = [entry for entry in work if entry.work.action is action]
        for some in in_parts(entries, AT_ONCE):
            if not _act(action, some, reading):
                break
    reading.fresh.clear()


def _act(action: Action, entries: Sequence[PendingWork], reading: FolderReading) -> bool:
    lease = reading.context.lease
    if not reading.folder.writable:
        _complain(action, len(entries), "the folder can only be read", reading)
        return False
    if not lease.held():
        lease.stand_by(len(entries))
        return False
    perform = {Action.SEEN: _see, Action.MOVE: _move, Action.DELETE: _delete}[action]
    try:
        them, unknown = _verified(entries, reading)
        if them:
            perform(them, reading)
    except Refused as refusal:
        _complain(action, len(entries), str(refusal), reading)
        return False
    reading.context.memory.told.discard(("refused", reading.folder.name, action.value))
    _done([entry.work for entry in entries if entry.work.uid not in unknown], reading)
    return True


def _verified(entries: Sequence[PendingWork], reading: FolderReading) -> tuple[list[PendingWork], set[int]]:
    """Return which of `entries` name the very mail that is in the archive, and the UIDs that do not tell.

    What was stored while the folder is open needs no look. Else a restored server may have given the UID to
    another mail, and need not say so.
    """
    fresh = [entry for entry in entries if entry.work.uid in reading.fresh]
    old = {entry.work.uid: entry for entry in entries if entry.work.uid not in reading.fresh}
    present = reading.session.present(sorted(old))
    headers = reading.session.headers(sorted(present)) if present else {}
    small = {uid: header for uid, header in headers.items() if (header.size or 0) <= PIECE_BYTES}
    keys = {  # the plain content key of each mail that comes now
        uid: mail_content_key(raw)
        for group in reading.fetch.groups(small) for uid, raw in reading.session.bodies(group).items()
    }  # fmt: skip
    theirs = [uid for uid in keys if _is_stored(old[uid], keys[uid], reading.context)]
    unknown = (present - headers.keys()) | (small.keys() - keys.keys())
    if others := len(headers.keys() - unknown - set(theirs)):
        reading.log.warning(
            "pending work names other mails than were stored; they are left alone", count=others
        )
    return sorted([*fresh, *(old[uid] for uid in theirs)], key=lambda entry: entry.work.uid), unknown


def _is_stored(entry: PendingWork, content_key: bytes, context: Context) -> bool:
    secret = context.memory.archive_key
    if entry.work.content_key is not None:
        return entry.work.content_key == keyed(content_key, secret)
    with reading_archive(context.engine) as connection:  # noted by an earlier version
        return sms_of_mails(connection, secret, [content_key])[0] is not None


def _complain(action: Action, count: int, reason: str, reading: FolderReading) -> None:
    if reading.context.memory.is_news("refused", reading.folder.name, action.value):
        reading.log.error(
            "the server refuses what is asked for after storing; the mails stay, and it is tried again",
            action=action.value, count=count, reason=reason,
        )  # fmt: skip


def _see(entries: list[PendingWork], reading: FolderReading) -> None:
    reading.session.flag(_uids(entries), b"\\Seen")


def _delete(entries: list[PendingWork], reading: FolderReading) -> None:
    reading.session.flag(_uids(entries), b"\\Deleted")
    if reading.session.can_expunge:
        reading.session.expunge(_uids(entries))


def _move(entries: list[PendingWork], reading: FolderReading) -> None:
    context, session = reading.context, reading.session
    target = _target(reading)
    if reading.folder.name == target:
        return  # a mail moved to where it is would come back as a new one, for ever
    if session.can_move and _moved(entries, target, reading):
        return
    copied = _copied(entries, target, reading)
    if not reading.fresh:  # the folder was left for a moment: who says that it is the same?
        entries, _ = _verified(entries, reading)
    if not context.lease.held():
        raise MailboxUnavailable("another daemon acts on the mailbox now")
    if left := [entry for entry in entries if entry.work.uid not in copied]:
        note_begun(context.engine, [entry.work for entry in left], context.clock())
        session.copy(_uids(left), target)
    _delete(entries, reading)


def _moved(entries: list[PendingWork], target: str, reading: FolderReading) -> bool:
    """Move at one go; return False where the server offers that and refuses it, as some do for ever."""
    try:
        reading.session.move(_uids(entries), target)
    except Refused as refusal:
        if reading.context.memory.is_news("MOVE refused"):
            reading.log.warning(
                "the server offers MOVE and refuses it; mails are copied, marked as deleted and expunged",
                reason=str(refusal),
            )
        return False
    return True


def _copied(entries: list[PendingWork], target: str, reading: FolderReading) -> set[int]:
    """Return the UIDs of those mails of which an earlier attempt left a copy in the target.

    It may have broken off after COPY, or after the mark as deleted. Whoever copies notes it before, so only
    those mails are looked for.
    """
    copied = reading.session.present(_uids(entries), "DELETED")
    again = [e.work for e in entries if e.tried_at is not None and e.work.uid not in copied]
    if not again:
        return copied
    try:
        found = _copies(Counter(work.content_key or b"" for work in again), target, reading)
    finally:
        reading.reopen()
    for work in again:
        key = work.content_key or b""
        if found[key] > 0:
            found[key] -= 1
            copied.add(work.uid)
    return copied


def _copies(wanted: Counter[bytes], target: str, reading: FolderReading) -> Counter[bytes]:
    session, secret = reading.session, reading.context.memory.archive_key
    found: Counter[bytes] = Counter()
    last = session.select(target, writable=False).exists
    for end in range(last, max(0, last - LOOKED_AT), -AT_ONCE):
        headers = session.headers(session.numbered(max(1, end - AT_ONCE + 1), end))
        small = [uid for uid, header in headers.items() if (header.size or 0) <= PIECE_BYTES]
        for some in in_parts(small, 20):
            bodies = session.bodies(some)
            found.update(keyed(mail_content_key(raw), secret) for raw in bodies.values())
        if wanted <= found:
            break
    return found


def _target(reading: FolderReading) -> str:
    """Return the server's name of the folder that mails are moved to; it is made where there is none."""
    name = reading.context.mailbox.move_to or ""
    found = reading.session.folder_named(name)
    if found is None:
        found = reading.session.create_folder(name)
        reading.context.log.info("folder created to move mails to", folder=found)
    return found


def _uids(entries: Sequence[PendingWork]) -> list[int]:
    return [entry.work.uid for entry in entries]


def _is_due(entry: PendingWork, now: datetime) -> bool:
    if entry.tried_at is None:
        return True
    longest = HANG_UP_MINUTES if entry.reason == HANGS_UP else 60
    pause = timedelta(minutes=min(longest, 2 ** min(entry.attempts - 1, 20)))
    # A clock that was wrong may have put the last attempt into the future.
    return not timedelta(0) <= now - entry.tried_at < pause
