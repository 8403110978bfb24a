"""What the daemon shows of itself at this moment: read from its parts in memory, never from the database."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from ingestor.archive.writer import Writer
from ingestor.intake.mailbox import MailboxThread
from ingestor.redaction import redact
from ingestor.settings import Settings, state_directory
from ingestor.watch.found import NO_SPACE, POLLS, STUCK, room

if TYPE_CHECKING:  # a daemon without [webhook] needs none of it
    from ingestor.intake.listener import Listener


def _nobody() -> Sequence[MailboxThread]:
    return ()


def _nothing() -> Iterable[str]:
    return ()


def _unknown() -> None:
    return None


@dataclass
class Live:
    """The daemon's parts, as far as they are there yet; any thread may read.

    `hanging` names the parts that finish no cycle, `differs` what somebody changed in the archive.
    """

    settings: Settings
    listener: "Listener | None" = None
    writer: Writer | None = None
    mailboxes: Callable[[], Sequence[MailboxThread]] = _nobody
    hanging: Callable[[], Iterable[str]] = _nothing
    credit: Callable[[], Decimal | None] = _unknown
    differs: str | None = None

    def archive_trouble(self) -> str | None:
        """Return why the archive takes no writes now, None where it does as far as is known.

        A writer that has nothing to write meets no full disk: so the disk is looked at.
        """
        if self.writer is None:
            return "not open yet"
        file = self.settings.database.file
        full = "its disk is full" if file is not None and _full(file.absolute().parent) else None
        return self.writer.trouble or full

    def spool_trouble(self) -> str | None:
        """Return why a POST cannot be kept in the spool now, None where it can."""
        if self.listener is None:
            return "there is no [webhook]"
        full = "its disk is full" if _full(state_directory(self.settings)) else None
        return self.listener.spool_trouble or full

    def not_ready(self) -> str | None:
        """Return why what comes cannot be made durable now, neither in the archive nor in the spool.

        A balancer must not drop a daemon whose database is away: it can still spool.
        """
        archive = self.archive_trouble()
        if archive is None:
            return None
        spool = self.spool_trouble()
        return None if spool is None else f"archive: {archive}; spool: {spool}"

    def finished(self) -> dict[str, float]:
        """Return by part when it last finished a cycle, by `time.monotonic()`."""
        parts = {f"mailbox {one.name}": one.progress for one in self.mailboxes()}
        if self.listener is not None:
            parts["webhook"] = self.listener.progress
        return parts

    def overdue(self, now: datetime) -> str | None:
        """Return in a line what is overdue at `now` (aware UTC), None where nothing is."""
        wrong = [f"{part} hangs" for part in self.hanging()]
        if (archive := self.archive_trouble()) is not None:
            wrong.append(f"archive: {archive}")
        polls = {one.name: one.poll_seconds for one in self.settings.mailbox}
        for one in self.mailboxes():
            since = one.last_success
            late = since is None or (now - since).total_seconds() > POLLS * polls.get(one.name, 60)
            # A mailbox that was never read is given its first tries.
            if one.state in STUCK or (late and one.state not in {"starting", "watching", "polling"}):
                wrong.append(f"mailbox {one.name}: {one.state}")
        return redact("; ".join(wrong)) or None


def _full(folder: Path) -> bool:
    device, free = room(folder)
    return device is not None and free < NO_SPACE
