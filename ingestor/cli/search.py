"""`ingestor search`: SMS of the archive, newest first."""

import argparse
import sys

from ingestor.archive.searching import search
from ingestor.cli.arguments import add_filters, add_utc, count, filters_of, print_rows, text, zone_of
from ingestor.cli.opening import open_for_reading, settings_of

EXAMPLES = """
ingestor search
ingestor search "your code" --since 2026-01-01
ingestor search --originator 333123 --until 2025-12-31 --limit 0
ingestor search invoice --json | jq -r .originator
"""

COLUMNS = ("id", "received_at", "originator", "destination", "text")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text",
        nargs="?",
        metavar="TEXT",
        type=text,
        help="any part of the text; case and accents do not count",
    )
    add_filters(parser, "local")
    add_utc(parser)
    parser.add_argument(
        "--limit", type=count, default=50, metavar="N", help="at most N, the newest; 0: all (default: 50)"
    )
    parser.add_argument("--json", action="store_true", help="every column, one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; nothing found is no fault."""
    settings = settings_of(arguments)
    zone = zone_of(arguments, settings)
    engine = open_for_reading(settings)
    limit = arguments.limit
    asked = filters_of(arguments, zone=zone, wanted=arguments.text, limit=limit + 1 if limit else None)
    found = search(engine, asked)
    more = bool(limit) and len(found) > limit
    rows = found[:limit] if more else found
    print_rows(arguments, settings, COLUMNS, rows)
    if more:
        print(f"There are more than these {limit}; --limit 0 prints all.", file=sys.stderr)
    return 0
