"""What is somebody's business among what is found: each trouble with its sentence and what to do about it.

One list serves all: the first sentence of `ingestor status`, its exit code, and Nagios. Some of it nothing
says by itself: a source from which SMS should have come, and a clock that is hours off.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final, NamedTuple

from sqlalchemy import Engine, bindparam, select, text

from ingestor.archive import tables
from ingestor.archive.engine import reading
from ingestor.archive.queries import LookAlikes, Refusals, Standing, whole_hours_off
from ingestor.archive.tables import WholeSecond
from ingestor.numbers import last_four
from ingestor.record import Channel
from ingestor.settings import Settings
from ingestor.settings.replies import DAYS
from ingestor.settings.watch import Expect
from ingestor.watch.found import NO_SPACE, NO_TOKEN, Disk, Report, Spool, Today

ENDS_SOON: Final = timedelta(days=14)
"""How long before its end a secret or certificate is somebody's business."""

_FIXES = {
    "refused": "mend its password, then `systemctl reload ingestor`",
    "needs_login": "run `ingestor login MAILBOX`, then `systemctl reload ingestor`",
    "needs_consent": "let its administrator agree, then `systemctl reload ingestor`",
    "needs_secret": "put a new secret in place, then `systemctl restart ingestor`",
    "clock": "run `timedatectl set-ntp true`",
    "misconfigured": "run `ingestor check`, mend the configuration, then `systemctl reload ingestor`",
    "no folder": "correct `folders` in the configuration, or make the folder on the server",
    "failing": "run `ingestor check`; the log has the rest",
    "hanging": "run `systemctl restart ingestor`",
    "no spool": "make room, or give the spool's folder to the service's user",
    "changed": "run `ingestor check`, and `ingestor db repair` for what is ours",
    "unreachable": "look at the network and the server; it is tried again by itself",
    "paused": "see ANSWERS.md: mend what paused it, and it goes on by itself",
    "clock is off": "look at [agile] timezone, and at the machine's clock",
    "waiting": "start the database, or make room for it",
}


class Trouble(NamedTuple):
    """One thing that is not as it should be.

    `condition` is its kind (`source`, `disk`…), `subject` what it is about, `says` the sentence, `fix` what
    to do. `grave`: SMS are late or may be lost, so somebody is needed now. `since` is aware UTC. `host` is
    set where it concerns that machine alone.
    """

    condition: str
    subject: str
    says: str
    fix: str
    grave: bool = True
    since: datetime | None = None
    host: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.says}"


def of_sources(reports: Iterable[Report]) -> list[Trouble]:
    """Return a trouble for each source that needs a person."""
    return [
        Trouble(
            _condition(one), f"{one.kind} {one.name}" if one.kind != one.name else one.name,
            f"{one.state}{f' ({one.detail})' if one.detail else ''}"
            if one.state in _FIXES or one.detail else f"late ({one.state})",
            _FIXES.get(one.state, "see `ingestor check`"), since=one.last_success,
        )
        for one in reports if one.late
    ]  # fmt: skip


def _condition(report: Report) -> str:
    if report.kind == "archive":
        return "archive differs"
    if report.state in NO_TOKEN:
        return "needs login"
    if report.kind == "answers":
        return "answers paused"
    return "login refused" if report.state == "refused" else "source"


def of_retention(reports: Iterable[Report]) -> list[Trouble]:
    """Return that something is kept for longer than [retention] says, where the daemon may not erase it."""
    fix = "see `ingestor erase plan`, or set retention.apply"
    return [
        Trouble("retention due", "retention", one.detail or "", fix, grave=False)
        for one in reports if one.kind == "retention" and one.state == "due"
    ]  # fmt: skip


