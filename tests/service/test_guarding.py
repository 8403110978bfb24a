"""A daemon whose archive somebody changed says so, and stores only where no row can be swallowed."""

from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.archive.intact import Difference, NotCompared
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable
from ingestor.service import schedule as guarding
from ingestor.service.schedule import ArchiveGuard
from tests.archive.reading import number_of
from tests.archive.samples import NOW, item
from tests.cli.calling import ingestor
from tests.intake.listener.client import Client, post, sms
from tests.service.process import configuration, running, until

SWALLOW = {
    "sqlite": ["CREATE TRIGGER eat BEFORE INSERT ON sms BEGIN SELECT RAISE(IGNORE); END"],
    "postgresql": ["CREATE RULE eat AS ON INSERT TO sms DO INSTEAD NOTHING"],
}
UNDO = {"sqlite": "DROP TRIGGER eat", "postgresql": "DROP RULE eat ON sms"}


class Told(list[str | None]):
    """What the guard told, newest last."""


def _do(engine: Engine, *statements: str) -> None:
    with writing(engine) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_nothing_is_stored_while_something_swallows_rows(archive_engine: Engine) -> None:
    """The store is held back, and let go by itself once the archive is as it should be."""
    store, told = Store(archive_engine), Told()
    guard = ArchiveGuard(archive_engine, store, told.append)
    _do(archive_engine, *SWALLOW[archive_engine.dialect.name])
    guard.look()
    with pytest.raises(ArchiveUnavailable, match="eat"):
        store.write([Submission(None, (item(1),))], NOW)
    assert told[-1] is not None
    assert "eat" in told[-1]
    _do(archive_engine, UNDO[archive_engine.dialect.name])
    guard.look()
    assert told[-1] is None
    store.write([Submission(None, (item(1),))], NOW)
    assert number_of(archive_engine, "inbound_sms") == 1


def test_storing_goes_on_without_a_view_and_it_is_said_each_hour(archive_engine: Engine) -> None:
    """A missing view harms no row; the log repeats it hourly, not each minute."""
    now = [0.0]
    store, told = Store(archive_engine), Told()
    guard = ArchiveGuard(archive_engine, store, told.append, lambda: now[0])
    _do(archive_engine, "DROP VIEW quarantine")
    with structlog.testing.capture_logs() as lines:
        for minute in (0, 1, 2, 59, 60, 61, 119, 120, 121, 129):
            now[0] = 60.0 * minute
            guard.look()
    assert [line["differs"] for line in lines] == ["view quarantine is missing"] * 3
    store.write([Submission(None, (item(1),))], NOW)
    assert number_of(archive_engine, "sms") == 1


def test_what_was_found_stands_until_it_is_seen_to_be_over(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison that fails, or that the role may make no more, neither lets go nor waits for a day."""
    store, told = Store(sqlite_engine), Told()
    guard = ArchiveGuard(sqlite_engine, store, told.append)
    real = guarding.differences

    def fail(_engine: Engine) -> list[Difference]:
        raise ArchiveUnavailable("away")

    def refuse(_engine: Engine) -> list[Difference]:
        raise NotCompared("no right")

    _do(sqlite_engine, *SWALLOW["sqlite"])
    monkeypatch.setattr(guarding, "differences", fail)
    guard.look()
    assert store.held is None
    monkeypatch.setattr(guarding, "differences", real)
    guard.look()
    assert store.held is not None
    for broken in (refuse, fail):
        monkeypatch.setattr(guarding, "differences", broken)
        guard.look()
        assert store.held is not None


def test_a_daemon_spools_what_would_be_swallowed(tmp_path: Path, sqlite_engine: Engine) -> None:
    """+OK stands for the spool file, nothing is lost, and `status` ends with 1 and says what differs."""
    _do(sqlite_engine, *SWALLOW["sqlite"])
    endpoint = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    config = configuration(tmp_path, sqlite_engine.url.render_as_string(), endpoint)
    with running(config) as daemon:
        daemon.wait_ready()
        port = until(lambda: daemon.events("webhook listening"), "the listener")[0]["port"]
        with Client(("127.0.0.1", port)) as client:
            assert client.ask(post("/a", sms(1))).body == b"+OK"
        [said] = daemon.events("the archive is not as this version makes it")
        assert "eat" in said["differs"]
        until(lambda: list(tmp_path.glob("spool/*.post")), "the spool file")
        status = until(
            lambda: (
                (done := ingestor("--config", config, "status", folder=tmp_path))
                and "eat" in done.out
                and done
            ),
            "status",
        )
        assert status.code == 1
        daemon.stop()
    _do(sqlite_engine, UNDO["sqlite"])
    with running(config) as daemon:
        daemon.wait_ready()
        until(lambda: number_of(sqlite_engine, "inbound_sms") == 1, "the SMS")
        daemon.stop()
