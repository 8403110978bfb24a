"""Local time for people: what a screen shows carries its offset, and a time without one is local."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestor.settings import Settings


def add_utc(parser: argparse.ArgumentParser) -> None:
    """Add the option that asks for UTC."""
    parser.add_argument("--utc", action="store_true", help="times in UTC (default: local, see `timezone`)")


def zone_of(arguments: argparse.Namespace, settings: "Settings") -> tzinfo | None:
    """Return the zone that times are shown and meant in; None is the machine's own (TZ, /etc/localtime)."""
    if arguments.utc:
        return UTC
    if settings.timezone is None:
        return None
    from zoneinfo import ZoneInfo

    return ZoneInfo(settings.timezone)


def localised(row: Mapping[str, Any], zone: tzinfo | None) -> dict[str, Any]:
    """Return `row` with its times in `zone`; everything else as it is."""
    return {
        name: value.astimezone(zone) if isinstance(value, datetime) else value for name, value in row.items()
    }


def instant(written: datetime | None, zone: tzinfo | None) -> datetime | None:
    """Return the UTC instant that was written; without an offset it is of `zone`."""
    if written is None:
        return None
    try:
        return (written if written.tzinfo or zone is None else written.replace(tzinfo=zone)).astimezone(UTC)
    except (OverflowError, ValueError, OSError):  # the first or the last day of the calendar
        return written.replace(tzinfo=UTC)
