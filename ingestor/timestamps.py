"""Provider times: fourteen local digits or an instant, read into UTC with what was uncertain about them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from ingestor.errors import nearest
from ingestor.numbers import INVISIBLE

_WRITTEN = re.compile(
    r"([0-9]{4})[-/. ]?([0-9]{2})[-/. ]?([0-9]{2})[T ]?([0-9]{2})[:. ]?([0-9]{2})[:. ]?([0-9]{2})"
)
_CLOCK_SLACK = timedelta(minutes=2)
_NONE = timedelta(0)
# Around an hour: of the 599 zones of tzdata 2026f none changed its clock twice within 167 hours since 1992.
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
FIRST_YEAR, _LAST_YEAR = 1992, 2199  # the first SMS was sent in 1992


def utc_now() -> datetime:
    """Return the time of now in UTC: the clock of whoever is given none."""
    return datetime.now(UTC)


class TimeQuality(StrEnum):
    """How sure `received_at` is: in the hour that happens twice, or in the one that does not exist."""

    OK = "ok"
    AMBIGUOUS = "ambiguous"
    NONEXISTENT = "nonexistent"


class LocalReading(NamedTuple):
    """What fourteen local digits mean: the instant in UTC, its quality, and what decided between two."""

    received_at: datetime
    quality: TimeQuality
    decided_by: str | None


def zone_name(name: str) -> str:
    """Return `name` where it is a zone of the IANA database. Raises ValueError with the nearest one."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone{nearest(name, available_timezones())}") from None
    return name


def fourteen_digits(written: str) -> str | None:
    """Return the YYYYMMDDHHMMSS digits of `written`, None where it is no such time: separators are taken as
    long as the year comes first, so nothing is guessed.
    """
    if len(written) == 14 and written.isascii() and written.isdigit():
        return written
    match = _WRITTEN.fullmatch(written.strip().strip(INVISIBLE).strip())
    return "".join(match.groups()) if match else None


def read_local(digits: str, zone: ZoneInfo, known_by: Callable[[], datetime | None]) -> LocalReading:
    """Return the reading of fourteen `digits` written by a clock in `zone`.

    `known_by` gives the moment the message was already known elsewhere (the mail's Date header, the
    POST's arrival), aware, or None. It is only asked in the hour that happens twice: the latest candidate
    not after it plus two minutes wins, else the first. In the hour that does not exist the time is
    shifted forward. Raises ValueError where the digits are no real date.
    """
    if digits[8:10] == "24":  # midnight to Python 3.14, and no hour to anybody's clock
        raise ValueError("hour must be in 0..23")
    # The wall clock's digits as if they were UTC: an offset taken away makes them the instant.
    wall = datetime.fromisoformat(f"{digits[:8]}T{digits[8:]}Z")
    if not FIRST_YEAR <= wall.year <= _LAST_YEAR:
        raise ValueError("the year is outside 1992 to 2199")
    sure = _offset_in(digits[:10], zone)
    if sure is not None:
        return LocalReading(wall - sure, TimeQuality.OK, None)
    offset = zone.utcoffset(wall) or _NONE
    received_at = wall - offset
    other_offset = zone.utcoffset(wall.replace(fold=1)) or _NONE
    if offset == other_offset:
        return LocalReading(received_at, TimeQuality.OK, None)
    if offset < other_offset:
        return LocalReading(received_at, TimeQuality.NONEXISTENT, None)
    known = known_by()
    if known is None:
        return LocalReading(received_at, TimeQuality.AMBIGUOUS, "first candidate, nothing to compare")
    later = wall - other_offset
    if later - known <= _CLOCK_SLACK:
        return LocalReading(later, TimeQuality.AMBIGUOUS, "latest candidate before arrival")
    return LocalReading(received_at, TimeQuality.AMBIGUOUS, "first candidate, the later one is after arrival")


@lru_cache(maxsize=1024)
def _offset_in(hour: str, zone: ZoneInfo) -> timedelta | None:
    """Return the offset of `zone` in a local `hour` (ten digits), None where it changes within a day."""
    begins = datetime.fromisoformat(f"{hour[:8]}T{hour[8:]}Z")
    offset = zone.utcoffset(begins) or _NONE
    before, after = zone.utcoffset(begins - _DAY), zone.utcoffset(begins + _HOUR + _DAY)
    return offset if before == offset == after else None


def read_instant(written: str) -> datetime:
    """Return the UTC instant of ISO 8601 with an offset (`Z`, `+00:00`, Infobip's `+0000`) or ValueError."""
    instant = datetime.fromisoformat(written.strip().upper())  # RFC 3339, section 5.6: t and z may be small
    if instant.tzinfo is None:
        raise ValueError("the time has no offset")
    if not FIRST_YEAR <= instant.year <= _LAST_YEAR:
        raise ValueError("the year is outside 1992 to 2199")
    return instant.astimezone(UTC)


def as_fourteen_digits(instant: datetime) -> str:
    """Return an aware `instant` as YYYYMMDDHHMMSS in UTC."""
    return instant.astimezone(UTC).strftime("%Y%m%d%H%M%S")


def iso_utc(instant: datetime) -> str:
    """Return an aware `instant` as ISO 8601 text in UTC with Z; whole seconds have no fraction."""
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat()[:-6] + "Z"
