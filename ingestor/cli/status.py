"""`ingestor status`: is all well, what came, what waits, what to do; then how everything fares.

With --monitor it is a plugin of Nagios and its kin instead: one line, and their exit codes.
"""

import argparse
import dataclasses
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any, NamedTuple

from ingestor.archive.mailbox_state import PendingWork, live_leases, not_fetched, read_sources
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
from ingestor.archive.runs import IMPORT, Run, last_run_of, last_runs, lease_of
from ingestor.archive.views import plain_row
from ingestor.cli.arguments import add_utc, zone_of
from ingestor.cli.opening import open_for_reading, settings_of
from ingestor.cli.printing import age, print_fields, print_json, print_table, printable, when
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.providers.contract import near_miss_in_words
from ingestor.record import REFUSED
from ingestor.replies.figures import Figures, figures
from ingestor.service import reporting
from ingestor.service.reporting import Daemon
from ingestor.settings import Settings
from ingestor.watch import troubles
from ingestor.watch.found import (
    ENDPOINT,
    Report,
    Senders,
    Spool,
    Today,
    disks_of,
    judge,
    senders_of,
    spool_of,
    today,
)
from ingestor.watch.troubles import Trouble, sentence

EXAMPLES = """
ingestor status
ingestor status --json | jq .sources
ingestor status > /dev/null || echo "the daemon is down, or a source or the spool is late"
ingestor status --monitor
"""

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
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    parser.add_argument(
        "--monitor", action="store_true",
        help="one line for Nagios and its kin, and their exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN",
    )  # fmt: skip
    add_utc(parser)


class Found(NamedTuple):
    """All that `status` tells: first what is somebody's business, then what is counted and listed."""

    troubles: list[Trouble]
    today: Today
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
    live: set[str]
    opt_outs: Figures
    senders: list[Senders]

    @property
    def well(self) -> bool:
        """Whether nothing needs a person now."""
        return not any(one.grave for one in self.troubles)

    def sentence(self, zone: tzinfo | None) -> str:
        """Return the one sentence that says it all; its times are of `zone`."""
        lives = [one.begun for one in self.daemons if one.state == "running" and one.begun is not None]
        since = f" since {min(lives).astimezone(zone):%Y-%m-%d %H:%M}" if lives else ""
        held = self.spool.waiting if self.spool and self.spool.waiting else 0
        missing = len(self.missing)
        waits = {"POST": held, "mail": missing, "mailbox action": self.counts.pending - missing}
        words = [f"{count:,} {name}{'s' if count != 1 else ''}" for name, count in waits.items() if count > 0]
        verb = "wait" if sum(count for count in waits.values() if count > 0) > 1 else "waits"
        what = f"{', '.join(words) or 'nothing'} {verb}"
        return sentence(self.troubles, self.today, what, since)


def run(arguments: argparse.Namespace) -> int:
    """Print the status; return 1 where somebody is needed: no daemon runs where one ever did, a login is
    refused, a source or the spool is late, the disk is full.

    Raises IngestorError after it where the archive's file lacks what was stored.
    """
    if arguments.monitor:
        return _monitor(arguments)
    settings = settings_of(arguments)
    now = datetime.now(UTC)
    zone = zone_of(arguments, settings)
    spool = spool_of(settings, now)
    try:
        found = _find(settings, spool, now, zone)
    except IngestorError:
        if spool is not None:  # what is known without the database
            print(f"spool  {_in_words(spool, now)}")
        raise
    if arguments.json:
        _print_json(found, now, zone)
    else:
        _print(found, now, zone)
    if found.lacks is not None:
        raise IngestorError(found.lacks)
    return 0 if found.well else 1


