"""What is done on the server to mails whose SMS are durable: to those very mails, and to no others."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from ingestor.archive.cursors import PendingWork, actions_pending, note_begun
from ingestor.archive.engine import reading as reading_archive
from ingestor.archive.inserts import sms_of_mails
from ingestor.archive.items import Action, Submission
from ingestor.archive.rows import keyed, mail_content_key
from ingestor.errors import IngestorError, MailboxUnavailable
from ingestor.intake.mailbox.context import Context, Memory
from ingestor.intake.mailbox.delivery import Delivery
from ingestor.intake.mailbox.pieces import PIECE_BYTES
from ingestor.intake.mailbox.reading import FolderReading
from ingestor.intake.mailbox.session import Header, Session
from ingestor.intake.mailbox.words import Refused

AT_ONCE: Final = 100
"""Mails acted on in one command: one that hangs up half-way leaves so many to be looked for."""

LOOKED_AT: Final = 2000
"""The newest mails of the target among which copies of an attempt that broke off are looked for."""

log = structlog.get_logger()


class Acting:
    """Acts on the mails of the folder that is open, as far as the lease of the mailbox allows."""

    def __init__(self, context: Context, session: Session, delivery: Delivery, memory: Memory) -> None:
        self._context = context
        self._session = session
        self._delivery = delivery
        self._memory = memory

    def called_for(self) -> bool:
        """Renew the lease, or try to take it; say whether something waits that was not seen before.

        Another daemon may have stored it, or have had the lease and died. This shows a dead line, too: who
        cannot do it renews no longer.
        """
        memory, context = self._memory, self._context
        had = memory.lease.ours
        if context.after_store is None or not memory.lease.held():
            return False
        try:
            waiting = actions_pending(context.engine, context.mailbox.name)
        except IngestorError:
            return False
        known, memory.waiting = memory.waiting, waiting
        return waiting > 0 and (not had or waiting != known)

    def work_off(self, work: Sequence[PendingWork], reading: FolderReading) -> None:
        """Do what `work` says in the folder of `reading`; what is refused stays pending."""
        for action in (Action.SEEN, Action.MOVE, Action.DELETE):
            entries = [entry for entry in work if entry.work.action is action]
            for begin in range(0, len(entries), AT_ONCE):
                if not self._act(action, entries[begin : begin + AT_ONCE], reading):
                    break
        reading.fresh.clear()

    def _act(self, action: Action, entries: Sequence[PendingWork], reading: FolderReading) -> bool:
        """Act on some mails; return whether it makes sense to go on with others."""
        folder = reading.folder.name
        if not reading.folder.writable:
            self._complain(folder, action, len(entries), "the folder can only be read")
            return False
        if not self._memory.lease.held():
            self._memory.lease.stand_by(len(entries))
            return False
        perform: Callable[[list[PendingWork], FolderReading], None]
        perform = {Action.SEEN: self._see, Action.MOVE: self._move, Action.DELETE: self._delete}[action]
        try:
            them, unknown = self._verified(entries, reading)
            if them:
                perform(them, reading)
        except Refused as refusal:
            self._complain(folder, action, len(entries), str(refusal))
            return False
        self._memory.complained.discard((folder, action))
        done = tuple(entry.work for entry in entries if entry.work.uid not in unknown)
        self._delivery.submit(Submission(run_id=self._context.run_id, done=done))
        return True

    def _verified(
        self, entries: Sequence[PendingWork], reading: FolderReading
    ) -> tuple[list[PendingWork], set[int]]:
        """Return which of `entries` name the very mail that is in the archive, and the UIDs that do not tell.

        A UID means the same mail for as long as the folder stays open, so what was stored since needs no
        look. Else a restored server may have given it to another mail, and need not say so.
        """
        fresh = [entry for entry in entries if entry.work.uid in reading.fresh]
        old = {entry.work.uid: entry for entry in entries if entry.work.uid not in reading.fresh}
        present = self._session.present(sorted(old))
        headers = self._session.headers(sorted(present)) if present else {}
        small = {uid: header for uid, header in headers.items() if (header.size or 0) <= PIECE_BYTES}
        keys = self._content_keys(small, reading)
        theirs = [uid for uid in keys if self._is_stored(old[uid], keys[uid])]
        unknown = (present - headers.keys()) | (small.keys() - keys.keys())
        if others := len(headers.keys() - unknown - set(theirs)):
            log.warning(
                "pending work names other mails than were stored; they are left alone",
                mailbox=self._context.mailbox.name, folder=reading.folder.name, count=others,
            )  # fmt: skip
        return sorted([*fresh, *(old[uid] for uid in theirs)], key=lambda entry: entry.work.uid), unknown

    def _content_keys(self, headers: dict[int, Header], reading: FolderReading) -> dict[int, bytes]:
        """Return the plain content key of each mail that comes now."""
        groups = reading.fetch.groups(headers)
        return {
            uid: mail_content_key(raw)
            for group in groups for uid, raw in self._session.bodies(group).items()
        }  # fmt: skip

    def _is_stored(self, entry: PendingWork, content_key: bytes) -> bool:
        """Say whether a mail with `content_key` is the one that `entry` was noted for."""
        secret = self._memory.archive_key
        if entry.work.content_key is not None:
            return entry.work.content_key == keyed(content_key, secret)
        with reading_archive(self._context.engine) as connection:  # noted by an earlier version
            return sms_of_mails(connection, secret, [content_key])[0] is not None

    def _complain(self, folder: str, action: Action, count: int, reason: str) -> None:
        if (folder, action) not in self._memory.complained:
            self._memory.complained.add((folder, action))
            log.error(
                "the server refuses what is asked for after storing; the mails stay, and it is tried again",
                mailbox=self._context.mailbox.name, folder=folder, action=action.value, count=count,
                reason=reason,
            )  # fmt: skip

    def _see(self, entries: list[PendingWork], _: FolderReading) -> None:
        self._session.flag(_uids(entries), b"\\Seen")

    def _delete(self, entries: list[PendingWork], _: FolderReading) -> None:
        self._session.flag(_uids(entries), b"\\Deleted")
        if self._session.can_expunge:
            self._session.expunge(_uids(entries))

    def _move(self, entries: list[PendingWork], reading: FolderReading) -> None:
        target = self._target()
        if reading.folder.name == target:
            return  # a mail moved to where it is would come back as a new one, for ever
        if self._session.can_move and self._moved(entries, target):
            return
        copied = self._copied(entries, target, reading)
        if not reading.fresh:  # the folder was left for a moment: who says that it is the same?
            entries, _ = self._verified(entries, reading)
        if not self._memory.lease.held():
            raise MailboxUnavailable("another daemon acts on the mailbox now")
        if left := [entry for entry in entries if entry.work.uid not in copied]:
            note_begun(self._context.engine, [entry.work for entry in left], self._context.clock())
            self._session.copy(_uids(left), target)
        self._delete(entries, reading)

    def _moved(self, entries: list[PendingWork], target: str) -> bool:
        """Move at one go; return False where the server offers that and refuses it, as some do for ever."""
        try:
            self._session.move(_uids(entries), target)
        except Refused as refusal:
            if not self._memory.move_refused_told:
                self._memory.move_refused_told = True
                log.warning(
                    "the server offers MOVE and refuses it; mails are copied, marked as deleted and expunged",
                    mailbox=self._context.mailbox.name, reason=str(refusal),
                )  # fmt: skip
            return False
        return True

    def _copied(self, entries: list[PendingWork], target: str, reading: FolderReading) -> set[int]:
        """Return the UIDs of those mails of which an earlier attempt left a copy in the target.

        It may have broken off after COPY, or after the mark as deleted. Whoever copies notes it before, so
        that only those mails are looked for, whoever it was.
        """
        copied = self._session.present(_uids(entries), "DELETED")
        again = [e.work for e in entries if e.tried_at is not None and e.work.uid not in copied]
        if not again:
            return copied
        try:
            found = self._copies(Counter(work.content_key or b"" for work in again), target)
        finally:
            reading.reopen()
        for work in again:
            key = work.content_key or b""
            if found[key] > 0:
                found[key] -= 1
                copied.add(work.uid)
        return copied

    def _copies(self, wanted: Counter[bytes], target: str) -> Counter[bytes]:
        """Return how often each of the `wanted` mails stands among the newest of the target."""
        session, secret = self._session, self._memory.archive_key
        found: Counter[bytes] = Counter()
        last = session.select(target, writable=False).exists
        for end in range(last, max(0, last - LOOKED_AT), -AT_ONCE):
            headers = session.headers(session.numbered(max(1, end - AT_ONCE + 1), end))
            small = [uid for uid, header in headers.items() if (header.size or 0) <= PIECE_BYTES]
            for begin in range(0, len(small), 20):
                bodies = session.bodies(small[begin : begin + 20])
                found.update(keyed(mail_content_key(raw), secret) for raw in bodies.values())
            if wanted <= found:
                break
        return found

    def _target(self) -> str:
        name = self._context.mailbox.move_to or ""
        found = self._session.folder_named(name)
        if found is None:
            found = self._session.create_folder(name)
            log.info("folder created to move mails to", mailbox=self._context.mailbox.name, folder=found)
        return found


def _uids(entries: Sequence[PendingWork]) -> list[int]:
    return [entry.work.uid for entry in entries]
