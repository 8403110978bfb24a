"""A thread that would wait for its commit anyway writes itself, and every promise of the writer holds."""

import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine

from ingestor.archive.entries import Receipt, Submission
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.errors import ArchiveUnavailable
from tests.archive.reading import number_of
from tests.archive.samples import NOW, item
from tests.archive.test_writer import quick, submission, until

__all__ = ["quick"]


class WatchedStore(Store):
    """A store that notes which thread writes, and that two never do at once."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.threads: list[str] = []
        self.began, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.fault: Exception | None = None
        self._turn = threading.Lock()

    def write(
        self, submissions: Sequence[Submission], now: datetime, *, patient: bool = True
    ) -> list[Receipt]:
        """Write, and note it."""
        assert self._turn.acquire(blocking=False), "two threads write at once"
        try:
            self.threads.append(threading.current_thread().name)
            self.began.set()
            assert self.go_on.wait(30)
            if self.fault is not None and not patient:
                raise self.fault
            return super().write(submissions, now, patient=patient)
        finally:
            self._turn.release()


def _writing(engine: Engine) -> tuple[Writer, WatchedStore]:
    store = WatchedStore(engine)
    writer = Writer(store, clock=lambda: NOW)
    writer.start()
    return writer, store


def _outcome(future: "Future[Receipt]") -> str:
    return str(future.result(30).outcomes[0])


def test_a_file_is_written_by_the_thread_that_asks(sqlite_engine: Engine) -> None:
    """The future is done when `submit` returns, and it was done in this thread."""
    writer, store = _writing(sqlite_engine)
    future = writer.submit(submission(1), here=True)
    assert future.done()
    assert _outcome(future) == "stored"
    assert _outcome(writer.submit(submission(1), here=True)) == "duplicate"
    assert store.threads == [threading.current_thread().name] * 2
    assert writer.queued == 0
    assert writer.stop(10)


def test_a_server_is_left_to_the_writers_thread(postgresql_engine: Engine) -> None:
    """A network may hang: nobody but the writer's thread waits for it."""
    writer, store = _writing(postgresql_engine)
    assert _outcome(writer.submit(submission(1), here=True)) == "stored"
    assert store.threads == ["archive-writer"]
    assert writer.stop(10)


def test_nobody_overtakes_what_waits(sqlite_engine: Engine) -> None:
    """While the writer's thread is at work, all others queue; they share the next transaction."""
    writer, store = _writing(sqlite_engine)
    store.go_on.clear()
    first = writer.submit(submission(1))
    assert store.began.wait(30)
    later = [writer.submit(submission(n), here=True) for n in range(2, 5)]
    assert not any(future.done() for future in later)
    store.go_on.set()
    assert [_outcome(future) for future in (first, *later)] == ["stored"] * 4
    assert store.threads == ["archive-writer"] * 2
    assert writer.stop(10)


def test_the_writers_thread_waits_for_the_one_that_writes_here(sqlite_engine: Engine) -> None:
    """Two threads never write at once; a stop waits for both."""
    writer, store = _writing(sqlite_engine)
    store.go_on.clear()
    results: list[Future[Receipt]] = []
    one = threading.Thread(target=lambda: results.append(writer.submit(submission(1), here=True)))
    one.start()
    assert store.began.wait(30)
    results.append(writer.submit(submission(2)))
    ended: list[bool] = []
    stopping = threading.Thread(target=lambda: ended.append(writer.stop(30)))
    stopping.start()
    time.sleep(0.2)
    assert store.threads == [one.name]
    store.go_on.set()
    for thread in (one, stopping):
        thread.join(30)
    assert [_outcome(future) for future in results] == ["stored", "stored"]
    assert store.threads == [one.name, "archive-writer"]
    assert ended == [True]
    with pytest.raises(ArchiveUnavailable):
        writer.submit(submission(3), here=True)


@pytest.mark.usefixtures("quick")
def test_a_lock_is_not_waited_for_here(sqlite_engine: Engine) -> None:
    """Somebody else holds SQLite's write lock: this thread goes on, the other one waits and says so."""
    path = sqlite_engine.url.database
    assert path
    writer, _ = _writing(sqlite_engine)
    writer.submit(submission(0)).result(30)
    with structlog.testing.capture_logs() as logs, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        future = writer.submit(submission(1), here=True)
        assert time.monotonic() - began < 5
        assert not future.done()
        until(lambda: writer.trouble)
        behind = writer.submit(submission(2), here=True)
        assert not behind.done()
        other.rollback()
        assert [_outcome(future), _outcome(behind)] == ["stored", "stored"]
    assert [entry["log_level"] for entry in logs] == ["error", "info"]
    assert writer.stop(10)
    assert number_of(sqlite_engine, "inbound_sms") == 3


@pytest.mark.parametrize("fault", [ArchiveUnavailable("away"), TypeError("a fault of ours")])
def test_whatever_goes_wrong_here_is_tried_by_the_other_thread(
    sqlite_engine: Engine, fault: Exception
) -> None:
    """A submission is never lost with the thread that tried it first, and keeps its turn."""
    writer, store = _writing(sqlite_engine)
    store.fault = fault
    future = writer.submit(submission(1), here=True)
    assert _outcome(future) == "stored"
    assert store.threads == [threading.current_thread().name, "archive-writer"]
    assert writer.stop(10)
    assert number_of(sqlite_engine, "inbound_sms") == 1


def test_many_threads_of_both_kinds_write_each_once(sqlite_engine: Engine) -> None:
    """Threads that write here and threads that queue, all at once: one turn at a time, right receipts."""
    writer, store = _writing(sqlite_engine)
    futures: list[Any] = [writer.submit(submission(999), here=True)]  # nobody else has a turn yet
    lock = threading.Lock()

    def feed(number: int) -> None:
        for k in range(30):
            work = Submission(None, (item(number * 100 + k), item(k)))
            future = writer.submit(work, here=number % 2 == 0)
            with lock:
                futures.append(future)
            if k % 5:
                future.result(60)
                time.sleep(random.uniform(0, 0.01))  # so that sometimes nobody else waits

    threads = [threading.Thread(target=feed, args=(n + 1,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wait(futures, 60).not_done
    outcomes = [str(outcome) for future in futures for outcome in future.result().outcomes]
    assert outcomes.count("stored") == 3 * 30 + 30 + 1
    assert writer.stop(30)
    assert number_of(sqlite_engine, "inbound_sms") == 3 * 30 + 30 + 1
    assert len(set(store.threads)) > 1
