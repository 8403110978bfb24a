"""The options that say which SMS are meant; `search` and `export` share them."""

import argparse
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING

from ingestor.cli.values import since, text, until
from ingestor.cli.zone import instant
from ingestor.providers import PROVIDERS

if TYPE_CHECKING:
    from ingestor.archive.queries import Filters


def add_filters(parser: argparse.ArgumentParser, times: str) -> None:
    """Add the options; all of them together narrow the result down. `times`: what one without offset is."""
    parser.add_argument("--originator", metavar="N", type=text, help="sender: any part of the number or name")
    parser.add_argument("--destination", metavar="N", type=text, help="any part of the number it was sent to")
    parser.add_argument("--provider", choices=tuple(PROVIDERS), help="only from this provider")
    parser.add_argument(
        "--since",
        metavar="D",
        type=since,
        help="received at this time or later: 2026-01-31, or 2026-01-31T14:30",
    )
    parser.add_argument(
        "--until",
        metavar="D",
        type=until,
        help=f"received on this day or earlier, or before this time; {times} where it has no offset",
    )


def filters_of(
    arguments: argparse.Namespace, *, zone: tzinfo | None = UTC, wanted: str | None = None,
    limit: int | None = None,
) -> "Filters":  # fmt: skip
    """Return what `arguments` ask for; times without an offset are of `zone` (None: the machine's)."""
    from ingestor.archive.queries import Filters

    return Filters(
        originator=arguments.originator,
        destination=arguments.destination,
        text=wanted,
        since=instant(arguments.since, zone),
        until=instant(arguments.until, zone),
        provider=arguments.provider,
        limit=limit,
    )
