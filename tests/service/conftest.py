"""A PostgreSQL that a test may stop, and a mailbox that it may break."""

from collections.abc import Iterator

import pytest

from ingestor.demo.imap_server import ImapServer
from tests.conftest import missing
from tests.servers.postgresql import INSTALL, PostgresqlServer, binaries


@pytest.fixture
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL of the test's own, with an empty database `archive`."""
    folder = binaries()
    if folder is None:
        missing(INSTALL)
        return
    server = PostgresqlServer(folder)
    server.sql("CREATE DATABASE archive")
    yield server
    server.close()


@pytest.fixture
def server() -> Iterator[ImapServer]:
    """A mailbox of the account demo, password demo; empty yet."""
    imap = ImapServer()
    with imap.running():
        yield imap
