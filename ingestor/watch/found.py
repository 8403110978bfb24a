"""How the sources, the spool and the disk fare, as `ingestor status` and the daemon's own watch see them.

And how many SMS came today, against how many usually come; and what the daemon shows of itself at this moment
(`Live`), read from its parts in memory, never from the database.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import Engine, bindparam, text

from ingestor.archive.engine import reading
from ingestor.archive.mailbox_state import Source, senders_checked
from ingestor.archive.tables import Instant, WholeSecond
from ingestor.intake.listener.spool import corrupt, depth, moved, oldest
from ingestor.redaction import redact
from ingestor.settings import Settings, state_directory

if TYPE_CHECKING:  # `status` needs none of it, and a daemon without [webhook] no listener
    from ingestor.archive.writer import Writer
    from ingestor.intake.listener.listener import Listener
    from ingestor.intake.mailbox.thread import MailboxThread


POLLS: Final = 3  # a source that has not succeeded for so many polls is late
SPOOL_SECONDS: Final = 300
"""A POST that was acknowledged and is not in the archive after so long needs a person."""

LITTLE_SPACE: Final = 200 * 2**20
NO_SPACE: Final = 8 * 2**20
"""With less than this a disk counts as full: SQLite's log alone grows to 4 MiB between two looks."""

NO_TOKEN: Final = frozenset({"needs_login", "needs_consent", "needs_secret", "clock"})
"""States of a mailbox that gets no access token before a person has done something."""

STUCK: Final = NO_TOKEN | {"refused", "misconfigured", "no folder", "failing", "hanging", "no spool"}
"""States that do not pass by themselves: somebody is needed at once, not only after three polls."""

ENDPOINT: Final = "endpoint"
PROVEN_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Report(Source):
    """A source as it fares; `late` says that it needs a person."""

    late: bool


class Spool(NamedTuple):
    """POSTs that wait, and files set aside as damaged (None: we may not look); `late`: a person is needed."""

    waiting: int | None
    corrupt: int | None
    oldest: datetime | None = None
    late: bool = False
    moved: str | None = None


class Disk(NamedTuple):
    """How many bytes are free for us in a folder that we write to."""

    folder: str
    free: int


def judge(settings: Settings, noted: list[Source], now: datetime) -> list[Report]:
    """Return what is to be said of each source at `now` (aware UTC).

    Every configured mailbox counts, noted or not. A mailbox that was noted once and is configured no more
    is listed, and never late; without anything configured (the archive was named by its URL alone) every
    noted one counts. A POST has no time at which it is due: an endpoint is never late.
    """
    configured = {mailbox.name: mailbox for mailbox in settings.mailbox}
    webhook = settings.webhook
    endpoints = {f"{ENDPOINT} {name}" for name, _ in webhook.named} if webhook else set()
    reports = []
    for source in noted:
        mailbox = configured.pop(source.name, None) if source.kind == "mailbox" else None
        poll = mailbox.poll_seconds if mailbox else source.poll_seconds
        gone = {
            "mailbox": mailbox is None, "webhook": webhook is None, ENDPOINT: source.name not in endpoints,
        }.get(source.kind, False)  # fmt: skip
        dropped = bool(settings.mailbox or webhook) and gone
        late = not dropped and poll is not None and _overdue(source.last_success, poll, now)
        late = late or (not dropped and _stuck(source))
        late = late or source.state == "changed"  # somebody's hand was in the archive
        state = "not configured" if dropped else source.state
        reports.append(Report(**asdict(replace(source, state=state, poll_seconds=poll)), late=late))
    for name, mailbox in configured.items():
        never = Source(name, "mailbox", "never read", None, mailbox.poll_seconds, None, now)
        reports.append(Report(**asdict(never), late=True))
    return sorted(reports, key=lambda report: (report.kind, report.name))


def _overdue(last_success: datetime | None, poll_seconds: int, now: datetime) -> bool:
    # A success of the future was noted under a clock that was wrong: it must not count until that day.
    return last_success is None or abs((now - last_success).total_seconds()) > POLLS * poll_seconds


def _stuck(source: Source) -> bool:
    """Say whether waiting does not help; a mailbox that is read has a detail where a folder is missing."""
    if source.kind == ENDPOINT:
        return False
    read = source.kind == "mailbox" and source.state in {"watching", "polling"}
    return source.state in STUCK or (read and source.detail is not None)


class Senders(NamedTuple):
    """Of how many mails of a mailbox in PROVEN_DAYS days the sender was proven, not, or could not be told.

    `propose` says that policy = "require" would have kept nothing of it out; `says` is all of it in words.
    """

    mailbox: str
    policy: str
    proven: int
    unproven: int
    untold: int
    propose: bool
    says: str


