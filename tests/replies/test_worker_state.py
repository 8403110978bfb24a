"""What an answer depends on beside its SMS: opt-outs, the archive's state; and what `status` is told."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.replies import answering
from ingestor.watch.found import Live
from ingestor.watch.metrics import Pages
from ingestor.watch.watcher import Watcher
from tests.archive.reading import rows
from tests.replies.desk import Desk, arrived, settings_of
from tests.servers.agile import ScriptedAgile, newer, refusal


@pytest.fixture
def agile() -> Iterator[ScriptedAgile]:
    """A fake Agile that behaves, until a test writes another script."""
    with ScriptedAgile() as server:
        yield server


@pytest.fixture
def desk(archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path) -> Desk:
    """An archive with rules, once on each database."""
    return Desk(archive_engine, settings_of(agile, tmp_path))


def test_who_opted_out_at_agile_is_out_here(desk: Desk, agile: ScriptedAgile) -> None:
    """Agile's 403 for one message is an opt-out with source `provider`: the next answer does not leave."""
    agile.script = [newer(False, 403)]
    desk.look(arrived(1))
    desk.look(arrived(1, "again", ago=2))

    assert desk.rows() == [("any", "refused", None), ("any", "suppressed", "opted_out")]
    assert rows(desk.engine, "SELECT kind, scope FROM opt_outs") == [("provider", "*")]


def test_a_rule_of_before_the_clock_was_set_back_counts(desk: Desk, agile: ScriptedAgile) -> None:
    """Since when it counts was noted a year ahead: nobody was answered for a year, and nobody told."""
    with writing(desk.engine) as connection:
        connection.exec_driver_sql("UPDATE answering SET at = '2999-01-01T00:00:00.000Z'")
    desk.look_wide()
    time.sleep(0.002)
    desk.look(arrived(1))

    assert desk.rows() == [("any", "sent", None)]


def test_while_old_sms_are_not_read_for_opt_outs_nobody_is_answered(desk: Desk, agile: ScriptedAgile) -> None:
    """A STOP of the past may stand among them."""
    with writing(desk.engine) as connection:
        connection.exec_driver_sql("UPDATE consent_scans SET finished_at = NULL")
    desk.look(arrived(1))

    assert (desk.rows(), agile.requests) == ([], [])


def test_status_tells_how_the_answers_fare(desk: Desk, agile: ScriptedAgile) -> None:
    """Counts of today with reasons and credit; a pause and a wrong clock by name, with what to do."""

    def told() -> tuple[str, str]:
        desk.worker._told_at = 0.0
        desk.look_wide()
        return rows(desk.engine, "SELECT state, detail FROM sources WHERE name = 'answers'")[0]  # type: ignore[return-value]

    desk.look(arrived(1), arrived(2, ago=5000))
    state, detail = told()
    assert state == "answering"
    assert detail == "today 1 sent, 1 suppressed; held back: 1 too_old; credit 10.319 EUR"

    agile.then = refusal(2, 402)
    desk.look(arrived(3, "x"))
    state, detail = told()
    assert (state, "insufficient credit" in detail) == ("paused", True)
    with writing(desk.engine) as connection:
        answering.resume(connection)

    desk.look(*(arrived(number, f"y{number}", ago=3600 + number) for number in range(4, 24)))
    state, detail = told()
    assert state == "clock is off"
    assert "sent 1 h before they arrive: set agile.timezone" in detail


def test_an_archive_that_is_not_as_it_must_be_sends_nothing(desk: Desk, agile: ScriptedAgile) -> None:
    """Without a unique key an answer might leave twice: nothing is decided until it is there again."""
    desk.worker._may_write = lambda: False
    desk.look(arrived(1))
    assert (desk.rows(), agile.requests) == ([], [])

    desk.worker._may_write = lambda: True
    desk.worker.work()
    assert desk.rows() == [("any", "sent", None)]


def test_the_credit_is_known_to_the_daemon_and_told_below_its_floor(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path
) -> None:
    """Polled at the first look, shown as a metric, and a condition of the watch once it is too low."""
    settings = settings_of(agile, tmp_path, more='[answers]\ncredit_floor = "20"\n')
    desk = Desk(archive_engine, settings)
    live = Live(settings, credit=lambda: desk.worker.credit)
    heard: list[str] = []

    def look(at: datetime) -> None:
        Watcher(
            live, archive_engine, {"mail": lambda told, *_: heard.extend(one.says for one in told)},
            host="one", clock=lambda: at,
        ).look()  # fmt: skip

    look(datetime.now(UTC))
    look(datetime.now(UTC) + timedelta(hours=1))

    assert desk.worker.credit == Decimal("10.324")
    assert b"\ningestor_agile_credit_euros 10.324\n" in Pages(live).answer("/metrics")[2]
    assert any("the credit (10.324 EUR) is below answers.credit_floor" in one for one in heard), heard
