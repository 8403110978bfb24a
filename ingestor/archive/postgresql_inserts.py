"""The writer's statements in PostgreSQL's fastest form; see `inserts.Inserts`."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingestor.archive.postgresql_arrays import packed
from ingestor.archive.targets import ARRIVALS_BY_KEY, SMS_BY_FINGERPRINT, TARGETS, Row, Target


class PostgresqlInserts:
    """PostgreSQL: many writers, so keys go in sorted, and ids come from sequences."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def reserve(self, target: Target, count: int) -> Sequence[int]:
        """Draw ids from the table's sequence; those that are never used stay unused.

        No connection keeps any for later: a higher id must not stand for an earlier arrival or verdict.
        """
        if not count:
            return ()
        execute = self._connection.exec_driver_sql
        following = f"SELECT nextval('{target.name}_id_seq') AS id"
        if count == 1:
            return [execute(following).scalar_one()]
        draw = f"{following} FROM generate_series(1, %s::bigint)"
        first, last = execute(f"SELECT min(id), max(id) FROM ({draw}) AS drawn", (count,)).one()  # noqa: S608 - names are our own
        if last - first + 1 == count:
            return range(first, last + 1)
        return sorted(execute(draw, (count,)).scalars())  # somebody else drew in between

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
        inserted = self._connection.exec_driver_sql(_STATEMENTS[target.name], arrays).rowcount
        return None if inserted == len(rows) else self._present(target, rows)

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Look all up at once."""
        found = self._connection.exec_driver_sql(SMS_BY_FINGERPRINT + "= ANY(%s)", (list(fingerprints),))
        return dict(map(tuple, found))

    def arrivals_by_key(self, keys: Sequence[bytes]) -> dict[tuple[bytes, int, str], tuple[int, bool]]:
        """Look all up at once."""
        found = self._connection.exec_driver_sql(ARRIVALS_BY_KEY + "= ANY(%s)", (list(keys),))
        return {(key, number, channel): (identity, read) for key, number, channel, identity, read in found}

    def _present(self, target: Target, rows: Sequence[Row]) -> set[int]:
        """Return which ids of `rows` are in the table: ids are nobody else's."""
        first = target.columns[0]
        found = self._connection.exec_driver_sql(
            f"SELECT {first} FROM {target.name} WHERE {first} = ANY(%s)",  # noqa: S608 - names are our own
            ([row[0] for row in rows],),
        )
        return set(found.scalars())


def _statement(target: Target) -> str:
    columns = ", ".join(target.columns)
    arrays = ", ".join(f"%b::{kind}[]" for kind in target.types)
    order = "" if target.key is None else f" ORDER BY {target.columns[target.key]}, {target.columns[0]}"
    return (
        f"INSERT INTO {target.name} ({columns}) SELECT * FROM unnest({arrays}) AS given ({columns}){order}"  # noqa: S608 - names are our own
        " ON CONFLICT DO NOTHING"
    )


_STATEMENTS = {target.name: _statement(target) for target in TARGETS}
