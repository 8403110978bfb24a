"""What every room's tests share: both databases, fresh for each test."""

import itertools
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from tests.servers import places
from tests.servers.dovecot import DovecotServer, unavailable
from tests.servers.postgresql import INSTALL, MADE, PostgresqlServer, at_end, binaries

_numbers = itertools.count(1)

# A shell starts what it runs in the background with SIGINT ignored, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test judges by the clock how fast the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if "CI" not in os.environ:  # else hypothesis has such a profile of its own
    settings.load_profile("untimed")

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


# A worker takes a file at a time: one that takes half a minute and comes last leaves the other workers idle.
# In the order of what --durations=0 sums up for a file; who adds waits or processes to one looks again.
LONGEST = (
    "replies/test_crash_answers.py", "service/test_daemon.py", "service/test_several_daemons.py",
    "service/test_database_outage.py", "cli/test_dispatch.py", "service/test_crash_dovecot.py",
    "archive/test_upgrade_faults.py", "intake/files/test_foreign.py", "service/test_handed_over.py",
    "cli/test_as_root.py", "service/test_living.py", "test_readme.py", "service/test_failover.py",
    "intake/files/test_resume.py", "cli/test_send.py", "archive/test_erased_bytes.py",
    "intake/mailbox/test_oauth.py", "intake/files/test_bombs.py", "intake/files/test_dialects.py",
    "cli/test_db.py", "providers/test_new_provider.py", "intake/files/test_odd_calls.py",
    "intake/listener/test_database_gone.py", "cli/test_reading.py", "replies/test_opt_outs_document.py",
    "cli/test_status.py", "service/test_standbys.py", "replies/test_worker.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Choose where files lie before the first is made."""
    places.choose(config)


def pytest_unconfigure() -> None:
    """Remove what servers are copied from."""
    at_end.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    tests = Path(__file__).parent
    turn = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turn.get(item.path, len(LONGEST)))


def missing(reason: str) -> None:
    """Skip because a server is not installed; where CI is set that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each reason for skips once, with how many tests it has kept from running."""
    skipped = [one.longrepr[2] for one in terminalreporter.stats.get("skipped", ())]
    if skipped:
        terminalreporter.write_sep("=", "skipped")
    for reason, count in Counter(skipped).most_common():
        terminalreporter.write_line(f"{count:5}  {reason.removeprefix('Skipped: ')}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of four megabytes."""
    if os.geteuid() != 0:
        pytest.skip("a small file system can only be mounted by root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0755", "none", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        missing("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command called in this process makes of the log: the next test listens to it, too."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


@contextmanager
def started_postgresql() -> Iterator[PostgresqlServer]:
    """Start a real PostgreSQL, and remove it afterwards."""
    folder = binaries()
    if folder is None:
        missing(INSTALL)
        raise AssertionError
    server = PostgresqlServer(folder)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One real PostgreSQL for all tests; those that stop it take `own_postgresql`."""
    with started_postgresql() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL that the test may stop and break, with an archive in its database `archive`."""
    with started_postgresql() as server:
        server.create("archive", MADE)
        yield server


@pytest.fixture(scope="session")
def dovecot() -> Iterator[DovecotServer]:
    """One real Dovecot for all tests; who stops it starts it again."""
    if reason := unavailable():
        missing(reason)
    server = DovecotServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "archive.db"
    engine = open_engine(f"sqlite:///{path}")
    ensure_schema(engine, auto_upgrade=True)
    engine.dispose()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'archive.db'}"


@pytest.fixture
def made_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of an SQLite archive with today's schema: a daemon that has to make it takes a third longer."""
    path = tmp_path / "archive.db"
    shutil.copy(_sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database."""
    name = f"test_{next(_numbers)}"
    postgresql_server.create(name)
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture(params=DATABASES)
def archive_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh archive without any schema, once on each database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sqlite_engine(made_url: str) -> Iterator[Engine]:
    """An engine on a fresh SQLite archive with today's schema."""
    engine = open_engine(made_url)
    yield engine
    engine.dispose()


@pytest.fixture
def made_postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """The URL of a fresh PostgreSQL archive with today's schema."""
    name = f"test_{next(_numbers)}"
    postgresql_server.create(name, MADE)
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture
def postgresql_engine(made_postgresql_url: str) -> Iterator[Engine]:
    """An engine on a fresh PostgreSQL archive with today's schema."""
    engine = open_engine(made_postgresql_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=DATABASES)
def archive_engine(request: pytest.FixtureRequest) -> Engine:
    """An engine on a fresh archive with today's schema, once on each database."""
    engine: Engine = request.getfixturevalue(f"{request.param}_engine")
    return engine


@pytest.fixture(params=DATABASES)
def made_archive_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh archive with today's schema, once on each database."""
    name = {"sqlite": "made_url", "postgresql": "made_postgresql_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url
