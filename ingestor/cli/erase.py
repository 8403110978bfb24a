"""`ingestor erase`: what one person sent, or what is old enough, taken out of the archive for good."""

import argparse
from argparse import ArgumentTypeError
from collections import deque
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, Select, not_, select, union

from ingestor.archive.engine import reading
from ingestor.archive.tables import answers, arrivals, erased, erasures, retries
from ingestor.archive.views import erasures_done
from ingestor.cli import verbs_of
from ingestor.cli.arguments import (
    add_listing,
    add_utc,
    asked_for,
    count,
    instant,
    print_rows,
    reason,
    since,
    text,
    zone_of,
)
from ingestor.cli.opening import configure_log, open_for_reading, open_for_writing, settings_of
from ingestor.cli.printing import print_fields, print_table, printable
from ingestor.errors import ConfigurationError
from ingestor.numbers import last_four
from ingestor.record import Channel
from ingestor.redaction import some_of
from ingestor.settings import Settings, state_directory

if TYPE_CHECKING:
    from ingestor.archive.erasure_plan import Plan
    from ingestor.archive.holds import Hold

EXAMPLES = """
ingestor erase plan --number "+39 333 1234567" --basis gdpr-art17 --output plan.json
ingestor erase plan --before 2016-01-01 --basis retention --output plan.json
ingestor erase plan --before 2024-01-01 --destination +393331234333 --basis contract-end
ingestor erase apply plan.json
ingestor erase list
ingestor erase hold add --number +393331234567 --reason "lawsuit 12/2026"
ingestor erase hold list
ingestor erase hold remove 1
"""

COLUMNS = ("ended_at", "basis", "plan_id", "batches", "sms", "arrivals", "payloads", "others")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verb = verbs_of(parser, EXAMPLES)
    plan = add_verb("plan", "say what would go, and write it down; nothing is changed", _plan)
    what = plan.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--number", metavar="N", action="append", type=_number,
        help="all SMS from or to it, in whatever form it came, and what of the quarantine has it in its "
        "bytes; may be given several times",
    )  # fmt: skip
    what.add_argument("--sms", metavar="ID", nargs="+", type=count, help="these SMS")
    what.add_argument("--before", metavar="DATE", type=since, help="all SMS received before it")
    what.add_argument("--quarantine", metavar="ID", nargs="+", type=count, help="arrivals of the quarantine")
    plan.add_argument("--destination", metavar="N", type=text, help="with --before: only what was sent to it")
    plan.add_argument("--basis", required=True, metavar="CODE", type=_basis, help="why: a code, no name")
    plan.add_argument("--output", metavar="FILE", type=Path, help="the plan, for `erase apply`")
    add_utc(plan)
    apply = add_verb("apply", "do what a plan says; called again it does what is left of it", _apply)
    apply.add_argument("plan", metavar="PLAN", type=Path)
    listed = add_verb("list", "list all erasures, newest first", _list)
    add_listing(listed)
    hold = add_verb("hold", "keep what must not be erased: add, remove, list", _hold)
    acts = hold.add_subparsers(dest="act", metavar="ACT", required=True)
    add = acts.add_parser("add", help="hold a number, an SMS, or an arrival of the quarantine")
    held = add.add_mutually_exclusive_group(required=True)
    held.add_argument("--number", metavar="N", type=_number)
    held.add_argument("--sms", metavar="ID", type=count)
    held.add_argument("--quarantine", metavar="ID", type=count)
    add.add_argument("--reason", required=True, type=reason, help="why; it goes when its number is erased")
    remove = acts.add_parser("remove", help="let go of a hold")
    remove.add_argument("id", metavar="ID", type=count)
    add_utc(acts.add_parser("list", help="list the holds that stand"))


def _number(written: str) -> str:
    if not any(map(str.isalnum, written)):
        raise ArgumentTypeError("is no number and no name")
    return text(written)


def _basis(written: str) -> str:
    from ingestor.archive.erasure_plan import basis_code  # here and below: `list` needs none of it

    try:
        return basis_code(written)
    except (ValueError, IndexError):
        raise ArgumentTypeError(
            "is no code: up to 32 letters with - _ . and four digits at most, like gdpr-art17 "
            "(it stays in the archive for good)"
        ) from None


