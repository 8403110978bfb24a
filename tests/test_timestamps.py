"""Times: fourteen local digits and instants, with what was uncertain about them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestor.timestamps import (
    LocalReading,
    TimeQuality,
    as_fourteen_digits,
    fourteen_digits,
    iso_utc,
    read_instant,
    read_local,
)

ROME = ZoneInfo("Europe/Rome")


def _never() -> datetime | None:
    raise AssertionError("asked although nothing is ambiguous")


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("20260514102301", "20260514102301"),
        (" 20260514102301\t", "20260514102301"),
        ("2026-05-14 10:23:01", "20260514102301"),
        ("2026/05/14T10.23.01", "20260514102301"),
        ("20260514 102301", "20260514102301"),
        ("99999999999999", "99999999999999"),
        ("2026051410230", None),
        ("202605141023011", None),
        ("14/05/2026 10:23:01", None),
        ("2026-05-14", None),
        ("２０２６０５１４１０２３０１", None),
        ("", None),
    ],
)
def test_fourteen_digits(written: str, digits: str | None) -> None:
    """Fourteen ASCII digits, with separators as long as the year comes first; nothing is guessed."""
    assert fourteen_digits(written) == digits


def test_an_ordinary_time_asks_nobody() -> None:
    """A time that exists once is that instant, whatever anybody knows."""
    assert read_local("20260514102301", ROME, _never) == LocalReading(
        datetime(2026, 5, 14, 8, 23, 1, tzinfo=UTC), TimeQuality.OK, None
    )


@pytest.mark.parametrize(
    "digits",
    ["20260231000000", "20261301000000", "20260514250000", "20260514240000", "20260514106000",
     "20260514102360", "00000514102301", "19911231235959", "22000101000000"],
)  # fmt: skip
def test_a_time_that_is_no_date(digits: str) -> None:
    """Impossible dates, and years outside 1992 to 2199, are a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are datetime's own
        read_local(digits, ROME, _never)


@pytest.mark.parametrize(
    ("known", "hour", "decided_by"),
    [
        (datetime(2026, 10, 25, 0, 29, tzinfo=UTC), 0, "first candidate, the later one is after arrival"),
        (datetime(2026, 10, 25, 1, 27, 59, tzinfo=UTC), 0, "first candidate, the later one is after arrival"),
        (datetime(2026, 10, 25, 1, 28, tzinfo=UTC), 1, "latest candidate before arrival"),
        (datetime(2026, 10, 26, tzinfo=UTC), 1, "latest candidate before arrival"),
        (None, 0, "first candidate, nothing to compare"),
    ],
)
def test_the_hour_that_happens_twice(known: datetime | None, hour: int, decided_by: str) -> None:
    """The latest candidate not after the known moment plus two minutes wins, else the first."""
    assert read_local("20261025023000", ROME, lambda: known) == LocalReading(
        datetime(2026, 10, 25, hour, 30, tzinfo=UTC), TimeQuality.AMBIGUOUS, decided_by
    )


@given(
    st.integers(725846400, 5680281600),
    st.sampled_from(
        ["Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]
    ),
)
@example(1325202000, "Pacific/Apia")  # 30 December 2011 did not happen there
def test_wall_clocks_are_read_as_datetime_reads_them(seconds: int, zone_name: str) -> None:
    """Any wall clock time, near a change of the clock or not, is the instant that datetime makes of it."""
    zone = ZoneInfo(zone_name)
    wall = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=zone)
    reading = read_local(wall.strftime("%Y%m%d%H%M%S"), zone, lambda: None)
    assert reading.received_at == wall.astimezone(UTC)
    assert (reading.quality is TimeQuality.OK) == (wall.utcoffset() == wall.replace(fold=1).utcoffset())


@pytest.mark.parametrize(
    "zone_name", ["Europe/Rome", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"]
)
def test_every_hour_around_every_change(zone_name: str) -> None:
    """Through thirty years of changes, each half hour has the quality that its two folds give it."""
    zone = ZoneInfo(zone_name)
    wall = datetime(1996, 1, 1, tzinfo=zone)
    while wall.year < 2026:
        wall += timedelta(
            minutes=30 if wall.utcoffset() != (wall + timedelta(hours=30)).utcoffset() else 1410
        )
        ambiguous = wall.utcoffset() != wall.replace(fold=1).utcoffset()
        reading = read_local(wall.strftime("%Y%m%d%H%M%S"), zone, lambda: None)
        assert (reading.quality is not TimeQuality.OK) == ambiguous
        assert reading.received_at == wall.astimezone(UTC)


def test_a_known_moment_at_the_end_of_time() -> None:
    """A Date header of the year 9999 decides like any other instead of overflowing."""
    reading = read_local("20261025023000", ROME, lambda: datetime.max.replace(tzinfo=UTC))
    assert reading.received_at == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_the_hour_that_does_not_exist() -> None:
    """Half past two on the day the clocks go forward is half past three, and flagged."""
    reading = read_local("20260329023000", ROME, _never)
    assert reading == LocalReading(datetime(2026, 3, 29, 1, 30, tzinfo=UTC), TimeQuality.NONEXISTENT, None)


@given(
    st.integers(725846400, 5680281600),  # 1993 to 2150
    st.sampled_from(["Europe/Rome", "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
)
def test_a_local_clock_is_read_back(seconds: int, zone_name: str) -> None:
    """An instant written by a zone's clock comes back, given that the message was known right after it."""
    zone, instant = ZoneInfo(zone_name), datetime.fromtimestamp(seconds, UTC)
    digits = instant.astimezone(zone).strftime("%Y%m%d%H%M%S")
    reading = read_local(digits, zone, lambda: instant + timedelta(seconds=5))
    assert reading.received_at == instant
    assert reading.quality in {TimeQuality.OK, TimeQuality.AMBIGUOUS}


@pytest.mark.parametrize(
    "written",
    [
        "2026-05-14T08:23:01Z",
        "2026-05-14T10:23:01+02:00",
        "2026-05-14T10:23:01.000+0200",
        " 2026-05-14T08:23:01+0000 ",
        "2026-05-14t08:23:01z",
    ],
)
def test_instants(written: str) -> None:
    """ISO 8601 with an offset, with or without its colon (Infobip writes none)."""
    assert read_instant(written) == datetime(2026, 5, 14, 8, 23, 1, tzinfo=UTC)
    assert as_fourteen_digits(read_instant(written)) == "20260514082301"
    assert iso_utc(read_instant(written)) == "2026-05-14T08:23:01Z"


@pytest.mark.parametrize(
    "written", ["2026-05-14T08:23:01", "yesterday", "", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_what_is_no_instant(written: str) -> None:
    """No offset, no date, or a year outside 1992 to 2199, is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are datetime's own
        read_instant(written)


def test_fractions_stay_in_iso_times() -> None:
    """Whole seconds have no fraction, others keep theirs."""
    assert iso_utc(datetime(2026, 5, 14, 8, 23, 1, 250_000, tzinfo=UTC)) == "2026-05-14T08:23:01.250000Z"
