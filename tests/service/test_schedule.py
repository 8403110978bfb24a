"""What is due by the clock is called, its trouble is counted, and nobody waits for it."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine

from ingestor.archive.items import Submission
from ingestor.archive.runs import Balance, balance, begin_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.service.schedule import next_run, schedule
from tests.archive.reading import rows
from tests.archive.samples import NOW, item


def _until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(1000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came to pass")


@pytest.fixture
def scheduled() -> Iterator[Callable[..., BackgroundScheduler]]:
    """`schedule`, whose schedulers end with the test."""
    begun: list[BackgroundScheduler] = []

    def begin(*words: Any) -> BackgroundScheduler:
        begun.append(schedule(*words))
        return begun[-1]

    yield begin
    for one in begun:
        one.shutdown(wait=False)


def test_a_job_is_called_again_and_again(scheduled: Callable[..., object]) -> None:
    """Every so many seconds, until the end."""
    calls = threading.Semaphore(0)
    scheduled({"a": (0.02, calls.release)})
    assert calls.acquire(timeout=5)
    assert calls.acquire(timeout=5)


def test_a_failing_job_is_said_and_called_again(
    scheduled: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception in a job ends neither the job nor the schedule."""
    calls = threading.Semaphore(0)

    def fail() -> None:
        calls.release()
        raise RuntimeError("no")

    scheduled({"a": (0.02, fail)})
    assert calls.acquire(timeout=5)
    assert calls.acquire(timeout=5)
    _until(lambda: "RuntimeError" in capsys.readouterr().out)


def test_a_hung_job_is_said_and_not_waited_for(
    scheduled: Callable[..., BackgroundScheduler], capsys: pytest.CaptureFixture[str]
) -> None:
    """While a call hangs no second one begins, and the stop does not wait for it."""
    go, calls = threading.Event(), []

    def hang() -> None:
        calls.append(1)
        go.wait(30)

    said = ""

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.count("still_running") >= 2

    try:
        scheduled({"a": (0.02, hang)})
        _until(told)
        assert len(calls) == 1
    finally:
        go.set()


def test_a_late_call_is_not_dropped(scheduled: Callable[..., BackgroundScheduler]) -> None:
    """The settings that APScheduler gets wrong for us are set: no grace that drops, one at a time, UTC."""
    [job] = scheduled({"a": (60, lambda: None)}).get_jobs()
    assert job.misfire_grace_time is None
    assert job.coalesce
    assert job.max_instances == 1
    assert str(job.next_run_time.tzinfo) == "UTC"


@pytest.mark.parametrize("days", [365 * 56, 1, -1, -365 * 40])
def test_a_clock_that_is_set_keeps_no_call_away(
    days: int, scheduled: Callable[..., BackgroundScheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward from 1970, or back: what is due each moment is called, and the day begins at its midnight."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + ahead

    ahead = timedelta(0)
    for module in (schedule.__module__, "apscheduler.schedulers.base"):
        monkeypatch.setattr(f"{module}.datetime", Clock)
    calls = threading.Semaphore(0)
    scheduler = scheduled({"a": (0.05, calls.release)}, {"new day": lambda: None})
    assert calls.acquire(timeout=5)
    ahead = timedelta(days)
    assert all(calls.acquire(timeout=10) for _ in range(10))
    until = scheduler.get_job("new day").next_run_time - Clock.now(UTC)
    assert timedelta(0) <= until <= timedelta(days=1)


def test_a_day_begins_at_midnight_utc(scheduled: Callable[..., BackgroundScheduler]) -> None:
    """The call is due by the clock, whatever the machine's time zone."""
    [job] = scheduled({}, {"new day": lambda: None}).get_jobs()
    due = job.next_run_time.astimezone(UTC)
    assert (due.hour, due.minute, due.second) == (0, 0, 0)
    assert timedelta(0) < due - datetime.now(UTC) <= timedelta(days=1)


def test_the_daemons_run_ends_with_its_day(archive_engine: Engine) -> None:
    """Each item is counted in one run; the old one is closed and adds up, the new one goes on."""
    first = begin_run(archive_engine, "run", {}, NOW)
    writer = Writer(Store(archive_engine))
    writer.run = first
    writer.start()
    futures = [writer.submit(Submission(None, (item(number),))) for number in range(20)]
    second = next_run(archive_engine, writer, first, {"a": 1})
    futures += [writer.submit(Submission(None, (item(number),))) for number in range(15, 25)]
    for future in futures:
        future.result(30)
    assert writer.stop(10)
    assert second != first
    assert balance(archive_engine, first) == Balance(20, 20, 0, 0, 0, 0)
    assert balance(archive_engine, second) == Balance(10, 5, 5, 0, 0, 0)
    ended = dict(rows(archive_engine, "SELECT id, ended_at IS NOT NULL FROM runs"))
    assert (bool(ended[first]), bool(ended[second])) == (True, False)
