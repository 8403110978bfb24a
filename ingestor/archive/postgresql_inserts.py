"""The writer's statements in PostgreSQL's fastest form; see `inserts.Inserts`."""

import contextlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ingestor.archive.faults import as_sqlalchemy
from ingestor.archive.postgresql_arrays import PackedArray, packed
from ingestor.archive.targets import (
    ARRIVALS,
    ARRIVALS_BY_KEY,
    SMS_BY_FINGERPRINT,
    TARGETS,
    Arrivals,
    Row,
    Target,
)

Drawn = tuple[tuple[tuple[Target, int], ...], list[Sequence[int]]]
"""What was wanted of `reserve`, and what it gave."""


class Misjudged(Exception):
    """Not every row was new, as had been expected: the transaction is to be done again."""


class PostgresqlInserts:
    """PostgreSQL: many writers, so keys go in sorted, and ids come from sequences."""

    def __init__(self, connection: Connection, left: "Drawn | None" = None) -> None:
        """`left` are ids that the same batch drew when it was written in vain."""
        self.all_new = True
        """Whether every row so far went in."""
        self.drawn: Drawn | None = None
        """What was drawn last."""
        self._connection = connection
        self._left = left

    def reserve(self, *wanted: tuple[Target, int]) -> list[Sequence[int]]:
        """Draw ids from the tables' sequences, all in one round trip; those that are never used stay unused.

        No connection keeps any for later: a higher id must not stand for an earlier arrival or verdict.
        """
        left, self._left = self._left, None
        if left is not None and left[0] == wanted:
            return left[1]
        draws = [_DRAW.format(target.name) for target, _ in wanted]
        ranges = ", ".join(f"(SELECT ARRAY[min(id), max(id)] FROM ({draw}) AS drawn)" for draw in draws)  # noqa: S608 - names are our own
        counts = [count for _, count in wanted]
        found = self._execute(f"SELECT {ranges}", counts).fetchone()
        reserved: list[Sequence[int]] = []
        for draw, count, (first, last) in zip(draws, counts, found, strict=True):
            if not count:
                reserved.append(())
            elif last - first + 1 == count:
                reserved.append(range(first, last + 1))
            else:  # somebody else drew in between
                reserved.append(sorted(number for (number,) in self._execute(draw, (count,))))
        self.drawn = (wanted, reserved)
        return reserved

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert all rows in one statement, which is given an array for each column.

        Row by row took twice as long; a COPY needs a temporary table, and emptying it costs as much as
        inserting sixty rows.
        """
        if not rows or self._send(target, _columns(target, rows)).rowcount == len(rows):
            return None
        self.all_new = False
        return self._present(target, rows)

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Look all up at once."""
        found = self._execute(
            SMS_BY_FINGERPRINT + "= ANY(%b::bytea[])", (packed("bytea", tuple(fingerprints)),)
        )
        return dict(map(tuple, found))

    def arrivals_by_key(self, keys: Sequence[bytes]) -> Arrivals:
        """Look all up at once."""
        return _by_key(self._find_arrivals(keys))

    def _find_arrivals(self, keys: Sequence[bytes]) -> Any:
        return self._execute(ARRIVALS_BY_KEY + "= ANY(%b::bytea[])", (packed("bytea", tuple(keys)),))

    def _send(self, target: Target, arrays: Sequence[PackedArray]) -> Any:
        return self._execute(_STATEMENTS[target.name], arrays)

    def _execute(self, statement: str, values: Sequence[Any]) -> Any:
        """Execute by the driver's own cursor: Core takes as long for a small statement as the driver."""
        with as_sqlalchemy(self._connection):
            cursor: Any = self._connection.connection.cursor()
            return cursor.execute(statement, values)

    def _present(self, target: Target, rows: Sequence[Row]) -> set[int]:
        """Return which ids of `rows` are in the table: ids are nobody else's."""
        first = target.columns[0]
        found = self._execute(
            f"SELECT {first} FROM {target.name} WHERE {first} = ANY(%s)",  # noqa: S608 - names are our own
            ([row[0] for row in rows],),
        )
        return {number for (number,) in found}


class InsertsAhead(PostgresqlInserts):
    """Takes every row for new, and makes one insert ready while PostgreSQL is at the one before.

    That took a fifth off a transaction, of 64 items as of one.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._open = contextlib.ExitStack()
        self._pipeline: Any = None
        self._sent: list[tuple[Any, int]] = []
        self._sure = False

    @staticmethod
    def possible() -> bool:
        """Return whether the driver's libpq (14 and later) can send ahead."""
        from psycopg import Pipeline

        return Pipeline.is_supported()

    def insert(self, target: Target, rows: Sequence[Row]) -> None:
        """Send all rows, and return None as if they had gone in.

        Raises Misjudged where an SMS was there already: its arrivals, sent all the same, would leave an error
        in the server's log.
        """
        if not rows:
            return
        arrays = _columns(target, rows)
        if self._pipeline is None:  # and no sooner: in a pipeline the driver waits for BEGIN twice
            driver: Any = self._connection.connection.dbapi_connection
            self._pipeline = self._open.enter_context(driver.pipeline())
        elif target is ARRIVALS and not self._sure:
            self._sync()
        self._sure = False
        self._sent.append((self._send(target, arrays), len(rows)))

    def arrivals_by_key(self, keys: Sequence[bytes]) -> Arrivals:
        """Look all up at once, as soon as all that was sent before is known to have gone in."""
        found = self._find_arrivals(keys)
        if self._pipeline is not None:
            self._sync()
        return _by_key(found)

    def confirm(self) -> None:
        """Wait for the last inserts. Raises Misjudged where a row of them was there already."""
        with as_sqlalchemy(self._connection):
            self._open.close()
        self._check()

    def close(self) -> None:
        """End the pipeline where it is still open; what came of it does not matter any more."""
        with contextlib.suppress(Exception):
            self._open.close()

    def _sync(self) -> None:
        with as_sqlalchemy(self._connection):
            self._pipeline.sync()
        self._check()
        self._sure = True

    def _check(self) -> None:
        if any(cursor.rowcount != count for cursor, count in self._sent):
            raise Misjudged


def _by_key(found: Any) -> Arrivals:
    return {(key, number, channel): (identity, sms_id) for key, number, channel, identity, sms_id in found}


def _columns(target: Target, rows: Sequence[Row]) -> tuple[PackedArray, ...]:
    columns = zip(target.types, zip(*rows, strict=True), strict=True)
    return tuple(packed(kind, values) for kind, values in columns)


# A parameter behind a SELECT tells the planner nothing, so that it makes one plan for all counts. Making a
# plan each time took longer than drawing 64 ids.
_DRAW = "SELECT nextval('{}_id_seq') AS id FROM generate_series(1, (SELECT %s::bigint))"


def _statement(target: Target) -> str:
    columns = ", ".join(target.columns)
    arrays = ", ".join(f"%b::{kind}[]" for kind in target.types)
    statement = f"INSERT INTO {target.name} ({columns}) SELECT * FROM unnest({arrays}) AS given ({columns})"  # noqa: S608 - names are our own
    if target.key is None:
        return statement  # each row belongs to one that has just gone in
    # Two writers that lock the same keys in the same order cannot wait for each other: rows go in by their
    # key, and equal keys in the order of input. An id that is taken is no row that exists, but an error.
    order = f"ORDER BY {target.columns[target.key]}, {target.columns[0]}"
    return f"{statement} {order} ON CONFLICT {target.unique} DO NOTHING"


_STATEMENTS = {target.name: _statement(target) for target in TARGETS}