def _plan(arguments: argparse.Namespace) -> int:
    from ingestor.archive import erasure, quarantine
    from ingestor.archive.erasure_plan import Selection
    from ingestor.archive.inserts import read_archive_key
    from ingestor.archive.rows import number_key

    settings = settings_of(arguments)
    if arguments.destination is not None and arguments.before is None:
        raise ConfigurationError("--destination narrows --before down: give both")
    engine = open_for_reading(settings)
    secret, numbers = read_archive_key(engine), arguments.number or ()
    naming, looked_at = quarantine.naming(engine, numbers) if numbers else ([], 0)
    selection = Selection(
        tuple(sorted({number_key(one, secret) for one in numbers})),
        tuple(sorted(set(arguments.sms or ()))),
        instant(arguments.before, zone_of(arguments, settings)),
        arguments.destination,
        tuple(sorted(set(arguments.quarantine or naming))),
    )
    made = erasure.plan(engine, secret, selection, arguments.basis, datetime.now(UTC), numbers)
    fields = _fields(made)
    if looked_at:
        fields["quarantine"] = f"{looked_at:,} unread were looked through; " + (
            f"it stands in {some_of(naming)}" if naming else "it stands in none"
        )
    print_fields(fields)
    if not made.batches:
        print("\nNothing of it is in the archive.")
        return 0
    if arguments.output is None:
        print("\nNothing was written; --output FILE keeps the plan for `ingestor erase apply`.")
        return 0
    _write(arguments.output, made.written())
    print(f"\nTo do it: ingestor erase apply {arguments.output}")
    return 0


def _fields(made: "Plan") -> dict[str, object]:
    fields: dict[str, object] = {
        "plan": made.id, "basis": made.basis, "SMS": f"{made.sms:,}",
        "arrivals": f"{made.arrivals:,} (subject, Message-ID, file, address)",
        "raw mails and POSTs": f"{made.payloads:,}",
        "transactions": f"{len(made.batches):,}",
    }  # fmt: skip
    if made.oldest:
        fields |= {"oldest": made.oldest, "newest": made.newest}
    if made.others:
        fields["other contents"] = f"{made.others:,}"
    if made.beside:
        fields["raw bytes of others"] = (
            f"{made.beside:,} SMS came in one POST with these; their content stays"
        )
    if made.held_sms or made.held_quarantine:
        held = [f"SMS {one}" for one in made.held_sms] + [f"arrival {one}" for one in made.held_quarantine]
        fields["held, and left"] = some_of(held)
    return fields


def _write(path: Path, written: str) -> None:
    """Write the plan for its owner alone: it says which SMS are one person's."""
    if path.exists():
        raise ConfigurationError(f"{path} exists; name another file for the plan")
    from ingestor.cli.export import whole_file

    with whole_file(path) as file:
        file.write(written.encode())


