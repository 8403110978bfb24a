"""What several commands take: values, and the sentence on a wrong one; filters of SMS; whose time is meant.

What a screen shows carries its offset, and a time without one is local.
"""

import argparse
import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, TextIO
from zoneinfo import ZoneInfo

from ingestor.archive.views import plain_row
from ingestor.cli.printing import print_json, print_table
from ingestor.errors import IngestorError
from ingestor.providers import PROVIDERS
from ingestor.settings import Settings

if TYPE_CHECKING:
    from ingestor.archive.searching import Filters


def text(written: str) -> str:
    """Return words that a database can look for: a shell may hand over bytes that are no UTF-8."""
    try:
        written.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("holds bytes that are no UTF-8") from None
    return written


def reason(written: str) -> str:
    """Return why a person does something, in words that are kept."""
    if not written.strip():
        raise ArgumentTypeError("is empty; say why, it is kept")
    return text(written)


def count(written: str) -> int:
    """Return a number from 0, of at most the digits that a database column holds."""
    if not written.isascii() or not written.isdecimal() or len(written) > 18:
        raise ArgumentTypeError(f"{written!r} is no number from 0")
    return int(written)


def day(written: str) -> date:
    """Return a day given as YYYY-MM-DD."""
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise ArgumentTypeError(f"{written!r} is no day like 2026-01-31") from None


def since(written: str) -> datetime:
    """Return the first moment meant by a day or a time: naive where it has no offset, else in UTC."""
    try:
        moment = datetime.fromisoformat(written)
        return moment if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            f"{written!r} is no day like 2026-01-31 and no time like 2026-01-31T14:30"
        ) from None


def until(written: str) -> datetime:
    """Return the first moment after what is meant: a day counts whole, a time up to itself."""
    moment = since(written)
    try:
        date.fromisoformat(written)
    except ValueError:
        return moment.replace(fold=1)  # in the hour that happens twice it is the later one
    try:
        return moment + timedelta(days=1)
    except OverflowError:
        return moment  # the last day of the calendar


def add_utc(parser: argparse.ArgumentParser) -> None:
    """Add the option that asks for UTC."""
    parser.add_argument("--utc", action="store_true", help="times in UTC (default: local, see `timezone`)")


def add_listing(parser: argparse.ArgumentParser, limit: int = 0) -> None:
    """Add the options of what lists rows: how many of them (0: all), and how `print_rows` shows them."""
    parser.add_argument(
        "--limit", type=count, default=limit, metavar="N",
        help=f"at most N, the newest; 0: all (default: {limit or 'all'})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="every column, one JSON object a line")
    add_utc(parser)


def asked_for(arguments: argparse.Namespace) -> int | None:
    """Return how many rows to ask for: one more than --limit, by which `print_rows` knows of more."""
    return arguments.limit + 1 if arguments.limit else None


def zone_of(arguments: argparse.Namespace, settings: Settings) -> tzinfo | None:
    """Return the zone that times are shown and meant in; None is the machine's own (TZ, /etc/localtime)."""
    if arguments.utc:
        return UTC
    if settings.timezone is None:
        return None
    return ZoneInfo(settings.timezone)


def localised(row: Mapping[str, Any], zone: tzinfo | None) -> dict[str, Any]:
    """Return `row` with its times in `zone`; everything else as it is."""
    return {
        name: value.astimezone(zone) if isinstance(value, datetime) else value for name, value in row.items()
    }


def print_rows(
    arguments: argparse.Namespace, settings: Settings, columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    """Print `rows`: with --json whole, an object a line, else their `columns`; and that there are more than
    --limit; times as `zone_of` says.
    """
    limit = getattr(arguments, "limit", 0) or len(rows)
    if arguments.json:
        for row in rows[:limit]:
            print_json(plain_row(row))
    else:
        shown = (localised(row, zone_of(arguments, settings)) for row in rows[:limit])
        print_table(columns, ([row[column] for column in columns] for row in shown))
    if len(rows) > limit:
        print(f"There are more than these {limit}; --limit 0 prints all.", file=sys.stderr)


def instant(written: datetime | None, zone: tzinfo | None) -> datetime | None:
    """Return the UTC instant that was written; without an offset it is of `zone`."""
    if written is None:
        return None
    try:
        return (written if written.tzinfo or zone is None else written.replace(tzinfo=zone)).astimezone(UTC)
    except (OverflowError, ValueError, OSError):  # the first or the last day of the calendar
        return written.replace(tzinfo=UTC)


def add_filters(parser: argparse.ArgumentParser, times: str) -> None:
    """Add the options; all of them together narrow the result down. `times`: what one without offset is."""
    parser.add_argument(
        "--originator", metavar="N", type=text, help="sender: a whole number, or any part of one or of a name"
    )
    parser.add_argument(
        "--destination", metavar="N", type=text, help="the number it was sent to, or any part of it"
    )
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


def standard_input() -> TextIO:
    """Return stdin. Raises IngestorError where it is closed: that must not pass for an empty file."""
    if sys.stdin is None:
        raise IngestorError("stdin is closed: there is nothing to read")
    return sys.stdin


def filters_of(
    arguments: argparse.Namespace, *, zone: tzinfo | None = UTC, wanted: str | None = None,
    limit: int | None = None,
) -> "Filters":  # fmt: skip
    """Return what `arguments` ask for; times without an offset are of `zone` (None: the machine's)."""
    from ingestor.archive.searching import Filters  # for those who filter alone

    return Filters(
        originator=arguments.originator,
        destination=arguments.destination,
        text=wanted,
        since=instant(arguments.since, zone),
        until=instant(arguments.until, zone),
        provider=arguments.provider,
        limit=limit,
    )
