"""The writer's statements in SQLite's fastest form; see `inserts.Inserts`."""

import contextlib
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection

from ingestor.archive.faults import as_sqlalchemy
from ingestor.archive.open_file import open_file
from ingestor.archive.targets import ARRIVALS_BY_KEY, SMS_BY_FINGERPRINT, TARGETS, Arrivals, Row, Target

_CHUNK = 500

if sys.version_info < (3, 12):
    # Python 3.11 asks every None and every bytes in turn whether it can adapt itself, which took a tenth of
    # the time of an insert. An adapter that gives back the same ends the asking.
    _nothing: dict[None, None] = {}
    sqlite3.register_adapter(type(None), _nothing.get)
    sqlite3.register_adapter(bytes, bytes)


class SqliteInserts:
    """SQLite: one writer at a time, so the next ids are simply the next ones."""

    def __init__(self, connection: Connection, *, first: bool = False) -> None:
        """`first` says that nothing was inserted yet in this transaction: what is there is committed."""
        self._connection = connection
        self._file = open_file(connection.engine) if first else None

    def reserve(self, *wanted: tuple[Target, int]) -> list[Sequence[int]]:
        """Return the ids after the highest ones; `BEGIN IMMEDIATE` keeps everybody else out."""
        reserved: list[Sequence[int]] = []
        with self._cursor() as cursor:
            for target, count in wanted:
                cursor.execute(f"SELECT max(id) FROM {target.name}")  # noqa: S608 - names are our own
                highest = cursor.fetchone()[0] or 0
                if self._file is not None:
                    self._file.seen(target.name, highest)
                reserved.append(range(highest + 1, highest + 1 + count))
        return reserved

    def insert(self, target: Target, rows: Sequence[Row]) -> set[int] | None:
        """Insert as many rows in a statement as can be.

        The driver lets go of the interpreter for each statement, and of several threads that want it each
        waits long to get it back: a row at a time, a busy listener got half as many POSTs into the archive.
        """
        if not rows:
            return None
        first = target.columns[0]
        with self._cursor() as cursor:
            inserted, start = 0, 0
            for statement, count in _steps(target, len(rows)):
                cursor.execute(statement, tuple(chain.from_iterable(rows[start : start + count])))
                inserted += cursor.rowcount
                start += count
            if inserted == len(rows):
                return None
            cursor.execute(
                f"SELECT {first} FROM {target.name} WHERE {first} BETWEEN ? AND ?",  # noqa: S608 - names are our own
                (rows[0][0], rows[-1][0]),
            )
            return {number for (number,) in cursor.fetchall()}

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        """Give the driver's own cursor.

        Through Core, thousands of rows of one number cost three times as much, and one row twice as much.
        """
        with (
            as_sqlalchemy(self._connection),
            contextlib.closing(self._connection.connection.cursor()) as cursor,
        ):
            yield cursor

    def sms_by_fingerprint(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Look up in chunks of a fixed size, so that the statement is prepared once."""
        return dict(map(tuple, self._in_chunks(SMS_BY_FINGERPRINT, fingerprints)))

    def arrivals_by_key(self, keys: Sequence[bytes]) -> Arrivals:
        """Look up in chunks of a fixed size, so that the statement is prepared once."""
        return {
            (key, number, channel): (identity, sms_id)
            for key, number, channel, identity, sms_id in self._in_chunks(ARRIVALS_BY_KEY, keys)
        }

    def _in_chunks(self, select: str, keys: Sequence[bytes]) -> Iterator[Any]:
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            width = 1 if len(chunk) == 1 else _CHUNK
            marks = ",".join("?" * width)
            padded = (*chunk, *([chunk[-1]] * (width - len(chunk))))
            yield from self._connection.exec_driver_sql(f"{select} IN ({marks})", padded)


_ROWS_A_STATEMENT = (64, 32, 8, 1)  # few lengths, so that each is prepared once


def _statement(target: Target, count: int) -> str:
    row = f"({', '.join('?' * len(target.columns))})"
    columns = ", ".join(target.columns)
    return f"INSERT INTO {target.name} ({columns}) VALUES {', '.join([row] * count)} ON CONFLICT DO NOTHING"  # noqa: S608 - names are our own


_STATEMENTS = {
    target.name: [(_statement(target, count), count) for count in _ROWS_A_STATEMENT] for target in TARGETS
}


def _steps(target: Target, left: int) -> Iterator[tuple[str, int]]:
    """Return the statements that insert `left` rows, each with how many of them it takes."""
    for step in _STATEMENTS[target.name]:
        while left >= step[1]:
            yield step
            left -= step[1]