def _apply(arguments: argparse.Namespace) -> int:
    from ingestor.archive import erasure
    from ingestor.archive.erasure_plan import Plan
    from ingestor.archive.inserts import read_archive_key

    settings = settings_of(arguments)
    configure_log(arguments)
    try:
        plan = Plan.read(arguments.plan.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise ConfigurationError(f"{arguments.plan} is {fault}") from None
    engine = open_for_writing(settings)
    steps = erasure.apply(engine, read_archive_key(engine), plan, lambda: datetime.now(UTC))
    done = deque(steps, maxlen=1).pop()
    left = erasure.leave_no_bytes(engine)
    print_fields({
        "plan": plan.id, "basis": plan.basis, "SMS": f"{done.sms:,}", "arrivals": f"{done.arrivals:,}",
        "raw mails and POSTs": f"{done.payloads:,}", "other contents": f"{done.others:,}",
        "transactions": f"{done.batches:,}" + (f" ({done.before:,} done before)" if done.before else ""),
    })  # fmt: skip
    came = erasure.came_meanwhile(engine, plan)
    if came:
        print(f"\nLeft, because they came after the plan was made: SMS {some_of(came)}")
    if left:
        print(f"\nStill to do: {left}")
    print("\nWhat else may hold it:")
    for line in _elsewhere(engine, settings, plan):
        print(f"  {line}")
    return 0


def _elsewhere(engine: Engine, settings: Settings, plan: "Plan") -> list[str]:
    """Return where else the same content may lie, a line each, with what to do."""
    lines = []
    file = settings.database.file
    if file is not None:
        beside = sorted(
            one.name
            for one in file.absolute().parent.glob(f"{file.name}*")
            if one.name not in {file.name, f"{file.name}-wal", f"{file.name}-shm"}
        )
        if beside:
            lines.append(f"copies beside the archive: {some_of(beside)}: delete them")
        lines.append("a copy of a moved row in a gap of a page: `ingestor db vacuum` leaves none")
    else:
        lines.append(
            "dead rows in the server's files until `ingestor db vacuum`; its WAL archive and replicas"
        )
    lines.append("snapshots, exports and backups made earlier: delete them, or make them anew")
    spool = state_directory(settings) / "spool"
    if spool.is_dir():
        lines.append(f"POSTs in {spool}, where some wait: they are read soon, and kept without content")
    return lines + _named(engine, plan) + _in_mailboxes(engine, plan)


def _rows_of(plan: "Plan", kind: str) -> Select[tuple[int]]:
    """Return which rows of a kind the plan has erased."""
    of_plan = erased.c.erasure_id == erasures.c.id
    return select(erased.c.row_id).join(erasures, of_plan).where(
        erasures.c.plan_id == plan.id, erased.c.kind == kind
    )  # fmt: skip


def _named(engine: Engine, plan: "Plan") -> list[str]:
    """Return what stays for good and may say who it was: names of inputs, and words that people wrote."""
    a, r, w = arrivals.c, retries.c, answers.c
    came, answered = _rows_of(plan, "arrival"), _rows_of(plan, "answer")
    names = select(a.source).where(a.id.in_(came), a.channel == Channel.IMPORT.value)
    said = select(r.reason).where(
        r.arrival_id.in_(came), r.outcome == "discarded", not_(r.reason.startswith("erased: "))
    )
    said_of_answers = select(w.reason).where(w.id.in_(answered), w.reason.is_not(None))
    lines = []
    with reading(engine) as connection:
        for what, query in (
            ("names of imported files (arrivals.source, run_inputs.path, runs.options)", names.distinct()),
            ("words given as a reason (retries.reason, answers.reason)", union(said, said_of_answers)),
        ):
            found = sorted(map(printable, connection.execute(query).scalars()))
            if found:
                lines.append(f"{what}, which stay and may name somebody: {some_of(found)}")
    return lines


def _in_mailboxes(engine: Engine, plan: "Plan") -> list[str]:
    """Return where the mails themselves lie: mailbox, folder and UIDs, as an IMAP client is told them."""
    a = arrivals.c
    place = (a.source, a.folder, a.uidvalidity)
    query = select(*place, a.uid).where(
        a.id.in_(_rows_of(plan, "arrival")), a.channel == Channel.MAILBOX.value
    )
    from ingestor.archive.erasure_plan import ranges

    lines = []
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(*place, a.uid))
        for (source, folder, uidvalidity), found in groupby(rows, key=itemgetter(0, 1, 2)):
            uids = [
                str(first) if first == last else f"{first}:{last}"
                for first, last in ranges(row.uid for row in found)
            ]
            lines.append(
                f"mailbox {source}, folder {folder} (UIDVALIDITY {uidvalidity}): UID {some_of(uids)}; in "
                f"Dovecot: doveadm expunge -u USER mailbox '{folder}' uid {','.join(uids)}"
            )
    return lines


def _list(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    query = select(erasures_done).order_by(erasures_done.c.ended_at.desc()).limit(asked_for(arguments))
    with reading(open_for_reading(settings)) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    print_rows(arguments, settings, COLUMNS, rows)
    return 0


def _hold(arguments: argparse.Namespace) -> int:
    from ingestor.archive import holds
    from ingestor.archive.inserts import read_archive_key
    from ingestor.archive.rows import number_key

    settings = settings_of(arguments)
    if arguments.act == "list":
        zone = zone_of(arguments, settings)
        print_table(
            ("id", "since", "of", "reason"),
            (
                (one.id, one.noted_at.astimezone(zone), _of(one), one.reason)
                for one in holds.listed(open_for_reading(settings))
            ),
        )
        return 0
    configure_log(arguments)
    engine = open_for_writing(settings)
    now = datetime.now(UTC)
    if arguments.act == "remove":
        holds.remove(engine, arguments.id, now)
        print(f"hold {arguments.id} stands no more")
        return 0
    if arguments.number is not None:
        what = {"number_key": number_key(arguments.number, read_archive_key(engine))}
    elif arguments.sms is not None:
        what = {"sms_id": arguments.sms}
    else:
        what = {"arrival_id": arguments.quarantine}
    print(f"hold {holds.add(engine, what, arguments.number, arguments.reason, now)} stands")
    return 0


def _of(hold: "Hold") -> str:
    if hold.number is not None:
        return f"number {last_four(hold.number)}"
    return f"SMS {hold.sms_id}" if hold.sms_id is not None else f"arrival {hold.arrival_id}"
