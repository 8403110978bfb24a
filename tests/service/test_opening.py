"""Waiting for the archive: patient, interruptible, and honest about what cannot be waited for."""

import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlencode

import pytest
import structlog

from ingestor.archive import migrate
from ingestor.archive.engine import writing
from ingestor.errors import (
    ArchiveUnavailable,
    ConfigurationError,
    IngestorError,
    SchemaMismatch,
    SchemaNewer,
    UpgradeFailed,
)
from ingestor.service import opening
from ingestor.service.opening import patiently
from tests.archive.reading import one, opened
from tests.archive.test_earlier_archives import put_back
from tests.conftest import DATABASES
from tests.service.process import configuration, running, until


def test_it_tries_until_the_archive_is_there() -> None:
    """Each failed try is told, and that somebody still tries is shown meanwhile."""
    failures = iter([ArchiveUnavailable("no route"), ArchiveUnavailable("starting up")])
    told: list[str] = []
    alive: list[bool] = []

    def attempt() -> str:
        for failure in failures:
            raise failure
        return "open"

    answer = patiently(
        attempt, stop_wished=lambda _: False, tell=told.append, alive=lambda: alive.append(True)
    )

    assert answer == "open"
    assert alive
    assert told == [
        "waiting for the archive: no route",
        "waiting for the archive: starting up",
    ]


def test_no_thread_for_the_try_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started (TasksMax) the archive is opened once one can."""
    start = threading.Thread.start
    refusals = iter([RuntimeError("can't start new thread")] * 2)

    def reluctant(self: threading.Thread) -> None:
        for refusal in refusals:
            raise refusal
        start(self)

    monkeypatch.setattr(threading.Thread, "start", reluctant)
    told: list[str] = []

    answer = patiently(
        lambda: "open", stop_wished=lambda _: False, tell=told.append, alive=lambda: None
    )  # fmt: skip

    assert answer == "open"
    assert told == ["waiting for the archive: no thread can be started to open the archive"] * 2


def test_a_newer_schema_is_not_waited_for() -> None:
    """No waiting makes this program newer: systemd is not to start it again either."""

    def attempt() -> None:
        raise SchemaNewer("too new")

    with pytest.raises(SchemaNewer, match="too new") as caught:
        patiently(attempt, stop_wished=lambda _: False, tell=_nobody, alive=_nobody)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("fault", [SchemaMismatch, UpgradeFailed, ConfigurationError, IngestorError])
def test_what_only_a_person_can_mend_is_said_each_hour_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, fault: type[IngestorError]
) -> None:
    """An end would close the port: POSTs are spooled for as long as it takes."""
    copies = fault is UpgradeFailed  # a try to upgrade copies the archive first
    failures = iter([fault("this role may not change the tables")] * (3 if copies else 400))
    now, tries = [0.0], list[float]()

    def attempt() -> str:
        tries.append(now[0])
        for failure in failures:
            raise failure
        return "open"

    def stop_wished(seconds: float) -> bool:
        now[0] += seconds
        return False

    monkeypatch.setattr(opening, "in_background", at_once)
    monkeypatch.setattr(opening.time, "monotonic", lambda: now[0])
    with structlog.testing.capture_logs() as logged:
        assert patiently(attempt, stop_wished=stop_wished, tell=_nobody, alive=_nobody) == "open"
    said = [line for line in logged if line["log_level"] == "error"]
    assert 2 <= len(said) <= now[0] / 3600 + 1
    assert said[0]["reason"] == "this role may not change the tables"
    between = [later - before for before, later in pairwise(tries)]
    assert (max(between) > 100) is copies


def _nobody(*_: object) -> None:
    """Hear it."""


def at_once(_: str, attempt: Callable[[], object]) -> Future[object]:
    """Try in the same thread."""
    outcome: Future[object] = Future()
    try:
        outcome.set_result(attempt())
    except IngestorError as error:
        outcome.set_exception(error)
    return outcome


@pytest.mark.parametrize("database", DATABASES)
def test_posts_are_taken_while_the_archive_must_not_be_upgraded(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    """A daemon that finds an older archive spools and says why; when it is upgraded it goes on by itself."""
    url: str = request.getfixturevalue(f"{database}_url")
    server = request.getfixturevalue("postgresql_server") if database == "postgresql" else None
    put_back("e58b20f", url, server)
    webhook = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    config = configuration(tmp_path, url, webhook)
    config.write_text(config.read_text().replace("[database]\n", "[database]\nauto_upgrade = false\n"))
    numbers = {"originator": "+393330000077", "destination": "+393331234333"}
    sent = {**numbers, "date_time": "20260301120009", "text": "x"}
    with running(config) as daemon:
        port = until(lambda: daemon.events("webhook listening"), "the listener")[0]["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", urlencode(sent).encode()) as answer:
            assert answer.read() == b"+OK"
        event = "the archive cannot be used; POSTs wait in the spool, mails on their servers"
        [said] = until(lambda: daemon.events(event), "why")
        assert said["level"] == "error"
        assert "db upgrade" in said["reason"]
        with opened(url) as engine:
            migrate.upgrade(engine)
        daemon.wait_ready()
        found = "SELECT count(*) FROM inbound_sms WHERE originator = '+393330000077'"
        until(lambda: stored_there(url, found) == 1, "the POST stored")
        assert daemon.stop() == 0


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "DROP TABLE archive_key"])
def test_posts_are_taken_while_the_archive_is_none(tmp_path: Path, sqlite_url: str, statement: str) -> None:
    """Tables of no known schema, or no key: what is acknowledged lies on the disk."""
    with opened(sqlite_url) as engine:
        migrate.upgrade(engine)
        with writing(engine) as connection:
            connection.exec_driver_sql(statement)
    webhook = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    with running(configuration(tmp_path, sqlite_url, webhook)) as daemon:
        port = until(lambda: daemon.events("webhook listening"), "the listener")[0]["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", b"text=x") as answer:
            assert answer.read() == b"+OK"
        event = "the archive cannot be used; POSTs wait in the spool, mails on their servers"
        until(lambda: daemon.events(event), "why")
        assert len(list((tmp_path / "spool").glob("*.post"))) == 1
        assert daemon.stop() == 0


def stored_there(url: str, statement: str) -> int:
    """Return the one number that `statement` selects."""
    with opened(url) as engine:
        return int(one(engine, statement))


def test_a_try_that_hangs_is_abandoned_on_stop() -> None:
    """A connection that never answers does not keep a stopped daemon."""
    hang = threading.Event()
    tried = threading.Event()

    def attempt() -> None:
        tried.set()
        hang.wait(60)

    assert patiently(attempt, stop_wished=lambda _: tried.is_set(), tell=_nobody, alive=_nobody) is None
    hang.set()
