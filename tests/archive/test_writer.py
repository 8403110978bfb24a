"""The writer thread: group commit, and a database that goes away and comes back."""

import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import datetime

import pytest
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import CompileError

from ingestor.archive import engine as engine_module
from ingestor.archive import writer as writer_module
from ingestor.archive.items import CursorMove, Receipt, Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.errors import ArchiveUnavailable
from ingestor.record import Channel
from tests.archive.reading import number_of, opened
from tests.archive.samples import NOW, item
from tests.servers.postgresql import PostgresqlServer
from tests.waiting import until


def submission(number: int, run_id: int | None = None) -> Submission:
    """Return a submission with one SMS."""
    return Submission(run_id, (item(number),))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses short enough for tests."""
    monkeypatch.setattr(writer_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(writer_module, "_LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.1)


def test_many_threads_share_transactions_and_each_gets_its_receipt(archive_engine: Engine) -> None:
    """Two hundred submissions from eight threads are all durable, each once, with far fewer commits."""
    store = CountingStore(archive_engine)
    writer = Writer(store, clock=lambda: NOW)
    futures = []
    lock = threading.Lock()

    def feed(start: int) -> None:
        mine = [writer.submit(submission(n)) for n in range(start, start + 25)]
        with lock:
            futures.extend(mine)

    threads = [threading.Thread(target=feed, args=(n * 25,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.start()
    done, pending = wait(futures, 60)
    assert not pending
    assert {str(future.result().outcomes[0]) for future in done} == {"stored"}
    assert writer.stop(30)
    assert number_of(archive_engine, "inbound_sms") == 200
    assert store.commits < 20


class CountingStore(Store):
    """A store that counts its transactions."""

    commits = 0

    def write(self, submissions: Sequence[Submission], now: datetime) -> list[Receipt]:
        """Write and count."""
        self.commits += 1
        return super().write(submissions, now)


def test_a_batch_is_bounded(archive_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is split over transactions once it is more than the bound; a submission never is."""
    monkeypatch.setattr(writer_module, "MAX_ITEMS", 10)
    sizes: list[int] = []

    class Measuring(Store):
        def write(self, submissions: Sequence[Submission], now: datetime) -> list[Receipt]:
            sizes.append(sum(len(one.items) for one in submissions))
            return super().write(submissions, now)

    writer = Writer(Measuring(archive_engine), clock=lambda: NOW)
    futures = [writer.submit(Submission(None, tuple(item(n * 100 + k) for k in range(6)))) for n in range(3)]
    futures.append(writer.submit(Submission(None, tuple(item(900 + k) for k in range(25)))))
    writer.start()
    wait(futures, 30)
    assert writer.stop(30)
    assert sizes == [6, 6, 6, 25]


@pytest.mark.usefixtures("quick")
def test_a_locked_database_is_waited_for_and_said_once(sqlite_engine: Engine) -> None:
    """Somebody holds SQLite's write lock: nothing is lost, one line when it begins, one when it is over."""
    path = sqlite_engine.url.database
    assert path
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    with structlog.testing.capture_logs() as logs, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer.start()
        futures = [writer.submit(submission(n)) for n in range(5)]
        until(lambda: writer.trouble)
        assert "locked" in str(writer.trouble)
        assert writer.queued == 5
        time.sleep(0.5)
        other.rollback()
        wait(futures, 30)
        assert writer.trouble is None
    assert writer.stop(30)
    assert number_of(sqlite_engine, "inbound_sms") == 5
    assert [entry["log_level"] for entry in logs] == ["error", "info"]


