"""The options that say which SMS are meant; `search` and `export` share them."""

import argparse
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestor.archive.queries import Filters

PROVIDERS = ("agile", "infobip", "ip1")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options; all of them together narrow the result down."""
    parser.add_argument("--originator", metavar="N", help="sender: any part of the number or name")
    parser.add_argument("--destination", metavar="N", help="any part of the number it was sent to")
    parser.add_argument("--provider", choices=PROVIDERS, help="only from this provider")
    parser.add_argument(
        "--since", metavar="D", type=since, help="received at this time or later: 2026-01-31, or with 14:30"
    )
    parser.add_argument(
        "--until",
        metavar="D",
        type=until,
        help="received on this day or earlier, or before this time; in UTC",
    )


def filters_of(
    arguments: argparse.Namespace, *, text: str | None = None, limit: int | None = None
) -> "Filters":
    """Return what `arguments` ask for."""
    from ingestor.archive.queries import Filters

    return Filters(
        originator=arguments.originator,
        destination=arguments.destination,
        text=text,
        since=arguments.since,
        until=arguments.until,
        provider=arguments.provider,
        limit=limit,
    )


def since(written: str) -> datetime:
    """Return the first moment meant by a day or a time (UTC where it has no offset)."""
    return _moment(written)


def until(written: str) -> datetime:
    """Return the first moment after what is meant: a day counts whole, a time up to itself."""
    moment = _moment(written)
    return moment + timedelta(days=1) if _is_day(written) else moment


def _is_day(written: str) -> bool:
    try:
        date.fromisoformat(written)
    except ValueError:
        return False
    return True


def _moment(written: str) -> datetime:
    try:
        moment = datetime.fromisoformat(written)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{written!r} is no day like 2026-01-31 and no time like 2026-01-31T14:30"
        ) from None
