"""People see and mean local time; programs get UTC."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from ingestor.archive.items import Submission
from ingestor.archive.mailbox_state import note_source
from ingestor.archive.store import Store
from ingestor.cli.arguments import instant, since, until
from ingestor.providers.contract import Readable
from tests import readme
from tests.archive.samples import NOW, PARSER, item, sms
from tests.cli.conftest import Filled

HERE = "2026-03-01 17:30:04+05:30"  # of the fourth SMS, in Kolkata
THERE = "2026-03-01 12:00:04Z"


@contextmanager
def _machine_in(monkeypatch: pytest.MonkeyPatch, zone: str) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        yield
    time.tzset()


def _configured(filled: Filled, zone: str | None) -> None:
    config = filled.folder / "ingestor.toml"
    line = f'timezone = "{zone}"\n' if zone else ""
    config.write_text(f'{line}[agile]\nsender = "smsin@agiletelecom.com"\n')


@pytest.mark.parametrize("how", ["setting", "machine", "setting before machine"])
def test_people_see_local_time_with_its_offset(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By the setting, else by the machine; --utc shows UTC; JSON, exports and rows are UTC always."""
    now = datetime.now(UTC)
    note_source(filled.engine, "main", "mailbox", "watching", None, 60, now, success=True)
    _configured(filled, "Asia/Kolkata" if "setting" in how else None)
    monkeypatch.setenv("INGESTOR_CONFIG", str(filled.folder / "ingestor.toml"))
    machine = {"setting": "UTC", "machine": "Asia/Kolkata"}.get(how, "America/New_York")
    with _machine_in(monkeypatch, machine):
        for command in (
            ("search",), ("show", "4"), ("status",), ("quarantine", "list"), ("quarantine", "show", "7"),
        ):  # fmt: skip
            local, utc = filled.call(*command).out, filled.call(*command, "--utc").out
            assert "+05:30" in local, command
            assert "+05:30" not in utc, command
            assert "Z\t" in utc or "Z\n" in utc, command
        assert HERE in filled.call("search").out
        assert THERE in filled.call("search", "--utc").out
        assert HERE in filled.call("show", "4").out
        for command in (
            ("search", "--json"), ("show", "4", "--json"), ("status", "--json"),
            ("quarantine", "list", "--json"), ("export",), ("export", "--format", "csv"),
        ):  # fmt: skip
            assert "+05:30" not in filled.call(*command).out, command
        assert '"2026-03-01T12:00:04Z"' in filled.call("search", "--json").out


def test_people_mean_local_time(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `search` is given is local, with --utc and in `export` UTC; an offset goes before both."""
    _configured(filled, "Asia/Kolkata")
    monkeypatch.setenv("INGESTOR_CONFIG", str(filled.folder / "ingestor.toml"))

    def found(*words: str) -> list[int]:
        rows = [json.loads(line) for line in filled.call(*words).out.splitlines()]
        return sorted(row["id"] for row in rows)

    search, export = ("search", "--json"), ("export",)
    assert found(*search, "--since", "2026-03-01T17:30:04") == [4, 5]
    assert found(*search, "--since", "2026-03-01T17:30:04", "--utc") == []
    assert found(*search, "--since", "2026-03-01T12:00:04", "--utc") == [4, 5]
    assert found(*search, "--since", "2026-03-01T12:00:04Z") == [4, 5]
    assert found(*search, "--until", "2026-03-01T17:30:02") == [1]
    assert found(*search, "--since", "2026-03-02") == []
    assert found(*export, "--since", "2026-03-01T12:00:04") == [4, 5]
    assert found(*export, "--since", "2026-03-01T17:30:04") == []


def test_a_day_is_as_long_as_it_is_there() -> None:
    """When the clock goes forward a day has 23 hours; of an hour that comes twice both count."""
    rome = ZoneInfo("Europe/Rome")
    assert instant(since("2026-03-29"), rome) == datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert instant(until("2026-03-29"), rome) == datetime(2026, 3, 29, 22, tzinfo=UTC)
    assert instant(since("2026-10-25T02:30"), rome) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert instant(until("2026-10-25T02:30"), rome) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert instant(None, rome) is None


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", None])
@pytest.mark.parametrize("written", ["0001-01-01", "9999-12-31"])
def test_the_ends_of_the_calendar_are_no_fault(zone: str | None, written: str) -> None:
    """Somebody who wants everything may write so."""
    for read in (since, until):
        assert instant(read(written), ZoneInfo(zone) if zone else None) is not None


def test_the_invoice_is_counted_by_the_providers_clock(archive_engine: Engine) -> None:
    """The statements of AUDITING.md count an SMS of midnight into the month and day that Agile bills."""
    midnight = sms(date_time="20260601003000", received_at=datetime(2026, 5, 31, 22, 30, tzinfo=UTC))
    reading = Readable(midnight, PARSER)
    Store(archive_engine).write([Submission(None, (item(reading=reading),))], NOW)
    statements = ";".join(readme.blocks("sql")).split(";")
    months, days = (one for one in statements if "substr(date_time" in one)

    with archive_engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(text(months))] == [("202606", "+393331234333", 1)]
        assert [tuple(row) for row in connection.execute(text(days))] == [("20260601", 1)]


def test_a_zone_that_is_none_is_one_line(filled: Filled) -> None:
    """The nearest one is named."""
    _configured(filled, "Europe/Roma")
    answer = filled.call("--config", "ingestor.toml", "search")
    assert (answer.code, answer.out) == (2, "")
    assert "timezone: 'Europe/Roma' is no time zone; did you mean Europe/Rome?" in answer.err


def test_explain_shows_local_time(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record that a mail makes is for people too; its --json is not."""
    _configured(filled, "Asia/Kolkata")
    monkeypatch.setenv("INGESTOR_CONFIG", str(filled.folder / "ingestor.toml"))
    mail = Path(__file__).parent.parent / "cases" / "qp-encoded-cr-before-break.eml"
    assert "+05:30" in filled.call("explain", mail).out
    assert "+05:30" not in filled.call("explain", mail, "--utc").out
    assert json.loads(filled.call("explain", mail, "--json").out)["record"]["received_at"].endswith("Z")