@pytest.mark.usefixtures("quick")
def test_what_lasts_is_said_again(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes an hour later finds it in the log too."""
    monkeypatch.setattr("ingestor.archive.writer._SAY_SECONDS", 0.0)
    path = sqlite_engine.url.database
    assert path
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    with structlog.testing.capture_logs() as logs, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer.start()
        writer.submit(submission(1))
        until(lambda: sum(entry["log_level"] == "error" for entry in logs) >= 2)
        other.rollback()
    assert writer.stop(30)


@pytest.mark.usefixtures("quick")
def test_postgresql_stopped_and_started_under_the_writer(own_postgresql: PostgresqlServer) -> None:
    """The server crashes in the middle of the work, twice: all is there, each once, and the run balances."""
    with opened(own_postgresql.url("archive")) as engine:
        ensure_schema(engine, auto_upgrade=True)
        run_id = begin_run(engine, "run", {}, NOW)
        writer = Writer(Store(engine), clock=lambda: NOW)
        writer.start()
        futures = []
        with structlog.testing.capture_logs() as logs:
            for n in range(600):
                futures.append(writer.submit(submission(n, run_id)))
                if n in (200, 400):
                    own_postgresql.stop(immediate=n == 200)
                    futures.append(writer.submit(submission(n + 1000, run_id)))  # the others may be there
                    until(lambda: writer.trouble)
                    own_postgresql.start()
                    until(lambda: not writer.trouble)
            wait(futures, 60)
        assert writer.stop(30)
        assert number_of(engine, "inbound_sms") == number_of(engine, "arrivals") == 602
        counts = balance(engine, run_id)
        assert (counts.read, counts.stored, counts.adds_up) == (602, 602, True)
        assert [entry["log_level"] for entry in logs] == ["error", "info"] * 2


@pytest.mark.usefixtures("quick")
def test_a_database_absent_at_the_start_is_waited_for(own_postgresql: PostgresqlServer) -> None:
    """The writer may start before PostgreSQL does."""
    with opened(own_postgresql.url("archive")) as engine:
        ensure_schema(engine, auto_upgrade=True)
        own_postgresql.stop()
        writer = Writer(Store(engine), clock=lambda: NOW)
        writer.start()
        future = writer.submit(submission(1))
        until(lambda: writer.trouble)
        own_postgresql.start()
        assert str(future.result(30).outcomes[0]) == "stored"
        assert writer.stop(30)


@pytest.mark.usefixtures("quick")
def test_a_commit_that_broke_off_is_counted_once(
    postgresql_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection dies after the server committed: the next try finds out, and counts nothing twice."""
    run_id = begin_run(postgresql_engine, "run", {}, NOW)
    store = Store(postgresql_engine)
    dialect = postgresql_engine.dialect
    commit = dialect.do_commit
    broken: list[bool] = []

    def commit_and_break(connection: object) -> None:
        commit(connection)  # type: ignore[arg-type]
        if not broken and store._unknown is not None:
            broken.append(True)
            connection.driver_connection.close()  # type: ignore[attr-defined]
            connection.driver_connection.execute("SELECT 1")  # type: ignore[attr-defined]

    monkeypatch.setattr(dialect, "do_commit", commit_and_break)
    writer = Writer(store, clock=lambda: NOW)
    writer.start()
    assert str(writer.submit(submission(1, run_id)).result(30).outcomes[0]) == "stored"
    assert broken
    assert writer.stop(30)
    counts = balance(postgresql_engine, run_id)
    assert (counts.read, counts.stored) == (1, 1)


@pytest.mark.usefixtures("quick")
def test_stop_writes_what_is_queued(archive_engine: Engine) -> None:
    """A clean stop leaves nothing behind, and takes nothing more."""
    writer = Writer(Store(archive_engine), clock=lambda: NOW)
    futures = [writer.submit(submission(n)) for n in range(50)]
    writer.start()
    assert writer.stop(30)
    assert all(future.done() for future in futures)
    assert number_of(archive_engine, "inbound_sms") == 50
    with pytest.raises(ArchiveUnavailable):
        writer.submit(submission(99))


@pytest.mark.usefixtures("quick")
def test_stop_does_not_wait_for_ever(sqlite_engine: Engine) -> None:
    """With the database away, a stop ends in time, says so, and every future says that it was not written."""
    path = sqlite_engine.url.database
    assert path
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer.start()
        futures = [writer.submit(submission(1))]
        until(lambda: writer.trouble)
        futures.append(writer.submit(submission(2)))
        assert not writer.stop(0.5)
        for future in futures:
            with pytest.raises(ArchiveUnavailable):
                future.result(30)
        other.rollback()
    assert number_of(sqlite_engine, "inbound_sms") == 0


@pytest.mark.usefixtures("quick")
def test_a_submission_taken_back_in_time_is_not_written(sqlite_engine: Engine) -> None:
    """A cancelled future was never submitted; one that is in hand already goes on."""
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    first, second = writer.submit(submission(1)), writer.submit(submission(2))
    assert first.cancel()
    writer.start()
    assert str(second.result(30).outcomes[0]) == "stored"
    assert not second.cancel()
    assert writer.stop(30)
    assert number_of(sqlite_engine, "inbound_sms") == 1


@pytest.mark.usefixtures("quick")
def test_taking_everything_back_does_not_end_the_writer(sqlite_engine: Engine) -> None:
    """When all that waits has been cancelled the thread waits on, and writes what comes next."""
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    assert writer.submit(submission(1)).cancel()
    writer.start()
    until(lambda: not writer.queued)
    assert str(writer.submit(submission(2)).result(30).outcomes[0]) == "stored"
    assert writer.stop(30)


def test_what_is_being_taken_up_is_counted(sqlite_engine: Engine) -> None:
    """Nobody who asks in that moment hears that all is committed: a day's run would be closed before it."""
    said: list[int] = []

    class Asking(Future[Receipt]):
        def set_running_or_notify_cancel(self) -> bool:
            asking = threading.Thread(target=lambda: said.append(writer.queued), daemon=True)
            asking.start()
            asking.join(0.2)
            return super().set_running_or_notify_cancel()

    class Held(Store):
        def write(self, submissions: Sequence[Submission], now: datetime) -> list[Receipt]:
            until(lambda: said)
            return super().write(submissions, now)

    writer = Writer(Held(sqlite_engine), clock=lambda: NOW)
    writer.start()
    writer.submit(submission(1), Asking()).result(30)
    assert said == [1]
    assert writer.stop(30)


def test_a_submission_that_cannot_be_written_fails_alone(archive_engine: Engine) -> None:
    """A fault of the program in one submission reaches its own future only; the thread lives on."""
    writer = Writer(Store(archive_engine), clock=lambda: NOW)
    futures = [
        writer.submit(one)
        for one in (submission(1), Submission(None, (item(2, source=None),)), submission(3))
    ]
    writer.start()
    wait(futures, 30)
    assert futures[1].exception() is not None
    assert [str(futures[n].result().outcomes[0]) for n in (0, 2)] == ["stored", "stored"]
    assert str(writer.submit(submission(4)).result(30).outcomes[0]) == "stored"
    assert writer.stop(30)


@pytest.mark.parametrize("fault", [CompileError("a programmer's error"), RuntimeError("another")], ids=repr)
def test_a_fault_of_the_program_is_not_waited_out(sqlite_engine: Engine, fault: Exception) -> None:
    """It fails the submission, whose source still has it, instead of looking like an outage for ever."""

    class Faulty(Store):
        def write(self, submissions: Sequence[Submission], now: datetime) -> list[Receipt]:
            if any(one.items[0].content_key == item(2).content_key for one in submissions):
                raise fault
            return super().write(submissions, now)

    writer = Writer(Faulty(sqlite_engine))
    writer.start()
    futures = [writer.submit(submission(number)) for number in (1, 2, 3)]

    assert futures[1].exception(30) is fault
    wait(futures, 30)
    assert futures[0].result()
    assert futures[2].result()
    assert writer.trouble is None
    assert writer.stop(30)


def test_the_same_post_submitted_twice_is_there_once(archive_engine: Engine) -> None:
    """A POST whose answer took too long is spooled and submitted again: one row, one arrival."""
    post = Submission(None, (item(1, channel=Channel.WEBHOOK, content_key=b"0123456789abcdef"),))
    writer = Writer(Store(archive_engine), clock=lambda: NOW)
    futures = [writer.submit(post), writer.submit(post)]
    writer.start()
    outcomes = [str(future.result(30).outcomes[0]) for future in futures]
    assert outcomes == ["stored", "duplicate"]
    assert writer.stop(30)
    assert number_of(archive_engine, "arrivals") == 1


def test_two_writers_on_one_postgresql_never_lock_each_other_out(postgresql_engine: Engine) -> None:
    """Two daemons with the same mails in opposite order: no deadlock reaches anybody, each SMS once."""
    numbers = list(range(150))
    results: list[Receipt] = []

    def run(order: list[int]) -> None:
        with opened(postgresql_engine.url.render_as_string(hide_password=False)) as engine:
            store = Store(engine)
            for start in range(0, len(order), 50):
                part = tuple(item(n) for n in order[start : start + 50])
                results.extend(store.write([Submission(None, part)], NOW))

    threads = [
        threading.Thread(target=run, args=(order,))
        for order in (numbers, numbers[::-1], numbers, numbers[::-1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    outcomes = [str(outcome) for receipt in results for outcome in receipt.outcomes]
    assert (outcomes.count("stored"), outcomes.count("duplicate")) == (150, 450)
    assert number_of(postgresql_engine, "inbound_sms") == number_of(postgresql_engine, "arrivals") == 150


def test_a_transaction_that_postgresql_gives_up_is_made_again(postgresql_engine: Engine) -> None:
    """In a real deadlock the store is the victim: it tries again at once, and nobody hears of it."""
    move = CursorMove("main", "INBOX", 7, 1)
    run_id = begin_run(postgresql_engine, "run", {}, NOW)
    store = Store(postgresql_engine)
    store.write([Submission(run_id, (), cursor=move)], NOW)
    url = postgresql_engine.url.render_as_string(hide_password=False)
    with opened(url) as other, other.begin() as connection, ThreadPoolExecutor(1) as pool:
        execute = connection.exec_driver_sql
        execute("SET LOCAL deadlock_timeout = '1min'")
        execute("UPDATE cursors SET last_uid = last_uid")
        further = Submission(run_id, (item(1),), cursor=move._replace(last_uid=2))
        written = pool.submit(store.write, [further], NOW)
        while not execute("SELECT 1 FROM pg_locks WHERE NOT granted").all():
            time.sleep(0.01)  # until the store waits for the cursor
        # It holds the run: this waits for the store, until the server breaks the circle.
        execute(f"UPDATE runs SET command = command WHERE id = {run_id}")
        connection.rollback()
        (receipt,) = written.result(30)
    assert [str(outcome) for outcome in receipt.outcomes] == ["stored"]
    assert balance(postgresql_engine, run_id).read == 1