def _find(settings: Settings, spool: Spool | None, now: datetime, zone: tzinfo | None) -> Found:
    """Ask the archive, the spool and the disks. Raises IngestorError where the archive cannot be read."""
    file = settings.database.file
    engine = open_for_reading(settings)
    noted = read_sources(engine)
    daemons = reporting.daemons(noted, last_run_of(engine, ("run", "run --once")), now)
    told = reporting.as_told([one for one in noted if one.kind != reporting.KIND], daemons)
    reports = judge(settings, told, now)
    reports = _left_alone(reports, daemons)
    quarantine, alike = standing(engine), look_alikes(engine)
    refused = refusals(engine) if any(one.reason.startswith(REFUSED) for one in quarantine) else None
    lacks = fault(file.absolute()) if file else None
    found = [
        *troubles.of_archive(refused, lacks), *troubles.of_commits(engine),
        *troubles.of_disks(disks_of(settings)), *troubles.of_secrets(settings, now),
        *_of_daemons(daemons, zone), *troubles.of_sources(reports), *troubles.of_retention(reports),
        *troubles.of_spool(spool),
        *troubles.of_unread(quarantine, alike, now - timedelta(days=1)),
    ]  # fmt: skip
    midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return Found(
        found, today(engine, midnight, now), daemons, reports, refused, spool, lacks, counts(engine),
        last_runs(engine, _RUNS), quarantine, alike, not_fetched(engine), live_leases(engine),
        figures(engine, midnight), senders_of(settings, engine, now),
    )  # fmt: skip


def _monitor(arguments: argparse.Namespace) -> int:
    """Print one line as monitoring-plugins.org wants it (text, then data for graphs); return its code."""
    try:
        settings = settings_of(arguments)
    except ConfigurationError as error:
        print(f"INGESTOR UNKNOWN - {printable(error)}")
        return 3
    now, zone = datetime.now(UTC), zone_of(arguments, settings)
    try:
        found = _find(settings, spool_of(settings, now), now, zone)
    except IngestorError as error:
        print(f"INGESTOR CRITICAL - {printable(error)}")
        return 2
    code = (1 if found.troubles else 0) if found.well else 2
    spooled = found.spool.waiting if found.spool and found.spool.waiting is not None else 0
    data = {
        "sms_today": found.today.sms, "spool": spooled, "quarantined": found.counts.quarantined,
        "pending": found.counts.pending, "troubles": len(found.troubles),
    }  # fmt: skip
    word = ("OK", "WARNING", "CRITICAL")[code]
    # A bar would end the text.
    text = printable(found.sentence(zone)).replace("|", "/")
    print(f"INGESTOR {word} - {text} | {' '.join(f'{name}={count}' for name, count in data.items())}")
    for one in found.troubles:
        print(printable(f"{one}; {one.fix}").replace("|", "/"))
    return code


def _of_daemons(daemons: list[Daemon], zone: tzinfo | None) -> list[Trouble]:
    return [
        Trouble(
            "daemon", "daemon", _of_daemon(one, printable(one.since.astimezone(zone))), _mend(one),
            since=one.since,
        )
        for one in daemons if one.late
    ]  # fmt: skip


def _mend(daemon: Daemon) -> str:
    if daemon.state == "silent":
        return "run `systemctl restart ingestor`"
    return (
        "bring its machine back, or its state directory" if daemon.spool else "run `systemctl start ingestor`"
    )


def _left_alone(reports: list[Report], daemons: list[Daemon]) -> list[Report]:
    """Return `reports` without the last words of a daemon that lives no more: nobody reads these sources."""
    if not daemons or any(one.lives for one in daemons):
        return reports
    state = f"daemon {daemons[0].state}"
    return [
        dataclasses.replace(one, state=state, late=True)
        if one.kind in {"mailbox", "webhook", ENDPOINT} and one.state != "not configured"
        else one
        for one in reports
    ]


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


