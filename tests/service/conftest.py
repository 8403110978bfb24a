"""A PostgreSQL that a test may stop, and a mailbox that it may break."""

from collections.abc import Iterator

import pytest

from tests.conftest import started_postgresql
from tests.servers.imap.server import ImapServer
from tests.servers.postgresql import MADE, PostgresqlServer


@pytest.fixture(scope="session")
def _own_postgresql() -> Iterator[PostgresqlServer]:
    with started_postgresql() as server:
        yield server


@pytest.fixture
def postgresql(_own_postgresql: PostgresqlServer) -> PostgresqlServer:
    """A PostgreSQL that the test may stop, with an archive in its database `archive`."""
    _own_postgresql.stop()
    _own_postgresql.start()
    _own_postgresql.sql("DROP DATABASE IF EXISTS archive WITH (FORCE)")
    _own_postgresql.create("archive", MADE)
    return _own_postgresql


@pytest.fixture
def server() -> Iterator[ImapServer]:
    """A mailbox of the account demo, password demo; empty yet."""
    imap = ImapServer()
    with imap.running():
        yield imap
