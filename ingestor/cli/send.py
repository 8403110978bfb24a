"""`ingestor send`: a message by hand or from a script, a row each before its request leaves."""

import argparse
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Engine

from ingestor.cli.arguments import count, reason, since, standard_input, text
from ingestor.cli.opening import configure_log, open_for_writing, settings_of
from ingestor.cli.printing import print_json, printable
from ingestor.errors import ConfigurationError
from ingestor.numbers import OriginatorKind, last_four, normalise_agile
from ingestor.replies.agile import AgileClient, Message, client_of
from ingestor.replies.answers import prepare, send_now
from ingestor.replies.parts import parts_of, why_not_with_header
from ingestor.replies.rules import reports_wanted
from ingestor.replies.verdicts import Fate, Verdict
from ingestor.settings import Settings
from ingestor.settings.replies import sender

EXAMPLES = """
ingestor send +393351234567 --sender MyShop --text "Your order is ready"
ingestor send +393351234567 --sender MyShop --text "A test" --simulate
echo "Your order is ready" | ingestor send +393351234567 --sender MyShop -
ingestor send +393351234567 --sender MyShop --text "Tomorrow at 10" --schedule 2026-12-08T06:00+01:00
"""

_NOT_TRIED = Verdict(Fate.NOT_SENT, "not tried: every message would be refused")
_UUID_LENGTH = 36
_MOST_PARTS = 255  # 3GPP TS 23.040, 9.2.3.24.1: one byte says how many there are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Name every parameter of Agile's REST document."""
    parser.interleaved = True  # type: ignore[attr-defined]  # CommandParser's own
    parser.add_argument(
        "numbers",
        nargs="+",
        metavar="NUMBER",
        help="in international format; a last - reads the text from stdin",
    )
    parser.add_argument("--sender", required=True, help="at most 11 letters and digits, or 16 digits")
    parser.add_argument("--text", type=text, metavar="T", help="what is sent (or - behind the numbers)")
    parser.add_argument("--simulate", action="store_true", help="let Agile check it, and send nothing")
    parser.add_argument(
        "--schedule", type=since, metavar="TIME", help="let Agile send it then (with an offset)"
    )
    parser.add_argument("--hex-body", action="store_true", help="the text is HEX: bytes of a binary message")
    parser.add_argument("--udh", metavar="HEX", help="user data header")
    parser.add_argument("--no-concatenated", action="store_true", help="do not let Agile split a long text")
    parser.add_argument("--no-unicode", action="store_true", help="do not let Agile use UCS-2")
    parser.add_argument(
        "--delivery", action=argparse.BooleanOptionalAction, default=None,
        help="ask for delivery reports (default: where an endpoint for them is configured)",
    )  # fmt: skip
    parser.add_argument("--id", type=text, help="the message's id, for one number (default: a UUID)")
    parser.add_argument("--max-id-len", type=count, default=64, metavar="N", help="longest id (default: 64)")
    parser.add_argument(
        "--force",
        type=reason,
        metavar="REASON",
        help="write to numbers that are out, too; the reason is kept",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each number")


def run(arguments: argparse.Namespace) -> int:
    """Send to each number; return 0 when all were accepted, 1 when some were not, 2 for wrong usage."""
    settings = settings_of(arguments)
    body = _body(arguments)
    messages = list(_messages(arguments, settings, body))
    client = client_of(settings)  # before the archive's owner is taken on: root may read the credential
    configure_log(arguments)
    engine = open_for_writing(settings, create=True)
    _tell_first(arguments, body)
    accepted = 0
    stopped = False
    for message in messages:
        verdict = _NOT_TRIED if stopped else _send(engine, client, message, arguments.force)
        accepted += _tell(arguments, message, verdict)
        stopped = stopped or verdict.pauses
    return 0 if accepted == len(messages) else 1


def _body(arguments: argparse.Namespace) -> str:
    """Return what is sent. Raises ConfigurationError where it is given twice, not at all, or is no HEX."""
    if arguments.numbers[-1] == "-":
        arguments.numbers.pop()
        if arguments.text is not None:
            raise ConfigurationError("the text is given twice: by --text and by -")
        body = _stdin()
    elif arguments.text is None:
        raise ConfigurationError(
            "there is no text: give --text, or - behind the numbers to read it from stdin"
        )
    else:
        body = arguments.text
    if not body:
        raise ConfigurationError("the text is empty")
    for name, written in (
        ("the text with --hex-body", body if arguments.hex_body else ""),
        ("--udh", arguments.udh),
    ):
        if written and not re.fullmatch("(?:[0-9A-Fa-f]{2})*", written):
            raise ConfigurationError(f"{name} is no HEX: pairs of 0-9 and A-F")
    if arguments.udh is not None and (
        why := why_not_with_header(arguments.udh, body, hex_body=arguments.hex_body)
    ):
        raise ConfigurationError(f"--udh {arguments.udh}: {why}")
    parts = parts_of(body, hex_body=arguments.hex_body).parts
    if parts > _MOST_PARTS:
        raise ConfigurationError(f"the text takes {parts} parts, and a message has at most {_MOST_PARTS}")
    return body


def _stdin() -> str:
    try:
        return standard_input().buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError("the text on stdin is no UTF-8") from None


def _messages(arguments: argparse.Namespace, settings: Settings, body: str) -> Iterator[Message]:
    """Yield a message for each number. Raises ConfigurationError where one cannot be."""
    try:
        sender(arguments.sender)
    except ValueError as fault:
        raise ConfigurationError(f"--sender {fault}") from None
    numbers = [normalise_agile(text(one)) for one in arguments.numbers]
    for written, number in zip(arguments.numbers, numbers, strict=True):
        if number.kind is not OriginatorKind.MSISDN:
            raise ConfigurationError(
                f"{last_four(written)!r} is no phone number in international format, like +393351234567"
            )
    if not numbers:
        raise ConfigurationError("there is no number to send to")
    unique = list(dict.fromkeys(number.value for number in numbers))
    own = _own_id(arguments, len(unique))
    for one in unique:
        yield Message(
            own or str(uuid.uuid4()), one, arguments.sender, body, arguments.max_id_len,
            concatenated=not arguments.no_concatenated, unicode=not arguments.no_unicode,
            delivery=reports_wanted(settings) if arguments.delivery is None else arguments.delivery,
            simulation=arguments.simulate, hex_body=arguments.hex_body, udh=arguments.udh,
            scheduling=_scheduling(arguments.schedule),
        )  # fmt: skip


def _own_id(arguments: argparse.Namespace, numbers: int) -> str | None:
    longest = arguments.max_id_len
    if arguments.id is None:
        if longest < _UUID_LENGTH:
            raise ConfigurationError(
                f"--max-id-len below {_UUID_LENGTH} has no room for a UUID: give --id, too"
            )
        return None
    if numbers > 1:
        raise ConfigurationError("--id is for one number: reports tell messages apart by it")
    if not 0 < len(arguments.id) <= longest:
        raise ConfigurationError(f"--id must have 1 to {longest} characters (--max-id-len)")
    own: str = arguments.id
    return own


def _scheduling(moment: datetime | None) -> str | None:
    """Return `moment` as Agile's REST document writes it: 2025-12-08 06:00:00.002+0200."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ConfigurationError("--schedule needs an offset, like 2026-12-08T06:00+01:00 or …Z")
    if moment <= datetime.now(UTC):
        raise ConfigurationError("--schedule is in the past")
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}{moment:%z}"


def _tell_first(arguments: argparse.Namespace, body: str) -> None:
    """Say how the text travels before anything leaves; on stderr, where --json keeps stdout for objects."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    found = parts_of(body, hex_body=arguments.hex_body)
    why = f" (because of {', '.join(found.culprits[:5])})" if found.culprits else ""
    size = f"{found.units} bytes" if arguments.hex_body else f"{len(body)} characters"
    tell(f"{found.encoding}{why}, {size}, {_so_many(found.parts)}")
    if arguments.no_concatenated and found.parts > 1:
        tell("note: Agile does not document what --no-concatenated makes of a text of several parts")
    if arguments.no_unicode and found.culprits:
        tell("note: Agile does not document what --no-unicode makes of such characters")
    if arguments.schedule is not None:
        tell("note: Agile documents no call that cancels a scheduled message: a STOP that comes later cannot")


def _so_many(parts: int) -> str:
    return "1 part" if parts == 1 else f"{parts} parts"


def _send(engine: Engine, client: AgileClient, message: Message, force: str | None) -> Verdict:
    """Send one message, again where it was surely not accepted, and return what became of it."""
    answer_id, why_not = prepare(engine, message, force)
    return Verdict(Fate.REFUSED, why_not) if why_not is not None else send_now(engine, client, answer_id)


def _tell(arguments: argparse.Namespace, message: Message, verdict: Verdict) -> bool:
    """Print what became of one message; say whether it was accepted."""
    credit = None if verdict.credit is None else str(verdict.credit)
    if arguments.json:
        fate = "not_tried" if verdict is _NOT_TRIED else str(verdict.fate)
        print_json({
            "number": message.number, "id": message.id, "outcome": fate, "words": verdict.words,
            "code": verdict.code, "parts": verdict.parts, "credit": credit,
        })  # fmt: skip
    else:
        more = [
            f"id {message.id}",
            *([_so_many(verdict.parts)] if verdict.parts else []),
            *([f"credit {credit} EUR"] if credit else []),
        ]
        simulated = " (simulated)" if message.simulation else ""
        print(printable(f"{message.number}  {verdict.words}{simulated}; {', '.join(more)}"), flush=True)
    return verdict.fate is Fate.ACCEPTED
