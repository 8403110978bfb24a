"""Silence where SMS are expected, a clock or a zone that is hours off, and a certificate that ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trustme
from sqlalchemy import Engine

from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from ingestor.record import Channel
from ingestor.settings import Settings
from ingestor.settings.watch import Expect
from ingestor.watch import watcher
from ingestor.watch.found import Live
from ingestor.watch.metrics import Pages
from ingestor.watch.troubles import clock_off, expected_since, quiet, silent
from tests.archive.samples import PARSER, item, sms

FRIDAY = datetime(2026, 5, 1, 12, tzinfo=UTC)


def _expect(**changed: object) -> Expect:
    return Expect.model_validate({"mailbox": "main", "hours": 4, **changed})


@pytest.mark.parametrize(
    ("hour", "hours", "wanted"),
    [(21, "20:00-07:00", True), (3, "20:00-07:00", True), (7, "20:00-07:00", False),
     (12, "11:00-13:00", True), (13, "11:00-13:00", False), (23, "20:00-24:00", True), (12, None, False)],
)  # fmt: skip
def test_quiet_hours_may_span_midnight(hour: int, hours: str | None, wanted: bool) -> None:
    """From the first to the second time, whichever is the later one."""
    assert quiet(_expect(quiet_hours=hours), FRIDAY.replace(hour=hour)) is wanted


def test_only_hours_that_are_not_quiet_count() -> None:
    """Monday 9:00, quiet at night and over the weekend: four hours before it is Friday 18:00."""
    monday = FRIDAY.replace(day=4, hour=9)
    expect = _expect(quiet_hours="20:00-07:00", quiet_days=["sat", "sun"])

    assert expected_since(expect, monday, UTC) == FRIDAY.replace(hour=18)


def _stored(
    engine: Engine, late: timedelta = timedelta(seconds=3), count: int = 6, first: int = 1,
    now: datetime = FRIDAY,
) -> None:  # fmt: skip
    items = []
    for number in range(first, first + count):
        received = FRIDAY - timedelta(minutes=10 * number)
        items.append(
            item(
                number, channel=Channel.MAILBOX, arrived_at=received + late,
                reading=Readable(sms(number, received_at=received), PARSER),
            )
        )  # fmt: skip
    Store(engine).write([Submission(None, tuple(items))], now)


def test_silence_is_told_by_mailbox_and_by_number(archive_engine: Engine) -> None:
    """What came in time is no silence; of a number only the last four digits are named."""
    _stored(archive_engine)
    expected = [_expect(), _expect(mailbox=None, number="+393331234333"), _expect(mailbox="other"),
                _expect(mailbox=None, number="+393330000999")]  # fmt: skip

    now = [one.subject for one in silent(archive_engine, expected, FRIDAY, UTC)]
    later = [one.subject for one in silent(archive_engine, expected, FRIDAY + timedelta(hours=5), UTC)]

    assert now == ["mailbox other", "number …0999"]
    assert later == ["mailbox main", "number …4333", "mailbox other", "number …0999"]


def test_nobody_is_waked_in_a_quiet_hour(archive_engine: Engine) -> None:
    """The archive is empty, and it is night."""
    assert silent(archive_engine, [_expect(quiet_hours="11:00-13:00")], FRIDAY, UTC) == []


@pytest.mark.parametrize(
    ("late", "says"),
    [(timedelta(seconds=20), None), (timedelta(minutes=40), None),
     (timedelta(hours=1, seconds=20), "1 hour after"), (timedelta(hours=-2), "2 hours before")],
)  # fmt: skip
def test_a_zone_that_is_whole_hours_off_is_seen(
    archive_engine: Engine, late: timedelta, says: str | None
) -> None:
    """All of the newest are as far off, and by whole hours: that is no slow provider."""
    _stored(archive_engine, late)

    found = [one.says for one in clock_off(archive_engine, FRIDAY)]

    assert [says] == ([one.partition(" came ")[2].partition(" they")[0] for one in found] or [None])


def test_a_zone_that_was_right_until_an_hour_ago_is_seen(archive_engine: Engine) -> None:
    """However many came well on the same day: the newest tell how it is now."""
    _stored(archive_engine, count=40, first=20, now=FRIDAY - timedelta(hours=2))
    _stored(archive_engine, timedelta(hours=1), count=10)

    assert len(clock_off(archive_engine, FRIDAY)) == 1


def test_a_few_sms_prove_nothing(archive_engine: Engine) -> None:
    """Four that were late may just have been late."""
    _stored(archive_engine, timedelta(hours=1), count=4)

    assert clock_off(archive_engine, FRIDAY) == []


@pytest.mark.parametrize(("days", "grave"), [(30, None), (13, False), (-1, True)])
def test_a_certificate_is_told_of_two_weeks_before_it_ends(
    tmp_path: Path, days: int, grave: bool | None
) -> None:
    """In time it can wait; ended it cannot: no provider posts any more."""
    now = datetime.now(UTC)
    issued = trustme.CA().issue_cert("localhost", not_after=now + timedelta(days=days, hours=1))
    issued.cert_chain_pems[0].write_to_path(tmp_path / "crt")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    webhook = {"tls_certificate": tmp_path / "crt", "tls_key": tmp_path / "key",
               "endpoint": [{"path": "/a", "provider": "agile"}]}  # fmt: skip
    found = watcher._of_certificate(Settings.model_validate({"webhook": webhook}), now)

    assert [one.grave for one in found] == ([] if grave is None else [grave])


def test_a_client_secret_that_ends_is_told_and_measured(archive_engine: Engine, tmp_path: Path) -> None:
    """Fourteen days ahead by a notice, and its day as a metric."""
    now = datetime.now(UTC)
    oauth = {"provider": "other", "flow": "client_credentials", "client_id": "c", "token_url": "https://h/t",
             "secret_file": "/s", "secret_ends": now.date() + timedelta(days=10)}  # fmt: skip
    mailbox = {"name": "main", "host": "h", "username": "u", "oauth": oauth}
    url = f"sqlite:///{tmp_path}/none.db"
    live = Live(Settings.model_validate({"database": {"url": url}, "mailbox": [mailbox]}))
    live.writer = cast("Any", SimpleNamespace(trouble=None, queued=0))
    heard, moments = list[str](), [now, now + timedelta(minutes=6)]
    daemon = watcher.Watcher(
        live, archive_engine, {"mail": lambda told, *_: heard.extend(one.condition for one in told)},
        clock=lambda: moments.pop(0),
    )  # fmt: skip
    daemon.look()
    daemon.look()

    assert "secret ends" in heard
    told = Pages(live).answer("/metrics")[2].decode()
    assert 'ingestor_secret_expiry_timestamp_seconds{mailbox="main"}' in told