def senders_of(settings: Settings, engine: Engine, now: datetime) -> list[Senders]:
    """Return how the check of the senders went at `now` (aware UTC), of each mailbox that has one."""
    found = []
    for mailbox in settings.mailbox:
        if mailbox.trust is None:
            continue
        since = now - timedelta(days=PROVEN_DAYS)
        counts, longer = senders_checked(engine, mailbox.name, since)
        proven, unproven, untold = counts[True], counts[False], counts[None]
        mails, policy = proven + unproven + untold, mailbox.trust.policy
        propose = policy == "record" and longer and 0 < proven == mails
        says = f"{proven:,} of {mails:,} mails in {PROVEN_DAYS} days" if mails else "no mail was judged yet"
        says += f" ({100 * proven // mails} %)" if mails else ""
        says += f", {untold:,} could not be told" if untold else ""
        says += '; every one: policy = "require" is safe, and keeps forged mail out' if propose else ""
        found.append(Senders(mailbox.name, policy, proven, unproven, untold, propose, says))
    return found


def spool_of(settings: Settings, now: datetime) -> Spool | None:
    """Return how the listener's spool stands, None where there is none."""
    folder = state_directory(settings) / "spool"
    try:
        elsewhere = moved(folder)
        if not folder.is_dir() and elsewhere is None:
            return None
        damaged, since = corrupt(folder), oldest(folder)
        waits = since is not None and abs((now - since).total_seconds()) > SPOOL_SECONDS
        late = bool(damaged) or waits or elsewhere is not None
        return Spool(depth(folder), damaged, since, late, elsewhere)
    except PermissionError:
        return Spool(None, None)


def disks_of(settings: Settings) -> list[Disk]:
    """Return the folders of ours (archive's file, state directory) with little space, once a file system."""
    file = settings.database.file
    folders = [file.absolute().parent] if file is not None else []
    found: dict[int, Disk] = {}
    for folder in (*folders, state_directory(settings).absolute()):
        device, free = room(folder)
        if device is not None and free < LITTLE_SPACE:
            found.setdefault(device, Disk(str(folder), free))
    return list(found.values())


def room(folder: Path) -> tuple[int | None, int]:
    """Return the file system of `folder` (None where we cannot see it) and how many bytes are free there."""
    try:
        return folder.stat().st_dev, shutil.disk_usage(folder).free
    except OSError:  # not there, or not for us to see: other findings say so
        return None, 0


class Today(NamedTuple):
    """How many SMS were received today, and by this hour on a usual day; None where the archive is young."""

    sms: int
    usual: int | None


def today(engine: Engine, midnight: datetime, now: datetime) -> Today:
    """Return how many SMS were received from `midnight` to `now` (aware), and how many usually are.

    Usual is the median over the same hours of the fourteen days before; an archive whose first SMS is of the
    last seven days has no usual yet. Each stretch is counted over the index of `received_at`.
    """
    # As text: SQLAlchemy takes 5 ms to write down what it is given in parts.
    counted = "(SELECT count(*) FROM sms WHERE received_at >= :begin{0} AND received_at < :end{0})"
    stretches = ", ".join(counted.format(days) for days in range(15))
    query = text(f"SELECT (SELECT min(received_at) FROM sms) AS first, {stretches}")  # noqa: S608 - our own words
    moments = {
        f"{name}{days}": moment - timedelta(days)
        for name, moment in (("begin", midnight), ("end", now))
        for days in range(15)
    }
    query = query.bindparams(*(bindparam(name, when, WholeSecond) for name, when in moments.items()))
    with reading(engine) as connection:
        begun, came, *before = connection.execute(query.columns(first=Instant())).one()
    young = begun is None or begun > midnight - timedelta(days=7)
    return Today(came, None if young else sorted(before)[len(before) // 2])


@dataclass
class Live:
    """The daemon's parts, as far as they are there yet; any thread may read.

    `hanging` names the parts that finish no cycle, `differs` what somebody changed in the archive.
    """

    settings: Settings
    listener: "Listener | None" = None
    writer: "Writer | None" = None
    mailboxes: Callable[[], Sequence["MailboxThread"]] = tuple
    hanging: Callable[[], Iterable[str]] = tuple
    credit: Callable[[], Decimal | None] = lambda: None
    differs: str | None = None

    def archive_trouble(self) -> str | None:
        """Return why the archive takes no writes now, None where it does as far as is known: a writer without
        work meets no full disk, so the disk is looked at.
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
        return self.listener.keeper.trouble or full

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
            late = _overdue(one.last_success, polls.get(one.name, 60), now)
            # A mailbox that was never read is given its first tries.
            if one.state in STUCK or (late and one.state not in {"starting", "watching", "polling"}):
                wrong.append(f"mailbox {one.name}: {one.state}")
        return redact("; ".join(wrong)) or None


def _full(folder: Path) -> bool:
    device, free = room(folder)
    return device is not None and free < NO_SPACE
