"""Values on the command line: what is accepted, and the sentence that says what is wrong with the others."""

from argparse import ArgumentTypeError
from datetime import UTC, date, datetime, timedelta


def text(written: str) -> str:
    """Return words that a database can look for: a shell may hand over bytes that are no UTF-8."""
    try:
        written.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("holds bytes that are no UTF-8") from None
    return written


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