def of_secrets(settings: Settings, now: datetime) -> list[Trouble]:
    """Return a trouble for each client secret whose day is written down and near; past it, a grave one."""
    found = []
    for one in settings.mailbox:
        if one.oauth is None or one.oauth.secret_ends is None:
            continue
        ends = datetime.combine(one.oauth.secret_ends, time.min, UTC)
        if now > ends - ENDS_SOON:
            said = f"its client secret {'ended' if now > ends else 'ends'} on {ends:%Y-%m-%d}"
            fix = "make a new one, put it in place, mend secret_ends, then `systemctl restart ingestor`"
            found.append(Trouble("secret ends", f"mailbox {one.name}", said, fix, grave=now > ends))
    return found


def of_spool(spool: Spool | None) -> list[Trouble]:
    """Return what is wrong with the spool: POSTs that wait for long, damaged ones, a moved folder."""
    if spool is None or not spool.late:
        return []
    if spool.moved:
        return [Trouble("spool", "spool", spool.moved, "put the folder back")]
    if spool.corrupt:
        fix = "look at spool/corrupt in the state directory: what is read from there is gone from here"
        return [Trouble("spool", "spool", f"{spool.corrupt:,} POSTs cannot be read", fix)]
    return [
        Trouble(
            "spool", "spool", f"{spool.waiting:,} acknowledged POSTs wait for the archive",
            "see `ingestor check`: the database takes no writes, or no daemon runs", since=spool.oldest,
        )
    ]  # fmt: skip


def of_disks(disks: Iterable[Disk]) -> list[Trouble]:
    """Return a trouble for each disk with little space; a full one is grave."""
    return [
        Trouble(
            "disk", f"disk of {one.folder}",
            "full" if one.free < NO_SPACE else f"only {one.free // 2**20} MiB free", "make room",
            grave=one.free < NO_SPACE,
        )
        for one in disks
    ]  # fmt: skip


def of_archive(refused: Refusals | None, lacks: str | None) -> list[Trouble]:
    """Return what is wrong with the tables and the file: they take no items, or lack what was stored."""
    found = []
    if refused is not None and refused.every:
        found.append(
            Trouble(
                "archive", "archive", f"it refused {refused.count:,} items and stored none since",
                "run `ingestor check`, then `ingestor quarantine retry`", since=refused.last,
            )
        )  # fmt: skip
    if lacks is not None:
        found.append(Trouble("archive", "archive", "it lacks what was stored", lacks))
    return found


_HELD_UP: Final = text(
    "SELECT min(state_change) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event = 'SyncRep' AND state_change <= clock_timestamp() - make_interval(secs => :seconds)"
)


def of_commits(engine: Engine, seconds: float = 10.0) -> list[Trouble]:
    """Return that a commit has waited so long for a synchronous standby: PostgreSQL lets it, without a word.

    Only commits of the role that asks are seen, or all by a member of pg_monitor. Raises IngestorError.
    """
    if engine.dialect.name == "sqlite":
        return []
    with reading(engine) as connection:
        since = connection.execute(_HELD_UP, {"seconds": seconds}).scalar_one()
    if since is None:
        return []
    says = "each commit waits for a synchronous standby, and none is there"
    fix = "start the standby, or see synchronous_standby_names (Patroni: synchronous_mode)"
    return [Trouble("archive", "archive", says, fix, since=since.astimezone(UTC))]


def of_unread(standing: Iterable[Standing], alike: Iterable[LookAlikes], since: datetime) -> list[Trouble]:
    """Return that mails or POSTs of ours could not be read, or looked like ours, since `since` (aware UTC):
    SMS may be among them, but none is lost and none is late, so not grave.
    """
    found = []
    if fresh := [one for one in standing if one.newest >= since]:
        count, newest = sum(one.count for one in fresh), max(one.newest for one in fresh)
        found.append(
            Trouble(
                "quarantine", "quarantine", f"{count:,} items stand in it, some of them new",
                "see `ingestor quarantine list`", grave=False, since=newest,
            )
        )  # fmt: skip
    if seen := [one for one in alike if one.newest >= since]:
        count, newest = sum(one.count for one in seen), max(one.newest for one in seen)
        found.append(
            Trouble(
                "look-alikes", "look-alikes", f"{count:,} ignored mails had something of an SMS",
                "run `ingestor explain` on one; a missing sender goes into [agile] senders",
                grave=False, since=newest,
            )
        )  # fmt: skip
    return found


