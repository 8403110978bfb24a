"""`ingestor show`: one SMS with all its evidence, or the raw bytes it came in."""

import argparse
import json
from collections.abc import Mapping
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from ingestor.archive.queries import Evidence, raw_of_arrival, show
from ingestor.archive.views import plain_row
from ingestor.cli.arguments import add_utc, count, localised, print_rows, text, zone_of
from ingestor.cli.opening import open_for_reading, settings_of
from ingestor.cli.printing import print_fields, print_json, printable, raw_output
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.numbers import last_four, normalise_agile
from ingestor.settings import Settings, rules_for

if TYPE_CHECKING:
    from ingestor.archive.integrity import Doubt

EXAMPLES = """
ingestor show 42
ingestor show 42 --raw > mail.eml
ingestor show 42 --arrival 57 --raw | sha256sum
ingestor show 42 --json
ingestor show --conversation +393351234567
"""

CONVERSATION = ("at", "direction", "our_number", "state", "text")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "id", nargs="?", metavar="ID", type=count, help="id of the SMS, as `search` prints it"
    )
    parser.add_argument(
        "--conversation", metavar="NUMBER", type=text, help="what went both ways with a number, oldest first"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="write the bytes it arrived in, exactly")
    parser.add_argument(
        "--arrival", metavar="N", type=count, help="with --raw: of this arrival (default: the first kept)"
    )
    form.add_argument("--json", action="store_true", help="everything as one JSON object")
    add_utc(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the SMS, or its raw bytes; return 1 where these are no longer what arrived."""
    if arguments.arrival is not None and not arguments.raw:
        raise ConfigurationError("--arrival says whose bytes to write: give --raw too")
    if (arguments.id is None) == (arguments.conversation is None):
        raise ConfigurationError("say which SMS: its ID, or --conversation NUMBER")
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    if arguments.conversation is not None:
        if arguments.raw:
            raise ConfigurationError("--raw writes the bytes of one SMS: give its ID")
        return _conversation(engine, arguments, settings)
    evidence = show(engine, arguments.id)
    if evidence is None:
        raise IngestorError(f"there is no SMS {arguments.id}; `ingestor search` lists them with their ids")
    if arguments.raw:
        raw_output().write(_raw(engine, evidence, arguments.arrival))
        return 0
    from ingestor.archive.integrity import doubts  # what reads anew is as much as all else here
    from ingestor.intake.retry import todays_reader

    found = doubts(engine, evidence, todays_reader(lambda provider: rules_for(settings, provider)))
    if arguments.json:
        print_json(_whole(evidence, found))
    else:
        _print(evidence, found, zone_of(arguments, settings))
    return int(any(doubt.damaged for doubt in found.values()))


def _conversation(engine: Engine, arguments: argparse.Namespace, settings: Settings) -> int:
    from ingestor.replies.answering import conversation

    number = normalise_agile(arguments.conversation).value
    rows = conversation(engine, number)
    if not rows:
        raise IngestorError(
            f"nothing came from or went to {last_four(number)}; `ingestor search` lists what came"
        )
    print_rows(arguments, settings, CONVERSATION, [row._asdict() for row in rows])
    return 0


def _raw(engine: Engine, evidence: Evidence, arrival: int | None) -> bytes:
    number = evidence.sms["id"]
    if arrival is None:
        kept = [one["id"] for one in evidence.arrivals if one["payload_size"] is not None]
        if not kept:
            raise IngestorError(f"the raw bytes of SMS {number} are no longer kept")
        arrival = kept[0]
    elif arrival not in [one["id"] for one in evidence.arrivals]:
        known = ", ".join(str(one["id"]) for one in evidence.arrivals)
        raise IngestorError(f"arrival {arrival} is none of SMS {number}; it has: {known}")
    return checked_raw(engine, arrival)


def checked_raw(engine: Engine, arrival: int) -> bytes:
    """Return the bytes that an arrival came with. Raises IngestorError where they are damaged or not kept."""
    try:
        raw = raw_of_arrival(engine, arrival)
    except ValueError as fault:
        raise IngestorError(f"the raw bytes of arrival {arrival} cannot be given back: {fault}") from None
    if raw is None:
        raise IngestorError(f"the raw bytes of arrival {arrival} are no longer kept")
    return raw


def _whole(evidence: Evidence, doubts: "Mapping[int, Doubt]") -> dict[str, Any]:
    content = dict(evidence.content or {})
    if isinstance(content.get("details"), str):
        content["details"] = json.loads(content["details"])
    return {
        "sms": plain_row(evidence.sms),
        "content": plain_row(content),
        "arrivals": [{**plain_row(one), **_doubt_fields(doubts.get(one["id"]))} for one in evidence.arrivals],
    }


def _doubt_fields(doubt: "Doubt | None") -> dict[str, str | None]:
    return {
        "payload_damaged": doubt.damaged if doubt else None,
        "today_read_otherwise": doubt.read_otherwise if doubt else None,
    }


def _print(evidence: Evidence, doubts: "Mapping[int, Doubt]", zone: tzinfo | None) -> None:
    sms = localised(evidence.sms, zone)
    print_fields(sms)
    content = evidence.content
    if content is None:
        when = f"erased on {printable(sms['erased_at'])}, basis {sms['erasure_basis']}"
        print_fields({"content": when if sms["erased_at"] else "is missing, and no erasure took it"})
    else:
        raw = {name: content[name] for name in ("originator_raw", "destination_raw", "details")}
        print_fields({name: value for name, value in raw.items() if value != "{}"})
    for arrival in evidence.arrivals:
        print(f"\narrival {arrival['id']}")
        told = _doubt_fields(doubts.get(arrival["id"]))
        print_fields(arrival_fields({**localised(arrival, zone), **told}))


def arrival_fields(arrival: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an arrival that say something, fit for a screen."""
    return {
        name: bytes(value).hex() if isinstance(value, bytes | memoryview) else value
        for name, value in arrival.items()
        if name not in {"id", "sms_id"} and (value or name not in {"number", "read_by_retry"})
    }
