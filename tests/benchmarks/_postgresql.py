"""The PostgreSQL of a benchmark: one that syncs its log, as a real one does."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.postgresql import INSTALL, PostgresqlServer, binaries


@contextmanager
def measured_postgresql() -> Iterator[PostgresqlServer | None]:
    """Give a server that ends with the block; None, and say so, where none is installed."""
    found = binaries()
    if found is None:
        print(INSTALL)
        yield None
        return
    server = PostgresqlServer(found, fsync=True)
    try:
        yield server
    finally:
        server.close()