def _print_json(found: Found, now: datetime, zone: tzinfo | None) -> None:
    def since(report: Report) -> float | None:
        return None if report.last_success is None else (now - report.last_success).total_seconds()

    status: dict[str, Any] = {
        "ok": found.well,
        "sentence": found.sentence(zone),
        "troubles": [_plain(one) for one in found.troubles],
        "today": _plain(found.today),
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
        "opt_outs": _plain(found.opt_outs),
        "senders": [_plain(one) for one in found.senders],
        "refused": found.refused and _plain(found.refused),
        "spool": found.spool and _plain(found.spool),
        "runs": [
            {"run": one.id, "command": one.command, "state": _state(one, found),
             **plain_row({"started_at": one.started_at, "ended_at": one.ended_at}),
             **one.balance._asdict()}
            for one in found.runs
        ],
    }  # fmt: skip
    print_json(status)


def _plain(one: Any) -> dict[str, Any]:
    return plain_row(one._asdict() if hasattr(one, "_asdict") else dataclasses.asdict(one))


def _of_daemon(daemon: Daemon, since: str) -> str:
    words = {
        "running": "running",
        "silent": f"HANGS: it has said nothing since {since}",
        "stopped": f"STOPPED {since} (cleanly; systemctl start ingestor)",
        "gone": f"GONE without a stop (killed or crashed; systemctl start ingestor), last seen {since}",
    }
    who = f" (pid {daemon.pid} on {daemon.host})" if daemon.host else ""
    spool = f", {daemon.spool:,} POSTs in its spool" if daemon.spool else ""
    return f"{words[daemon.state]}, run {daemon.run}{who}{spool}"


def _state(run: Run, found: Found) -> str:
    """Return `ended`, `running`, or `stopped` for a run without an end that nobody works on any more."""
    if run.ended_at is not None:
        return "ended"
    lives = any(one.run == run.id and one.lives for one in found.daemons) or lease_of(run.id) in found.live
    return "running" if lives else "stopped"


def _took(run: Run, found: Found) -> str:
    """Return how long a run took, or why it has no end and what to do."""
    if run.ended_at is not None:
        return f"{(run.ended_at - run.started_at).total_seconds():,.0f} s"
    state = _state(run, found)
    return f"stopped; import --resume {run.id}" if (run.command, state) == (IMPORT, "stopped") else state


def _print(found: Found, now: datetime, zone: tzinfo | None) -> None:
    told = partial(when, now=now, zone=zone)
    print(printable(found.sentence(zone)))
    for one in found.troubles:
        print(printable(f"  {'NOW' if one.grave else 'see'}  {one}; {one.fix}"))
    print()
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
            (
                one.id,
                one.command,
                told(one.started_at),
                _took(one, found),
                one.balance.read,
                one.balance.outcomes,
            )
            for one in found.runs
        ),
        title="Last runs",
    )


def _fields(found: Found, now: datetime, zone: tzinfo | None) -> dict[str, object]:
    told = partial(when, now=now, zone=zone)
    counts = found.counts
    fields: dict[str, object] = {
        "daemon": "\n".join(
            _of_daemon(one, told(one.since)) + (f", heard {age(one.since, now)}" if one.lives else "")
            for one in found.daemons
        )
        or "none",
        "SMS": f"{counts.sms:,}",
        "arrivals": f"{counts.arrivals:,}",
        "quarantined": f"{counts.quarantined:,}",
        "still to do on mailboxes": f"{counts.pending:,}",
        "first received": counts.first_received.astimezone(zone) if counts.first_received else "never",
        "last received": counts.last_received.astimezone(zone) if counts.last_received else "never",
    }
    if found.refused is not None:
        every = ", and NOTHING WAS STORED SINCE: ingestor check" if found.refused.every else ""
        fields["refused by the database"] = (
            f"{found.refused.count:,}, the newest {told(found.refused.last)}{every}"
        )
    if found.spool is not None:
        fields["spool"] = _in_words(found.spool, now)
    fields |= {f"sender proven, {one.mailbox}": one.says for one in found.senders}
    fields |= found.opt_outs.fields
    return fields
