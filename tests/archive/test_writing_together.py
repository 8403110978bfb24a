"""How long the writer waits for those who were written together last time."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive import writer as writer_module
from ingestor.archive.items import Receipt, Submission
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.logs import OncePerMinute
from tests.archive.samples import NOW
from tests.archive.test_writer import CountingStore, submission
from tests.waiting import until


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """A wait for others each, noted as it begins: who is submitted from then on comes during it."""
    begun: list[float | None] = []
    wait_for = threading.Condition.wait_for

    def noted(self: threading.Condition, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        begun.append(timeout)
        return wait_for(self, predicate, timeout)

    monkeypatch.setattr(threading.Condition, "wait_for", noted)
    return begun


def test_what_was_written_together_is_waited_for_together(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch, gathered: list[float | None]
) -> None:
    """After a transaction of three the next one waits for three; a lone item after a lone one for nobody."""
    monkeypatch.setattr(writer_module, "_TOGETHER_SECONDS", 60.0)
    store = CountingStore(sqlite_engine)
    writer = Writer(store, clock=lambda: NOW)
    for first in (10, 20):
        futures = [writer.submit(submission(first + n)) for n in range(2)]
        if first == 10:
            futures.append(writer.submit(submission(19)))
            writer.start()
        else:
            assert not wait(futures, 0.2).done
            monkeypatch.setattr(writer_module, "_TOGETHER_SECONDS", 0.0)  # after these three
            futures.append(writer.submit(submission(29)))
        assert not wait(futures, 30).not_done
        until(lambda: len(gathered) == first // 10 + 1)  # noqa: B023 - it is called at once
    assert store.commits == 2
    writer.submit(submission(30)).result(30)  # the others do not come
    until(lambda: len(gathered) == 4)
    monkeypatch.setattr(writer_module, "_TOGETHER_SECONDS", 60.0)
    writer.submit(submission(31)).result(30)
    until(lambda: len(gathered) == 5)
    writer.submit(submission(32)).result(30)
    assert writer.stop(30)
    assert store.commits == 5


def test_who_came_during_a_transaction_waits_for_those_in_it(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch, gathered: list[float | None]
) -> None:
    """Else who missed one transaction leaves another one behind in the next, and so on for good."""
    begun, go_on = threading.Event(), threading.Event()

    class Held(CountingStore):
        def write(self, submissions: Sequence[Submission], now: datetime) -> list[Receipt]:
            begun.set()
            assert go_on.wait(30)
            return super().write(submissions, now)

    store = Held(sqlite_engine)
    writer = Writer(store, clock=lambda: NOW)
    first = writer.submit(submission(0))
    writer.start()
    assert begun.wait(30)
    monkeypatch.setattr(writer_module, "_TOGETHER_SECONDS", 60.0)
    meanwhile = writer.submit(submission(1))
    go_on.set()
    first.result(30)
    until(lambda: len(gathered) == 2)
    assert not wait([meanwhile], 0.2).done
    again = writer.submit(submission(2))
    assert not wait([meanwhile, again], 30).not_done
    assert writer.stop(30)
    assert store.commits == 2


def test_who_comes_later_waits_for_nobody(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two were written together, and the moment in which they are waited for has passed."""
    idle = threading.Event()

    class Noticed(OncePerMinute[Any, Any]):
        def tick(self) -> float | None:
            idle.set()
            return super().tick()

    monkeypatch.setattr(writer_module, "OncePerMinute", Noticed)
    monkeypatch.setattr(writer_module, "_TOGETHER_SECONDS", 0.0)
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    both = [writer.submit(submission(n)) for n in range(2)]
    writer.start()
    assert not wait(both, 30).not_done
    assert idle.wait(30)
    monkeypatch.setattr(writer_module, "_TOGETHER_SECONDS", 60.0)
    writer.submit(submission(2)).result(30)
    assert writer.stop(30)


def test_a_stop_does_not_wait_for_others(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two that were written together comes again: a stop writes it at once."""
    monkeypatch.setattr(writer_module, "_TOGETHER_SECONDS", 60.0)
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    both = [writer.submit(submission(n)) for n in range(2)]
    writer.start()
    assert not wait(both, 30).not_done
    again = writer.submit(submission(2))
    assert writer.stop(30)
    assert again.done()
