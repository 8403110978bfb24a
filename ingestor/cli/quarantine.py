"""`ingestor quarantine`: what is ours but could not be read."""

import argparse
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from ingestor.archive.queries import quarantine_list, quarantine_show
from ingestor.cli import complain, verbs_of
from ingestor.cli.arguments import (
    add_listing,
    add_utc,
    asked_for,
    count,
    localised,
    print_rows,
    reason,
    zone_of,
)
from ingestor.cli.opening import configure_log, open_for_reading, open_for_writing, settings_of
from ingestor.cli.printing import exit_code, print_balance, print_fields, print_table, raw_output
from ingestor.cli.show import arrival_fields, checked_raw
from ingestor.errors import IngestorError
from ingestor.providers.contract import NEAR_MISSES
from ingestor.settings import rules_for

EXAMPLES = """
ingestor quarantine list
ingestor quarantine show 17
ingestor quarantine show 17 --raw > mail.eml
ingestor quarantine retry
ingestor quarantine discard 17 18 --reason "test mails of 3 May"
ingestor quarantine export quarantine.mbox
"""

COLUMNS = ("id", "arrived_at", "channel", "source", "reason", "subject", "size", "retries")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verb = verbs_of(parser, EXAMPLES)
    listed = add_verb("list", "list what stands there, newest first", _list)
    add_listing(listed)
    show = add_verb("show", "show one arrival and every verdict on it", _show)
    show.add_argument("id", metavar="ID", type=count)
    show.add_argument("--raw", action="store_true", help="write the bytes it arrived in, exactly")
    add_utc(show)
    retry = add_verb("retry", "read the kept bytes again with today's parser and settings", _retry)
    retry.add_argument("ids", nargs="*", metavar="ID", type=count, help="only these (default: all)")
    retry.add_argument("--json", action="store_true", help="print the balance as one object on the last line")
    discard = add_verb("discard", "take arrivals out for a reason; their bytes stay kept", _discard)
    discard.add_argument("ids", nargs="+", metavar="ID", type=count)
    discard.add_argument("--reason", required=True, type=reason, help="why; it stays in the archive")
    export = add_verb("export", "write an mbox, to be looked at in a mail client", _export)
    export.add_argument("file", metavar="FILE", type=Path, help="mbox to write; - for stdout")
    export.add_argument("ids", nargs="*", metavar="ID", type=count, help="only these (default: all)")


def _list(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    rows = quarantine_list(engine, asked_for(arguments))
    told = [_in_words(engine, row["id"], row["reason"]) for row in rows]
    place = "in_words" if arguments.json else "reason"
    rows = [{**row, place: words} for row, words in zip(rows, told, strict=True)]
    print_rows(arguments, settings, COLUMNS, rows)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    found = quarantine_show(engine, arguments.id)
    if found is None:
        raise IngestorError(_absent([arguments.id]))
    if arguments.raw:
        raw_output().write(checked_raw(engine, arguments.id))
        return 0
    why = _in_words(engine, arguments.id, found.arrival["reason"])
    zone = zone_of(arguments, settings)
    arrival = localised({**found.arrival, "reason": why}, zone)
    print_fields({"id": arguments.id, **arrival_fields(arrival)})
    for verdict in found.verdicts:
        print(f"\nverdict {verdict['id']}")
        why = _in_words(engine, arguments.id, verdict["reason"])
        shown = localised({**verdict, "reason": why}, zone)
        print_fields({name: value for name, value in shown.items() if name != "id"})
    if not found.stands:
        print("\nIt stands in the quarantine no more.")
    return 0


def _in_words(engine: Engine, arrival_id: int, reason: str | None) -> str | None:
    """Return why an arrival stands in the quarantine, in words where it is a code."""
    if reason not in NEAR_MISSES:
        return reason
    from ingestor.intake.retry import reason_in_words  # it reads the kept bytes

    return reason_in_words(engine, arrival_id, reason)


def _retry(arguments: argparse.Namespace) -> int:
    from ingestor.archive.mailbox_state import one_run  # `list` needs nothing that writes
    from ingestor.archive.runs import balance
    from ingestor.intake.retry import retry, todays_reader
    from ingestor.replies.opt_outs import hearing_store

    settings = settings_of(arguments)
    configure_log(arguments)
    engine = open_for_writing(settings)
    _require_standing(engine, arguments.ids)
    store = hearing_store(engine, settings.opt_out)
    began, now = time.monotonic(), datetime.now(UTC)
    strict = {one.name for one in settings.mailbox if one.trust and one.trust.policy == "require"}
    reader = todays_reader(lambda provider: rules_for(settings, provider), strict)
    with one_run(engine, "quarantine retry", {"ids": arguments.ids}) as run_id:
        verdicts = list(retry(store, reader, run_id, now, arguments.ids or None))
    left = [
        (one.arrival_id, _in_words(engine, one.arrival_id, one.reason))
        for one in verdicts
        if one.reason is not None
    ]
    if left:
        print_table(("id", "reason"), left, title="Still unreadable")
    done = balance(engine, run_id)
    print_balance(run_id, done, time.monotonic() - began, as_json=arguments.json)
    return exit_code(done)


def _discard(arguments: argparse.Namespace) -> int:
    from ingestor.archive.quarantine import discard

    configure_log(arguments)
    engine = open_for_writing(settings_of(arguments))
    _require_standing(engine, arguments.ids)
    gone = discard(engine, arguments.ids, arguments.reason, datetime.now(UTC))
    print(f"{len(gone)} discarded; their raw bytes stay in the archive")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ingestor.archive.quarantine import export_mbox
    from ingestor.cli.export import whole_file

    engine = open_for_reading(settings_of(arguments))
    _require_standing(engine, arguments.ids)
    stdout = nullcontext(raw_output())
    with stdout if str(arguments.file) == "-" else whole_file(arguments.file) as out:
        written, damaged = export_mbox(engine, out, arguments.ids or None)
    print(f"{written:,} exported", file=sys.stderr)
    for number in damaged:
        complain(f"{number} is left out: its bytes are damaged; see `ingestor check --deep`")
    return int(bool(damaged))


def _require_standing(engine: Engine, ids: list[int]) -> None:
    """Raise IngestorError where one of `ids` does not stand in the quarantine."""
    from ingestor.archive.quarantine import standing_ids

    missing = sorted(set(ids) - set(standing_ids(engine, ids))) if ids else []
    if missing:
        raise IngestorError(_absent(missing))


def _absent(ids: list[int]) -> str:
    numbers = ", ".join(map(str, ids))
    return f"nothing stands in the quarantine as {numbers}; `ingestor quarantine list` shows what does"
