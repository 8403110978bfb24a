"""Commits whose answer never came, or came with a warning: real servers that crash or are promoted."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from ingestor.archive import store as store_module
from ingestor.archive.engine import open_engine
from ingestor.archive.items import Receipt, Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import balance, begin_run, end_run, find_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.errors import ArchiveUnavailable
from tests.archive.reading import number_of, one
from tests.archive.samples import NOW, item
from tests.conftest import started_postgresql
from tests.servers.fault_proxy import FaultProxy
from tests.servers.postgresql import PostgresqlServer
from tests.service.process import until

pytestmark = pytest.mark.postgresql


@pytest.fixture
def primary(own_postgresql: PostgresqlServer) -> PostgresqlServer:
    """The server that commits; the test may break it."""
    return own_postgresql


@pytest.fixture
def standby(primary: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A standby that every commit of the primary waits for."""
    server = primary.standby()
    yield server
    server.close()


class Desk:
    """A store with a run, and another thread to write in."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        ensure_schema(self.engine, auto_upgrade=True)
        self.run = begin_run(self.engine, "run", {}, NOW)
        self.store = Store(self.engine)
        self._other = ThreadPoolExecutor(1)

    def work(self, number: int) -> list[Submission]:
        """Return a submission of one SMS."""
        return [Submission(self.run, (item(number),))]

    def begin(self, work: list[Submission]) -> "Future[list[Receipt]]":
        """Write `work` in the other thread."""
        return self._other.submit(self.store.write, work, NOW)

    def write(self, work: list[Submission]) -> str:
        """Write `work` here; return its outcome."""
        return str(self.store.write(work, NOW)[0].outcomes[0])

    @property
    def counted(self) -> tuple[int, int]:
        """How many items the run has read and stored."""
        counts = balance(self.engine, self.run)
        return counts.read, counts.stored


def desk(url: str) -> Desk:
    """Return a desk at the archive of `url`."""
    return Desk(url)


def until_it_waits(server: PostgresqlServer) -> None:
    """Wait until a commit waits for a standby."""
    until(
        lambda: server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1\n",
        "a commit that waits",
    )


CANCEL = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def test_a_number_that_another_transaction_got_proves_nothing(
    primary: PostgresqlServer, standby: PostgresqlServer
) -> None:
    """The primary dies with a commit that no standby has; the promoted one gives its number to others."""
    hosts = f"host=127.0.0.1:{primary.port}&host=127.0.0.1:{standby.port}"
    at = desk(f"postgresql+psycopg://app@/archive?{hosts}")
    assert at.write(at.work(1)) == "stored"
    standby.stop(immediate=False)
    work = at.work(2)
    waiting = at.begin(work)
    until_it_waits(primary)
    primary.stop()
    with pytest.raises(ArchiveUnavailable):
        waiting.result(30)
    standby.start()
    standby.promote()
    for _ in range(20):
        standby.sql("SELECT pg_current_xact_id()")
    assert at.write(work) == "stored"
    assert number_of(at.engine, "inbound_sms") == 2
    assert at.counted == (2, 2)
    standby.stop()
    with pytest.raises(ArchiveUnavailable, match=str(standby.port)):
        at.write(at.work(3))
    at.engine.dispose()


def test_a_wait_for_the_standby_that_was_cancelled_is_no_commit(primary: PostgresqlServer) -> None:
    """PostgreSQL commits with a warning, which no setting hides; no receipt leaves, and none by a retry that
    waits for nobody."""
    primary.sql("ALTER ROLE app SET client_min_messages = error")
    at = desk(primary.url("archive"))
    primary.wait_for_standby("nobody")
    work = at.work(1)
    for _ in range(2):
        waiting = at.begin(work)
        until_it_waits(primary)
        assert not waiting.done()
        primary.sql(CANCEL)
        with pytest.raises(ArchiveUnavailable, match="standby"):
            waiting.result(30)
    waiting = at.begin(work)
    until_it_waits(primary)
    primary.wait_for_standby("")
    assert [str(outcome) for outcome in waiting.result(30)[0].outcomes] == ["stored"]
    assert at.counted == (1, 1)
    at.engine.dispose()


def test_an_end_that_is_there_already_is_waited_for_again(primary: PostgresqlServer) -> None:
    """Whoever finds a run ended, and says so, has waited for the standby himself."""
    at = desk(primary.url("archive"))
    end_run(at.engine, at.run, NOW)
    primary.wait_for_standby("nobody")
    with ThreadPoolExecutor(1) as other:
        again = other.submit(end_run, at.engine, at.run, NOW + timedelta(hours=1))
        until_it_waits(primary)
        primary.wait_for_standby("")
        again.result(30)
    assert find_run(at.engine, at.run).ended_at == NOW
    at.engine.dispose()


def test_a_commit_that_is_still_on_its_way_stays_in_doubt(
    primary: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line breaks while the server waits for its standby: nothing is believed before it has ended."""
    monkeypatch.setattr(store_module, "_PATIENCE", text("SET LOCAL lock_timeout = '200ms'"))
    proxy = FaultProxy(primary.port)
    with proxy.running():
        at = desk(primary.url("archive").replace(str(primary.port), str(proxy.port)))
        primary.wait_for_standby("nobody")
        work = at.work(1)
        waiting = at.begin(work)
        until_it_waits(primary)
        proxy.cut_now()
        with pytest.raises(ArchiveUnavailable):
            waiting.result(30)
        for _ in range(2):
            with pytest.raises(ArchiveUnavailable, match="55P03"):
                at.write(work)
        primary.wait_for_standby("")
        until(lambda: number_of(at.engine, "inbound_sms") == 1, "the commit")
        assert at.write(work) == "stored"
        assert at.counted == (1, 1)
        at.engine.dispose()


def test_a_session_of_a_server_that_was_demoted_is_left(primary: PostgresqlServer) -> None:
    """Behind one address another server takes over: every write comes through, without a restart."""
    with started_postgresql() as successor:
        successor.sql("CREATE DATABASE archive")
        desk(successor.url("archive")).engine.dispose()
        proxy = FaultProxy(primary.port)
        with proxy.running():
            at = desk(primary.url("archive").replace(str(primary.port), str(proxy.port)))
            assert at.write(at.work(0)) == "stored"
            primary.sql("ALTER SYSTEM SET default_transaction_read_only = on")
            primary.sql("SELECT pg_reload_conf()")
            until(
                lambda: primary.sql("SHOW default_transaction_read_only").strip() == "on", "it is read-only"
            )
            proxy.target_port = successor.port
            writer = Writer(at.store, clock=lambda: NOW)
            writer.start()
            futures = [writer.submit(at.work(number)[0]) for number in range(1, 21)]
            assert {str(future.result(30).outcomes[0]) for future in futures} == {"stored"}
            assert writer.stop(30)
            assert one(at.engine, "SHOW port") == str(successor.port)
            assert number_of(at.engine, "inbound_sms") == 20
            at.engine.dispose()
