"""The writer's statements in PostgreSQL's fastest form; see `inserts.Inserts`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ingestor.archive.faults import as_sqlalchemy
from ingestor.archive.postgresql_arrays import packed
from ingestor.archive.targets import ARRIVALS_BY_KEY, SMS_BY_FINGERPRINT, TARGETS, Row, Target


class PostgresqlInserts:
    """PostgreSQL: many writers, so keys go in sorted, and ids come from sequences."""

    def __init__(self, connection: Connection) -> None:
        self.transaction: str | None = None
        self._connection = connection

    def reserve(self, *wanted: tuple[Target, int]) -> list[Sequence[int]]:
        """Draw ids from the tables' sequences, all in one round trip; those that are never used stay unused.

        No connection keeps any for later: a higher id must not stand for an earlier arrival or verdict.
        """
        draws = [_DRAW.format(target.name) for target, _ in wanted]
        ranges = ", ".join(f"(SELECT ARRAY[min(id), max(id)] FROM ({draw}) AS drawn)" for draw in draws)  # noqa: S608 - names are our own
        counts = [count for _, count in wanted]
        found = self._execute(f"SELECT pg_current_xact_id()::text, {ranges}", counts).fetchone()
        self.transaction = found[0]
        reserved: list[Sequence[int]] = []
        for draw, count, (first, last) in zip(draws, counts, found[1:], strict=True):
            if not count:
                reserved.append(())
            elif last - first + 1 == count:
                reserved.append(range(first, last + 1))
            else:  # somebody else drew in between
                reserved.append(sorted(number for (number,) in self._execute(draw, (count,))))
        return reserved

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert all rows in one statement, which is given an array for each column.

        Row by row took twice as long; a COPY needs a temporary table, and emptying it costs as much as
        inserting sixty rows.
        """
        if not rows:
            return None
        # Two writers that lock the same keys in the same order cannot wait for each other: rows go in by
        # their key, and equal keys in the order of input.
        columns = zip(target.types, zip(*rows, strict=True), strict=True)
        arrays = tuple(packed(kind, values) for kind, values in columns)
        inserted = self._execute(_STATEMENTS[target.name], arrays).rowcount
        return None if inserted == len(rows) else self._present(target, rows)

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Look all up at once."""
        found = self._execute(SMS_BY_FINGERPRINT + "= ANY(%s)", (list(fingerprints),))
        return dict(map(tuple, found))

    def arrivals_by_key(self, keys: Sequence[bytes]) -> dict[tuple[bytes, int, str], tuple[int, bool]]:
        """Look all up at once."""
        found = self._execute(ARRIVALS_BY_KEY + "= ANY(%s)", (list(keys),))
        return {(key, number, channel): (identity, read) for key, number, channel, identity, read in found}

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


_DRAW = "SELECT nextval('{}_id_seq') AS id FROM generate_series(1, %s::bigint)"


def _statement(target: Target) -> str:
    columns = ", ".join(target.columns)
    arrays = ", ".join(f"%b::{kind}[]" for kind in target.types)
    order = "" if target.key is None else f" ORDER BY {target.columns[target.key]}, {target.columns[0]}"
    return (
        f"INSERT INTO {target.name} ({columns}) SELECT * FROM unnest({arrays}) AS given ({columns}){order}"  # noqa: S608 - names are our own
        " ON CONFLICT DO NOTHING"
    )


_STATEMENTS = {target.name: _statement(target) for target in TARGETS}
