"""`ingestor status`: how the sources fare, how much there is, and what the last runs did."""

import argparse
import dataclasses
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any

from ingestor.archive.export import plain_row
from ingestor.archive.mailbox_state import PendingWork, Source, not_fetched, read_sources
from ingestor.archive.open_file import fault
from ingestor.archive.queries import (
    Counts,
    LookAlikes,
    Refusals,
    Standing,
    counts,
    look_alikes,
    refusals,
    standing,
)
from ingestor.archive.runs import Run, last_run_of, last_runs
from ingestor.cli.arguments import add_utc, zone_of
from ingestor.cli.opening import open_for_reading, settings_of
from ingestor.cli.printing import age, print_fields, print_json, print_table, when
from ingestor.errors import IngestorError
from ingestor.intake.listener.gate import named
from ingestor.intake.listener.spool import corrupt, depth, moved, oldest
from ingestor.providers.contract import near_miss_in_words
from ingestor.service import reporting
from ingestor.service.reporting import Daemon
from ingestor.settings import Settings, state_directory

EXAMPLES = """
ingestor status
ingestor status --json | jq .sources
ingestor status > /dev/null || echo "the daemon is down, or a source or the spool is late"
"""

POLLS = 3  # a source that has not succeeded for so many polls is late
SPOOL_SECONDS = 300  # a POST that was acknowledged and is not in the archive after so long needs a person
_RUNS = 5
_REASONS = 10
_MAILS = 20
LACKING = {
    "block": "a whole block of From, To, Date/Time and Body, and a known sender",
    "subject": "our subject, and a known sender",
    "subject and block": "our subject and block (From names our sender)",
    "sender": "a known sender, and beyond what a mailbox keeps of such mails in a day",
}
"""What a look-alike lacks, in words."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command knows."""
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    add_utc(parser)


@dataclasses.dataclass(frozen=True)
class Report:
    """One source as `status` sees it. `late` is what makes the exit code 1."""

    name: str
    kind: str
    state: str
    detail: str | None
    poll_seconds: int | None
    last_success: datetime | None
    late: bool


@dataclasses.dataclass(frozen=True)
class Spool:
    """POSTs that wait for the database, and files set aside as damaged; None where we may not look.

    `late` is what makes the exit code 1.
    """

    waiting: int | None
    corrupt: int | None
    oldest: datetime | None = None
    late: bool = False
    moved: str | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """All that `status` tells: first what makes the exit code 1, then what is counted and listed."""

    daemons: list[Daemon]
    reports: list[Report]
    refused: Refusals | None
    spool: Spool | None
    lacks: str | None
    counts: Counts
    runs: list[Run]
    quarantine: list[Standing]
    alike: list[LookAlikes]
    missing: list[PendingWork]

    @property
    def well(self) -> bool:
        """Whether nothing needs a person."""
        late = any(one.late for one in self.daemons) or any(one.late for one in self.reports)
        refused, spool = self.refused, self.spool
        return not (late or (refused and refused.every) or (spool and spool.late) or self.lacks)


def run(arguments: argparse.Namespace) -> int:
    """Print the status; return 1 when no daemon runs where one ever did, or a source or the spool is late.

    Raises IngestorError after it where the archive's file lacks what was stored.
    """
    settings = settings_of(arguments)
    now = datetime.now(UTC)
    spool = _spool(settings, now)
    file = settings.database.file
    try:
        engine = open_for_reading(settings)
        noted = read_sources(engine)
        daemons = reporting.daemons(noted, last_run_of(engine, ("run", "run --once")), now)
        reports = judge(settings, [one for one in noted if one.kind != reporting.KIND], now)
        found = Found(
            daemons, _left_alone(reports, daemons), refusals(engine), spool,
            fault(file.absolute()) if file else None, counts(engine), last_runs(engine, _RUNS),
            standing(engine), look_alikes(engine), not_fetched(engine),
        )  # fmt: skip
    except IngestorError:
        if spool is not None:  # what is known without the database
            print(f"spool  {_in_words(spool, now)}")
        raise
    if arguments.json:
        _print_json(found, now)
    else:
        _print(found, now, zone_of(arguments, settings))
    if found.lacks is not None:
        raise IngestorError(found.lacks)
    return 0 if found.well else 1


