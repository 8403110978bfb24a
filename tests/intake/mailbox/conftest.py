"""Servers and archives for the mailbox's tests."""

from collections.abc import Iterator

import pytest
import structlog
from sqlalchemy import Engine

from tests.intake.mailbox.desk import Desk
from tests.servers.dovecot import DovecotServer
from tests.servers.fault_proxy import FaultProxy
from tests.servers.imap.server import ImapServer
from tests.servers.scripted_imap import Script, ScriptedImap


@pytest.fixture
def server() -> Iterator[ImapServer]:
    """The small IMAP server with an empty INBOX."""
    with ImapServer().running() as running:
        yield running


@pytest.fixture
def engine(sqlite_engine: Engine) -> Engine:
    """An archive in SQLite; what a mailbox does is the same on both databases."""
    return sqlite_engine


@pytest.fixture
def desk(engine: Engine, server: ImapServer) -> Iterator[Desk]:
    """An archive, a writer, and whatever threads a test starts; they end before the server does."""
    made = Desk(engine)
    yield made
    made.close()


@pytest.fixture
def logged() -> Iterator[list[dict[str, object]]]:
    """What is logged meanwhile, from every thread."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def proxy(dovecot: DovecotServer) -> Iterator[FaultProxy]:
    """A proxy in front of Dovecot's TLS port."""
    with FaultProxy(dovecot.imaps_port).running() as running:
        yield running


@pytest.fixture
def scripted() -> Iterator[ScriptedImap]:
    """A server that says what a test tells it to, with an empty INBOX."""
    with ScriptedImap(Script()).running() as running:
        yield running
