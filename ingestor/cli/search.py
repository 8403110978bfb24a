"""`ingestor search`: SMS of the archive, newest first."""

import argparse

from ingestor.archive.searching import search
from ingestor.cli.arguments import add_filters, add_listing, asked_for, filters_of, print_rows, text, zone_of
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
    add_listing(parser, limit=50)


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; nothing found is no fault."""
    settings = settings_of(arguments)
    zone = zone_of(arguments, settings)
    engine = open_for_reading(settings)
    asked = filters_of(arguments, zone=zone, wanted=arguments.text, limit=asked_for(arguments))
    print_rows(arguments, settings, COLUMNS, search(engine, asked))
    return 0
