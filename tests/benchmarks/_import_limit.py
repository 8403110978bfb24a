"""The limit of an import: one process that splits an mbox, takes the SHA-256 and inserts the same raw bytes.

    python -m tests.benchmarks._import_limit MBOX FLAGS sqlite:///FILE | postgresql+psycopg://…

FLAGS is a file with a byte a mail, 1 where it is ours: what is not ours is split and left out, as an import
does. It parses nothing, knows no duplicates but equal bytes, and keeps one table. It prints the seconds.
"""

import hashlib
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from ingestor.intake.files.blocks import Block, Blocks
from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.parse import split, unquoted
from ingestor.intake.files.streams import Stream

BATCH = 4000
Rows = list[tuple[bytes, bytes]]


def batches(path: str, flags: bytes) -> Iterator[Rows]:
    """Yield (sha256, mail) of our mails by the thousand, split and unquoted by the import's rules."""
    rows: Rows = []
    number = 0
    with Path(path).open("rb", buffering=0) as file:
        for piece in Blocks(Stream(file), Dialect.MBOX, lambda _: False):
            block = cast("Block", piece)
            data = bytes(block.data)
            for start, end, verbatim in split(data).mails:
                if flags[number]:
                    mail = unquoted(data[start:end], Dialect.MBOX, verbatim=verbatim)
                    rows.append((hashlib.sha256(mail).digest(), mail))
                number += 1
            if len(rows) >= BATCH:
                yield rows
                rows = []
    yield rows


def into_sqlite(file: str, batches: Iterator[Rows]) -> None:
    """Insert as durably as an import does."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE mails (id INTEGER PRIMARY KEY, sha256 BLOB UNIQUE, raw BLOB)")
    for rows in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO mails (sha256, raw) VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
        connection.execute("COMMIT")
    connection.close()


def into_postgresql(url: str, batches: Iterator[Rows]) -> None:
    """COPY into a temporary table and insert from there: the fastest way that knows what is there already."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute(
            "CREATE TABLE mails"
            " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sha256 bytea UNIQUE, raw bytea)"
        )
        connection.execute("CREATE TEMPORARY TABLE stage (sha256 bytea, raw bytea) ON COMMIT DELETE ROWS")
        connection.commit()
        for rows in batches:
            statement = "COPY stage (sha256, raw) FROM STDIN (FORMAT BINARY)"
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(["bytea", "bytea"])
                for row in rows:
                    copy.write_row(row)
            connection.execute(
                "INSERT INTO mails (sha256, raw) SELECT sha256, raw FROM stage ON CONFLICT DO NOTHING"
            )
            connection.commit()


def main(path: str, flags: str, url: str) -> None:
    """Insert and print how long it took, without the start of Python."""
    marks = Path(flags).read_bytes()
    began = time.perf_counter()
    if url.startswith("sqlite"):
        into_sqlite(url.removeprefix("sqlite:///"), batches(path, marks))
    else:
        into_postgresql(url, batches(path, marks))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
