"""The few statements that the writer repeats by the thousand, in each database's fastest form.

Both databases keep the same promise: `insert` leaves rows that exist alone and says which of the given
ids went in; nothing is looked up before it is inserted.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ingestor.archive.faults import DATA_ERRORS, is_data_error
from ingestor.archive.postgresql_inserts import Drawn, InsertsAhead, Misjudged, PostgresqlInserts
from ingestor.archive.sqlite_inserts import SqliteInserts
from ingestor.archive.targets import Arrivals, Row, Target

_ALL_NEW_IN_A_ROW = 8


class Inserts(Protocol):
    """What the writer asks of a database, inside one transaction."""

    def reserve(self, *wanted: tuple[Target, int]) -> list[Sequence[int]]:
        """Return for each (table, count) so many ascending ids that nobody else will use."""

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert what is new; return the ids (first column) that went in, None where all did."""

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Return the id of each SMS that is in the archive."""

    def arrivals_by_key(self, keys: Sequence[bytes]) -> Arrivals:
        """Return each known arrival by content key, number and channel."""


def inserts_for(connection: Connection) -> Inserts:
    """Return the statements for the database behind `connection`."""
    if connection.dialect.name == "sqlite":
        return SqliteInserts(connection)
    return PostgresqlInserts(connection)


def sms_by_content_key(inserts: Inserts, keys: Sequence[bytes]) -> dict[bytes, int]:
    """Return the SMS that each mail became when its bytes were read first, by whatever channel.

    `keys` are content keys of mails, as the archive keeps them; those that were never read are left out.
    """
    found = inserts.arrivals_by_key(keys) if keys else {}
    read = sorted((sms_id, key) for (key, _, _), (_, sms_id) in found.items() if sms_id is not None)
    return {key: sms_id for sms_id, key in reversed(read)}  # the first of several


class Expectation:
    """Expects of a batch what the last ones were: all new, or not. Each writer has its own.

    Where all rows are new PostgreSQL need not be asked after each insert. A batch that was expected wrongly
    is written twice, so one that brings known rows makes the next few be looked at carefully.
    """

    def __init__(self) -> None:
        self._all_new_in_a_row = _ALL_NEW_IN_A_ROW
        self._left: Drawn | None = None

    @contextlib.contextmanager
    def inserts(self, connection: Connection, *, known: bool = False) -> Iterator[Inserts]:
        """Give the statements for `connection`; at the end all that was inserted is in.

        `known` says that this batch brings known rows for sure. Raises Misjudged where it is to be done
        again, in a new transaction: that will look carefully.
        """
        if connection.dialect.name == "sqlite":
            yield SqliteInserts(connection, first=True)
            return
        in_a_row, self._all_new_in_a_row = self._all_new_in_a_row, 0
        left, self._left = self._left, None
        if known or in_a_row < _ALL_NEW_IN_A_ROW or not InsertsAhead.possible():
            careful = PostgresqlInserts(connection, left)
            yield careful
            self._all_new_in_a_row = in_a_row + 1 if careful.all_new else 0
            return
        with contextlib.closing(InsertsAhead(connection)) as ahead:
            try:
                yield ahead
                ahead.confirm()
            except Misjudged:
                self._left = ahead.drawn
                raise
            except (*DATA_ERRORS, DBAPIError) as error:
                if is_data_error(error):  # an item is refused, or names a row that did not go in
                    self._left = ahead.drawn
                    raise Misjudged from error
                raise
        self._all_new_in_a_row = in_a_row
