"""`ingestor optout`: who may not be written to, why, and what a person says about it."""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from ingestor.archive.engine import reading, writing
from ingestor.archive.views import opt_outs
from ingestor.cli import complain, verbs_of
from ingestor.cli.arguments import (
    add_listing,
    asked_for,
    count,
    instant,
    print_rows,
    reason,
    since,
    standard_input,
    text,
    zone_of,
)
from ingestor.cli.opening import configure_log, open_for_reading, open_for_writing, settings_of
from ingestor.cli.printing import print_fields, share_done
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.numbers import OriginatorKind, last_four, normalise_agile
from ingestor.replies.figures import Scan, figures, scan_state
from ingestor.replies.lists import Unusable, phone_number, read_list, take_list, write_list
from ingestor.replies.opt_outs import (
    EVERY,
    Event,
    OptOut,
    are_out,
    keys_of_numbers,
    read_secret,
    without_country,
    words_of,
    write_events,
)
from ingestor.replies.scanning import (
    begin_scan,
    decide,
    dismiss_before,
    open_reviews,
    scan,
)
from ingestor.replies.words import Words, cleaned
from ingestor.settings import Settings

EXAMPLES = """
ingestor optout list
ingestor optout check +393351234567 || echo "do not write to it"
ingestor optout check - --our-number +393331234333 < campaign.txt
ingestor optout try "Arrêt!"
ingestor optout add +393351234567 --reason "by telephone, 3 May"
ingestor optout remove +393351234567 --reason "signed form of 4 May"
ingestor optout import old-list.csv --reason "list of the old system"
ingestor optout export out.csv
ingestor optout scan
ingestor optout review
ingestor optout review 17 --out --reason "plainly wants no more"
ingestor optout review --before 2025-01-01 --dismiss --reason "of the import, long settled"
"""

CHECK_CODES = """\
exit codes of check: 0: all may be written to; 1: at least one is out; 3: it cannot be told (a number that is
none, old SMS not read yet, the archive away); 2: wrong usage or configuration. Write to nobody but on 0."""
NOT_KNOWN = 3

COLUMNS = ("number", "scope", "since", "kind", "sms_id", "reason")
REVIEWED = ("sms_id", "at", "number", "scope", "reason", "text")
_TOGETHER = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verb = verbs_of(parser, EXAMPLES)
    add_listing(add_verb("list", "list who is out now", _list))
    check = add_verb("check", "say whether numbers may be written to, by the exit code", _check)
    check.epilog = f"{check.epilog}\n\n{CHECK_CODES}"
    check.add_argument(
        "numbers", nargs="+", metavar="NUMBER", type=text, help="- reads one a line from stdin"
    )
    _add_our_number(check, "as sender: what was said to other numbers of ours does not count")
    tried = add_verb("try", "say what a text means, and why", _try)
    tried.add_argument("text", metavar="TEXT", type=text)
    for name, summary in (
        ("add", "opt numbers out by hand"), ("remove", "let numbers be written to again, by hand"),
    ):  # fmt: skip
        verb = add_verb(name, summary, _change)
        verb.add_argument("numbers", nargs="+", metavar="NUMBER", type=text)
        _add_our_number(verb, "alone (default: all)")
        _add_reason(verb)
    taken = add_verb(
        "import",
        "take a list of another program: number, and scope, date, reason where it has them",
        _import,
    )
    taken.add_argument("file", metavar="FILE.csv", type=Path)
    _add_our_number(taken, "alone, where a line has no scope (default: all)")
    _add_reason(taken)
    export = add_verb("export", "write who is out now as CSV", _export)
    export.add_argument("file", metavar="FILE", type=Path, nargs="?", help="(default: stdout)")
    export.add_argument("--events", action="store_true", help="every event instead, the oldest first")
    add_verb("scan", "read all SMS for opt-outs again, after a change of the words", _scan)
    review = add_verb("review", "list SMS that may be opt-outs, or decide about one", _review)
    review.add_argument("id", metavar="SMS", type=count, nargs="?")
    verdict = review.add_mutually_exclusive_group()
    verdict.add_argument("--out", action="store_const", const="add", dest="verdict", help="it was an opt-out")
    verdict.add_argument("--in", action="store_const", const="remove", dest="verdict", help="it undid one")
    verdict.add_argument("--dismiss", action="store_const", const="dismiss", dest="verdict", help="neither")
    review.add_argument(
        "--before", metavar="D", type=since, help="with --dismiss: all that were sent before this day or time"
    )
    review.add_argument("--every", action="store_true", help="for every number of ours")
    review.add_argument("--reason", type=reason, help="why; it stays in the archive")
    add_listing(review)