def _left_alone(reports: list[Report], daemons: list[Daemon]) -> list[Report]:
    """Return `reports` without the last words of a daemon that lives no more: nobody reads these sources."""
    if not daemons or any(one.lives for one in daemons):
        return reports
    state = f"daemon {daemons[0].state}"
    return [
        dataclasses.replace(one, state=state, late=True)
        if one.kind in {"mailbox", "webhook", "endpoint"} and one.state != "not configured"
        else one
        for one in reports
    ]


def judge(settings: Settings, noted: list[Source], now: datetime) -> list[Report]:
    """Return what is to be said of each source at `now` (aware UTC).

    Every configured mailbox counts, noted or not. A mailbox that was noted once and is configured no more
    is listed, and never late; without anything configured (the archive was named by its URL alone) every
    noted one counts. A POST has no time at which it is due: an endpoint is never late.
    """
    configured = {mailbox.name: mailbox for mailbox in settings.mailbox}
    webhook = settings.webhook
    endpoints = {f"endpoint {name}" for name, _ in named(webhook)} if webhook else set()
    reports = []
    for source in noted:
        mailbox = configured.pop(source.name, None) if source.kind == "mailbox" else None
        poll = mailbox.poll_seconds if mailbox else source.poll_seconds
        gone = {
            "mailbox": mailbox is None, "webhook": webhook is None, "endpoint": source.name not in endpoints,
        }.get(source.kind, False)  # fmt: skip
        dropped = bool(settings.mailbox or webhook) and gone
        state = "not configured" if dropped else source.state
        late = not dropped and poll is not None and _late(source.last_success, poll, now)
        late = late or source.state == "changed"  # somebody's hand was in the archive
        reports.append(
            Report(source.name, source.kind, state, source.detail, poll, source.last_success, late)
        )
    for name, mailbox in configured.items():
        reports.append(Report(name, "mailbox", "never read", None, mailbox.poll_seconds, None, late=True))
    return sorted(reports, key=lambda report: (report.kind, report.name))


def _late(last_success: datetime | None, poll_seconds: int, now: datetime) -> bool:
    return last_success is None or (now - last_success).total_seconds() > POLLS * poll_seconds


def _spool(settings: Settings, now: datetime) -> Spool | None:
    """Return how the listener's spool stands, None where there is none."""
    folder = state_directory(settings) / "spool"
    try:
        elsewhere = moved(folder)
        if not folder.is_dir() and elsewhere is None:
            return None
        damaged, since = corrupt(folder), oldest(folder)
        waits = since is not None and (now - since).total_seconds() > SPOOL_SECONDS
        late = bool(damaged) or waits or elsewhere is not None
        return Spool(depth(folder), damaged, since, late, elsewhere)
    except PermissionError:
        return Spool(None, None)


def _in_words(spool: Spool, now: datetime) -> str:
    if spool.waiting is None:
        return "may not be read by this user"
    words = [f"{spool.waiting:,} waiting"]
    if spool.oldest is not None:
        words[0] += f" (the first came {age(spool.oldest, now)})"
    if spool.corrupt:
        words.append(f"{spool.corrupt:,} damaged")
    if spool.late:
        words.append("LATE")
    if spool.moved:
        words.append(spool.moved)
    return ", ".join(words)


def _print_json(found: Found, now: datetime) -> None:
    def since(report: Report) -> float | None:
        return None if report.last_success is None else (now - report.last_success).total_seconds()

    status: dict[str, Any] = {
        "ok": found.well,
        "daemons": [_plain(one) for one in found.daemons],
        "archive_lacks": found.lacks,
        "sources": [{**_plain(one), "age_seconds": since(one)} for one in found.reports],
        "counts": _plain(found.counts),
        "quarantine": [_plain(one) for one in found.quarantine],
        "look_alikes": [_plain(one) for one in found.alike],
        "not_fetched": [
            {"mailbox": one.work.mailbox, "folder": one.work.folder, "uid": one.work.uid,
             "attempts": one.attempts, "reason": one.reason, **plain_row({"since": one.noted_at})}
            for one in found.missing
        ],
        "refused": found.refused and _plain(found.refused),
        "spool": found.spool and _plain(found.spool),
        "runs": [
            {"run": one.id, "command": one.command, **plain_row({"started_at": one.started_at,
             "ended_at": one.ended_at}), **dataclasses.asdict(one.balance)}
            for one in found.runs
        ],
    }  # fmt: skip
    print_json(status)


