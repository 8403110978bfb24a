"""The scheduled poll wakes, counts its trouble, and waits for nobody."""

import threading
from collections.abc import Callable

import pytest

from ingestor.service.schedule import Schedule


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
