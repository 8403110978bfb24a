"""What is due by the clock is called, its trouble is counted, and nobody waits for it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ingestor.archive.entries import Submission
from ingestor.archive.runs import Balance, balance, begin_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.service.schedule import Schedule, next_run
from tests.archive.reading import rows
from tests.archive.samples import NOW, item


def _until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(1000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came to pass")


def test_jobs_are_called_and_replaced() -> None:
    """Each job is called again and again; after a replacement only the new ones are."""
    schedule, old, new = Schedule(), threading.Semaphore(0), threading.Semaphore(0)
    schedule.replace({"a": (0.02, old.release)})
    schedule.start()
    try:
        assert old.acquire(timeout=5)
        assert old.acquire(timeout=5)
        schedule.replace({"b": (0.02, new.release)})
        assert new.acquire(timeout=5)
    finally:
        schedule.stop()


def test_a_failing_job_is_counted_and_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception in a job ends neither the job nor the schedule."""
    schedule, calls = Schedule(), []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("no")

    schedule.replace({"a": (0.02, fail)})
    schedule.start()
    try:
        _until(lambda: schedule.trouble["error"] >= 2)
    finally:
        schedule.stop()
    assert len(calls) >= 2


def test_a_hung_job_is_counted_and_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """While a call hangs no second one begins, and the stop does not wait for it."""
    schedule, go, calls = Schedule(), threading.Event(), []

    def hang() -> None:
        calls.append(1)
        go.wait(30)

    schedule.replace({"a": (0.02, hang)})
    schedule.start()
    try:
        _until(lambda: schedule.trouble["still_running"] >= 2)
        assert len(calls) == 1
        schedule.stop()
        assert not go.is_set()
    finally:
        go.set()


def test_a_late_call_is_not_dropped() -> None:
    """The settings that APScheduler gets wrong for us are set: no grace that drops, one at a time, UTC."""
    schedule = Schedule()
    schedule.replace({"a": (60, lambda: None)})
    schedule.start()
    try:
        [job] = schedule._scheduler.get_jobs()
        assert job.misfire_grace_time is None
        assert job.coalesce
        assert job.max_instances == 1
        assert str(job.trigger.timezone) == "UTC"
    finally:
        schedule.stop()


def test_a_day_begins_at_midnight_utc() -> None:
    """The call is due by the clock, whatever the machine's time zone."""
    schedule = Schedule()
    schedule.replace({}, {"new day": lambda: None})
    schedule.start()
    [job] = schedule._scheduler.get_jobs()
    schedule.stop()
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