def _plain(one: Any) -> dict[str, Any]:
    return plain_row(dataclasses.asdict(one))


def _of_daemon(daemon: Daemon, since: str) -> str:
    words = {
        "running": "running",
        "silent": f"HANGS: it has said nothing since {since}",
        "stopped": f"STOPPED {since} (cleanly; systemctl start ingestor)",
        "gone": f"GONE without a stop (killed or crashed; systemctl start ingestor), last seen {since}",
    }
    who = f" (pid {daemon.pid} on {daemon.host})" if daemon.host else ""
    return f"{words[daemon.state]}, run {daemon.run}{who}"


def _exactly(moment: datetime | None, zone: tzinfo | None) -> object:
    return moment.astimezone(zone) if moment is not None else "never"


def _took(run: Run) -> str:
    """Return how long a run took; one without an end is going on, or was killed."""
    return f"{(run.ended_at - run.started_at).total_seconds():,.0f} s" if run.ended_at else "no end"


def _print(found: Found, now: datetime, zone: tzinfo | None) -> None:
    told = partial(when, now=now, zone=zone)
    print_table(
        ("source", "kind", "state", "last success", "late", "detail"),
        (
            (one.name, one.kind, one.state, told(one.last_success), "LATE" if one.late else "no", one.detail)
            for one in found.reports
        ),
        title="Sources",
    )
    print()
    print_fields(_fields(found, now, zone))
    print()
    if found.quarantine:
        print_table(
            ("quarantined", "source", "channel", "reason", "newest"),
            (
                (one.count, one.source, one.channel, near_miss_in_words(one.reason), told(one.newest))
                for one in found.quarantine[:_REASONS]
            ),
            title="Warning: in the quarantine, and not among the SMS (ingestor quarantine list)",
        )
        print()
    if found.alike:
        print_table(
            ("look-alikes", "without", "newest"),
            ((one.count, LACKING.get(one.missing, one.missing), told(one.newest)) for one in found.alike),
            title="Ignored, though something of an SMS was there (ingestor explain tells of each)",
        )
        print()
    if found.missing:
        count = len(found.missing)
        print_table(
            ("UID", "mailbox", "folder", "tries", "since", "reason"),
            (
                (
                    *(one.work.uid, one.work.mailbox, one.work.folder),
                    *(one.attempts, told(one.noted_at), one.reason),
                )
                for one in found.missing[:_MAILS]
            ),
            title=f"Warning: {count:,} mails that the server does not give; they are tried again",
        )
        print()
    print_table(
        ("run", "command", "started", "took", "read", "balance"),
        (
            (one.id, one.command, told(one.started_at), _took(one), one.balance.read, one.balance.outcomes)
            for one in found.runs
        ),
        title="Last runs",
    )


def _fields(found: Found, now: datetime, zone: tzinfo | None) -> dict[str, object]:
    told = partial(when, now=now, zone=zone)
    counts = found.counts
    fields: dict[str, object] = {
        "daemon": "\n".join(_of_daemon(one, told(one.since)) for one in found.daemons) or "none",
        "SMS": f"{counts.sms:,}",
        "arrivals": f"{counts.arrivals:,}",
        "quarantined": f"{counts.quarantined:,}",
        "still to do on mailboxes": f"{counts.pending:,}",
        "first received": _exactly(counts.first_received, zone),
        "last received": _exactly(counts.last_received, zone),
    }
    if found.refused is not None:
        every = ", and NOTHING WAS STORED SINCE: ingestor check" if found.refused.every else ""
        fields["refused by the database"] = (
            f"{found.refused.count:,}, the newest {told(found.refused.last)}{every}"
        )
    if found.spool is not None:
        fields["spool"] = _in_words(found.spool, now)
    return fields