def _add_our_number(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--our-number", metavar="N", type=text, help=f"this number of ours {what}")


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, type=reason, help="why; it stays in the archive")


def _list(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    columns = opt_outs.c
    query = select(*(columns[name] for name in COLUMNS), columns.reopened)
    query = query.order_by(columns.since.desc(), columns.event_id.desc()).limit(asked_for(arguments))
    engine = open_for_reading(settings)
    with reading(engine) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
        _tell_of_scan(scan_state(connection))
    print_rows(arguments, settings, COLUMNS, rows)
    return 0


def _tell_of_scan(state: Scan) -> None:
    if not state.done:
        print(f"Old SMS have not all been read for opt-outs ({state}); ingestor optout scan", file=sys.stderr)


def _check(arguments: argparse.Namespace) -> int:
    """Print each number with what is known of it; whatever goes wrong is never 0 and never 1."""
    try:
        engine = open_for_reading(settings_of(arguments))
        with reading(engine) as connection:
            return _checked(connection, arguments)
    except ConfigurationError:
        raise
    except Exception as fault:  # noqa: BLE001 - a script takes 1 for an answer, and this is none
        words = str(fault) if isinstance(fault, IngestorError) else f"internal fault: {type(fault).__name__}"
        complain(words)
        return NOT_KNOWN


def _checked(connection: Connection, arguments: argparse.Namespace) -> int:
    state = scan_state(connection)
    if not state.done:
        raise IngestorError(
            f"it cannot be told yet: old SMS have not all been read for opt-outs ({state}); the daemon does "
            "it when it starts, and so does `ingestor optout scan`"
        )
    ours = _scope(arguments)
    key_of, erased = keys_of_numbers(connection)
    any_out = any_unknown = False
    each = _each(arguments.numbers)
    while some := list(islice(each, _TOGETHER)):
        numbers = {written: phone_number(written) for written in some}
        forms = {number: (number, *without_country(number)) for number in numbers.values() if number}
        keys = key_of([form for those in forms.values() for form in those])
        found = are_out(connection, list(keys.values()), ours)
        for written in some:
            number, *national = forms.get(numbers[written] or "", ("",))
            out = found.get(keys.get(number, b""))
            doubtful = next((one for one in national if out is None and found.get(keys.get(one, b""))), None)
            hidden = erased and number and out is None
            any_out |= out is not None
            any_unknown |= not number or hidden or doubtful is not None
            if hidden:
                words = "not known: it may be one of those who were erased; the archive's key tells them"
            elif not number:
                words = "not known: no phone number with its country"
            elif doubtful:
                words = f"not known: {doubtful} is out, and nobody knows of which country it is"
            else:
                words = _in_words(out)
            print(f"{written}\t{words}")
    if any_out:
        return 1
    return NOT_KNOWN if any_unknown else 0


def _in_words(out: OptOut | None) -> str:
    if out is None:
        return "may be written to"
    to = "every number of ours" if out.scope == EVERY else out.scope
    proof = f", SMS {out.sms_id}" if out.sms_id else ""
    return f"out of {to} since {out.since:%Y-%m-%d %H:%M:%S}Z by {out.kind}{proof}"


def _each(numbers: Sequence[str]) -> Iterator[str]:
    for number in numbers:
        if number == "-":
            yield from (line.strip() for line in standard_input() if line.strip())
        else:
            yield number


def _scope(arguments: argparse.Namespace) -> str | None:
    """Return the number of ours that is meant, None where none is; raise where nobody could say which."""
    if not arguments.our_number:
        return None
    ours = normalise_agile(arguments.our_number)
    if ours.kind is OriginatorKind.UNKNOWN:
        raise ConfigurationError(f"--our-number {ours.value}: no number with its country, like +393331234333")
    return ours.value


def _try(arguments: argparse.Namespace) -> int:
    words = words_of(settings_of(arguments).opt_out)
    verdict = words.judge(arguments.text)
    meanings = {
        "stop": "opts out", "start": "undoes an opt-out", "help": "asks for help",
        "review": "waits for a person", "nearly_start": "waits for a person, from somebody who is out",
    }  # fmt: skip
    meaning = meanings[verdict.kind] if verdict else "nothing"
    if verdict and verdict.kind == "stop":
        meaning += " of every number of ours" if verdict.every else " of the number written to"
    print_fields(
        {
            "read as": " ".join(cleaned(arguments.text)),
            "verdict": str(verdict.kind) if verdict else "none",
            "means": meaning,
            "because": verdict.rule if verdict else "no word and no phrase of the lists is in it",
        }
    )
    return 0


def _change(arguments: argparse.Namespace) -> int:
    numbers = [phone_number(written) for written in arguments.numbers]
    for written, number in zip(arguments.numbers, numbers, strict=True):
        if number is None:
            raise ConfigurationError(
                f"{last_four(written)} is no phone number with its country, like +393351234567"
            )
    configure_log(arguments)
    engine = open_for_writing(settings_of(arguments))
    now = datetime.now(UTC)
    scope = _scope(arguments) or EVERY
    with writing(engine) as connection:
        events = [
            Event(number, scope, arguments.verb, now, reason=arguments.reason) for number in numbers if number
        ]
        write_events(connection, read_secret(connection), events, now)
    done = "out" if arguments.verb == "add" else "may be written to again"
    print(f"{len(numbers)} noted: {done}, for {'every number of ours' if scope == EVERY else scope}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    configure_log(arguments)
    now = datetime.now(UTC)
    raw = arguments.file.read_bytes()
    try:
        written = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        written = raw.decode("cp1252", errors="replace")
    scope = _scope(arguments) or EVERY
    lines = list(read_list(io.StringIO(written, newline=""), scope, arguments.reason, now))
    engine = open_for_writing(settings_of(arguments))
    new, known = take_list(engine, [one for one in lines if isinstance(one, Event)], now)
    unusable = [one for one in lines if isinstance(one, Unusable)]
    for one in unusable:
        complain(f"line {one.line}: {one.reason}")
    print(f"{new:,} opted out, {known:,} were out already, {len(unusable):,} lines could not be taken")
    return int(bool(unusable))


def _export(arguments: argparse.Namespace) -> int:
    from ingestor.cli.export import output  # `check` needs none of it

    engine = open_for_reading(settings_of(arguments))
    with output(arguments.file) as out:
        written = write_list(engine, out, events=arguments.events)
    print(f"{written:,} {'events' if arguments.events else 'opt-outs'} exported", file=sys.stderr)
    return 0


def _scan(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    configure_log(arguments)
    words = words_of(settings.opt_out)
    engine = open_for_writing(settings)
    begun = scan_all(engine, words, anew=True)
    with reading(engine) as connection:
        out = connection.execute(select(func.count(opt_outs.c.number_hmac.distinct()))).scalar_one()
    waiting = figures(engine, datetime.now(UTC)).to_review
    read = f"SMS {begun.after + 1:,} to {begun.until:,} read" if begun.until else "there is no SMS to read"
    print(f"{read}; {out:,} numbers are out, {waiting:,} SMS wait for a person")
    return 0


def scan_all(engine: Engine, words: Words, *, anew: bool = False) -> Scan:
    """Read all SMS for opt-outs that are still to be read (`anew`: all), and return from where to where."""
    begun = begin_scan(engine, words, anew=anew)
    with share_done() as tell:
        state = begun
        for state in scan(engine, words):
            tell(state.after, state.until or 0)
    if not state.done:
        raise IngestorError(
            "somebody else has begun to read the SMS by other words; compare the two configurations"
        )
    return begun


def _review(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    before = instant(arguments.before, zone_of(arguments, settings))
    if before is not None and (arguments.id is not None or arguments.verdict != "dismiss"):
        raise ConfigurationError("--before is for --dismiss, without the id of an SMS")
    if arguments.id is None and before is None:
        if arguments.verdict:
            raise ConfigurationError("name the SMS: ingestor optout review lists them with their ids")
        return _list_reviews(arguments, settings)
    if not arguments.verdict or not arguments.reason:
        raise ConfigurationError("say --out, --in or --dismiss, and the --reason: it stays in the archive")
    configure_log(arguments)
    engine = open_for_writing(settings)
    now = datetime.now(UTC)
    if before is not None:
        print(f"{dismiss_before(engine, before, arguments.reason, now):,} SMS: noted")
        return 0
    with writing(engine) as connection:
        found = decide(
            connection, arguments.id, arguments.verdict, arguments.reason, now, every=arguments.every
        )
    if not found:
        raise IngestorError(
            f"there is no SMS {arguments.id} with a sender; ingestor optout review lists those that wait"
        )
    print(f"SMS {arguments.id}: noted")
    return 0


def _list_reviews(arguments: argparse.Namespace, settings: Settings) -> int:
    with reading(open_for_reading(settings)) as connection:
        rows = open_reviews(connection, asked_for(arguments))
        _tell_of_scan(scan_state(connection))
    print_rows(arguments, settings, REVIEWED, rows)
    return 0
