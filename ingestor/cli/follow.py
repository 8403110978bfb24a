"""`ingestor follow`: one JSON line for each SMS as it is committed, for a program that waits for a reply."""

import argparse
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from ingestor.archive.views import plain_row
from ingestor.cli import complain
from ingestor.cli.arguments import count, instant, since, text
from ingestor.cli.opening import open_unchecked, settings_of
from ingestor.cli.printing import print_json
from ingestor.errors import ArchiveUnavailable
from ingestor.numbers import normalise_agile
from ingestor.replies.following import Following, wanted

EXAMPLES = """
ingestor follow
ingestor follow --destination +393331234333 | jq --unbuffered -r .text
ingestor follow --originator +393351234567 --match '\\b482917\\b' --count 1 --timeout 120
ingestor follow --since 2026-01-31T14:30Z --count 1 --timeout 60
"""

_LOOK_SECONDS = 0.3
_AWAY_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--originator", metavar="N", type=text, help="only from exactly this number or name")
    parser.add_argument("--destination", metavar="N", type=text, help="only to exactly this number of ours")
    parser.add_argument(
        "--match", metavar="RE", type=_expression, help="only where this is found in the text"
    )
    parser.add_argument(
        "--since", metavar="T", type=since,
        help="only what was received at this time or later, what is there already first (UTC without offset)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", metavar="S", type=_seconds, help="end with 1 after so many seconds (default: never)"
    )
    parser.add_argument(
        "--count", metavar="N", type=count, default=0, help="end with 0 after N lines (default: never)"
    )


def _expression(written: str) -> re.Pattern[str]:
    try:
        return re.compile(text(written))
    except re.error as fault:
        raise argparse.ArgumentTypeError(f"{written!r} is no regular expression: {fault}") from None


def _seconds(written: str) -> float:
    try:
        seconds = float(written)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{written!r} is no number of seconds")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Print until the count is there (0) or the time is over (1)."""
    until = time.monotonic() + arguments.timeout if arguments.timeout is not None else float("inf")
    left = arguments.count or float("inf")
    for row in _rows(arguments, until):
        if arguments.match is not None and not arguments.match.search(row["text"] or ""):
            continue
        print_json(plain_row(row))
        left -= 1
        if not left:
            return 0
    return 1


def _rows(arguments: argparse.Namespace, until: float) -> Iterator[Mapping[str, Any]]:
    """Give what is committed, and come to an end at `until`; an archive that is away is waited for."""
    begin = instant(arguments.since, UTC)
    originator, destination = (
        normalise_agile(number).value if number else None
        for number in (arguments.originator, arguments.destination)
    )
    # Not the schema's number but the view is asked for: an auditor's role may see nothing else.
    following = Following(open_unchecked(settings_of(arguments)), wanted(originator, destination, begin))
    yield from following.begin(begin)
    away = False
    while True:
        try:
            yield from following.look()
            away = False
        except ArchiveUnavailable as fault:
            if not away:
                complain(f"{fault}; waiting for it")
            away = True
        pause = min(_AWAY_SECONDS if away else _LOOK_SECONDS, until - time.monotonic())
        if pause <= 0:
            return
        time.sleep(pause)