def sentence(troubles: list[Trouble], today: Today, waits: str, since: str) -> str:
    """Return whether all is well, since when, what came today against the usual, and what waits.

    `waits` is the whole clause; `since` says since when the daemon runs, or nothing.
    """
    usual = f", usually {today.usual:,} by now" if today.usual is not None else ""
    came = f"{today.sms:,} SMS today{usual}; {waits}"
    grave = [one for one in troubles if one.grave]
    if not grave:
        to_see = f" ({_things(len(troubles))} to look at when there is time)" if troubles else ""
        return f"All is well{since}{to_see}: {came}."
    first, more = grave[0], f", and {_things(len(grave) - 1)} more" if len(grave) > 1 else ""
    return f"NOT well: {first}{more}. To do: {first.fix}. {came}."


def _things(count: int) -> str:
    return f"{count} thing{'s' if count != 1 else ''}"


_STEP: Final = timedelta(minutes=15)
_FARTHEST: Final = timedelta(days=62)
_JUDGED: Final = 5


def quiet(expect: Expect, moment: datetime) -> bool:
    """Say whether nothing is expected at `moment` (local): a quiet day, or between the quiet hours."""
    if DAYS[moment.weekday()] in expect.quiet_days:
        return True
    if expect.quiet_hours is None:
        return False
    begin, end = expect.quiet_hours.split("-")
    now = moment.strftime("%H:%M")
    return begin <= now < end if begin <= end else now >= begin or now < end


def expected_since(expect: Expect, now: datetime, zone: tzinfo | None) -> datetime:
    """Return since when (aware UTC) an SMS should have come: so many hours ago that were not quiet."""
    left, moment = timedelta(hours=expect.hours), now
    while left > timedelta(0) and now - moment < _FARTHEST:
        moment -= _STEP
        if not quiet(expect, moment.astimezone(zone)):
            left -= _STEP
    return moment.astimezone(UTC)


def silent(engine: Engine, expected: Sequence[Expect], now: datetime, zone: tzinfo | None) -> list[Trouble]:
    """Return a trouble for each of `expected` from which nothing came in its time. Raises IngestorError."""
    found = []
    for expect in expected:
        since = expected_since(expect, now, zone)
        if quiet(expect, now.astimezone(zone)) or _came(engine, expect, since):
            continue
        # Only its last four digits are named: the line goes into mails and logs.
        who = f"mailbox {expect.mailbox}" if expect.mailbox else f"number {last_four(expect.number or '')}"
        found.append(
            Trouble(
                "source silent", who, f"no SMS in {expect.hours} hours in which some are expected",
                "send one to the number, and look whether the provider has sent it", since=since,
            )
        )  # fmt: skip
    return found


def _came(engine: Engine, expect: Expect, since: datetime) -> bool:
    sms, arrivals = tables.sms, tables.arrivals
    query = select(sms.c.id).where(sms.c.received_at >= bindparam(None, since, WholeSecond)).limit(1)
    if expect.number is not None:
        query = query.where(sms.c.destination == expect.number)
    else:
        query = query.join(arrivals, arrivals.c.sms_id == sms.c.id).where(
            arrivals.c.source == expect.mailbox, arrivals.c.channel == Channel.MAILBOX.value
        )
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def clock_off(engine: Engine, now: datetime) -> list[Trouble]:
    """Return that the newest SMS of the last day all seem to have come whole hours late, or before they were
    sent: then `[agile] timezone` or this machine's clock is wrong. Raises IngestorError.
    """
    with reading(engine) as connection:
        off = whole_hours_off(connection, now, least=_JUDGED, newest=2 * _JUDGED)
    if off is None:
        return []
    count = f"{abs(off)} hour{'s' if abs(off) != 1 else ''}"
    says = f"the newest SMS came {count} {'after' if off > 0 else 'before'} they were sent"
    return [Trouble("clock", "clock or zone", says, "look at [agile] timezone, and at the machine's clock")]
