"""The few statements that the writer repeats by the thousand, in each database's fastest form.

Both databases keep the same promise: `insert` leaves rows that exist alone and says which of the given
ids went in; nothing is looked up before it is inserted.
"""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection

from ingestor.archive.postgresql_inserts import PostgresqlInserts
from ingestor.archive.sqlite_inserts import SqliteInserts
from ingestor.archive.targets import Row, Target


class Inserts(Protocol):
    """What the writer asks of a database, inside one transaction."""

    transaction: str | None
    """The number of the transaction under way, where the database has such and `reserve` was called."""

    def reserve(self, *wanted: tuple[Target, int]) -> list[Sequence[int]]:
        """Return for each (table, count) so many ascending ids that nobody else will use."""

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert what is new; return the ids (first column) that went in, None where all did."""

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Return the id of each SMS that is in the archive."""

    def arrivals_by_key(self, keys: Sequence[bytes]) -> dict[tuple[bytes, int, str], tuple[int, bool]]:
        """Return (id, has it been read) of each known arrival, by content key, number and channel."""


def inserts_for(connection: Connection) -> Inserts:
    """Return the statements for the database behind `connection`."""
    if connection.dialect.name == "sqlite":
        return SqliteInserts(connection)
    return PostgresqlInserts(connection)
