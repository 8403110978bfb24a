"""Rows stored per second, payload and all tables kept, against the bare drivers doing the same inserts.

The limit of each database gets ready-made rows of the same four tables (same triggers, constraints and
transactions) and does nothing but insert them with the driver's fastest statements: `executemany` on
SQLite, a binary COPY into temporary tables and INSERT … ON CONFLICT from there on PostgreSQL.
"""

import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from operator import truediv
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, Table

from ingestor.archive import tables
from ingestor.archive.engine import bulk_import_settings, open_engine, reading
from ingestor.archive.items import Item, Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.payloads import pack
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from tests.archive.samples import NOW, item
from tests.benchmarks._postgresql import measured_postgresql
from tests.servers.postgresql import PostgresqlServer

ITEMS = int(os.environ.get("INGESTOR_BENCH_ITEMS", "20000"))
BATCH = 5000
ROUNDS = 5
TABLES = (
    tables.sms, tables.sms_content, tables.sms_numbers, tables.arrivals, tables.arrival_content,
    tables.payloads,
)  # fmt: skip
_KINDS = {
    "Instant": "timestamptz", "BigInteger": "int8", "SmallInteger": "int2", "Integer": "int4",
    "LargeBinary": "bytea", "Boolean": "bool",
}  # fmt: skip
Rows = dict[str, list[tuple[Any, ...]]]


def main() -> None:
    """Print the ratios for both databases, and what group commit gains."""
    items = _items(ITEMS)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _sqlite(items, place)
        with measured_postgresql() as server:
            if server is not None:
                _postgresql(items, server)


def _items(number: int) -> list[Item]:
    """Return items with mails of about 3.6 kB that compress like real ones, compressed as workers do it."""
    order = random.Random(1)
    words = [f"word{n}" for n in range(400)]
    items: list[Item] = []
    for n in range(number):
        header = "".join(f"Received: from {order.random()} by mx{order.random()}\n" for _ in range(12))
        body = " ".join(order.choices(words, k=350))
        raw = f"{header}Subject: Agile Telecom -- SMS received\n\n{body}\n".encode()
        items.append(item(n, raw=raw)._replace(payload=pack(raw)))
    return items


def _sqlite(items: list[Item], folder: Path) -> None:
    template = folder / "template.db"
    with _archive(f"sqlite:///{template}") as engine:
        ensure_schema(engine, auto_upgrade=True)
    full = folder / "full.db"
    shutil.copy(template, full)
    with _archive(f"sqlite:///{full}") as engine:
        _store(engine, items)
        rows = _rows(engine)

    def through_store() -> float:
        path = shutil.copy(template, folder / "store.db")
        with _archive(f"sqlite:///{path}") as engine, bulk_import_settings(engine):
            return _store(engine, items)

    def bare() -> float:
        path = shutil.copy(template, folder / "bare.db")
        return _bare_sqlite(Path(path), rows)

    def again() -> float:
        with _archive(f"sqlite:///{full}") as engine, bulk_import_settings(engine):
            return _store(engine, items)

    _report("SQLite", "sqlite3", through_store, bare, again)
    path = shutil.copy(template, folder / "group.db")
    with _archive(f"sqlite:///{path}") as engine:
        _group_commit("SQLite", engine, items)


def _postgresql(items: list[Item], server: PostgresqlServer) -> None:
    server.sql("CREATE DATABASE template_archive")
    with _archive(server.url("template_archive")) as engine:
        ensure_schema(engine, auto_upgrade=True)
    number = iter(range(1000))

    def fresh() -> str:
        name = f"bench_{next(number)}"
        server.sql(f"CREATE DATABASE {name} TEMPLATE template_archive")
        return name

    full = fresh()
    with _archive(server.url(full)) as engine:
        _store(engine, items)
        rows = _rows(engine)

    def through_store() -> float:
        with _archive(server.url(fresh())) as engine:
            return _store(engine, items)

    def bare() -> float:
        return _bare_postgresql(f"host=127.0.0.1 port={server.port} user=app dbname={fresh()}", rows)

    def again() -> float:
        with _archive(server.url(full)) as engine:
            return _store(engine, items)

    _report("PostgreSQL", "psycopg", through_store, bare, again)
    with _archive(server.url(fresh())) as engine:
        _group_commit("PostgreSQL", engine, items)


def _report(
    database: str,
    driver: str,
    store: Callable[[], float],
    bare: Callable[[], float],
    again: Callable[[], float],
) -> None:
    measured: dict[str, list[float]] = {"store": [], "bare": [], "again": []}
    for _ in range(ROUNDS):
        measured["bare"].append(bare())
        measured["store"].append(store())
        measured["again"].append(again())
    middle = {name: statistics.median(values) for name, values in measured.items()}
    # Neighbours in time are compared: whatever else the machine does hits both.
    ratio = statistics.median(map(truediv, measured["store"], measured["bare"]))
    repeated = statistics.median(map(truediv, measured["again"], measured["store"]))
    print(
        f"{database}: {middle['store']:,.0f} items/s stored with payload, batches of {BATCH}; bare {driver} "
        f"{middle['bare']:,.0f}/s: ratio {ratio:.2f} (at least 0.6)"
    )
    print(
        f"{database}: second run of the same items {middle['again']:,.0f}/s, "
        f"{repeated:.2f} times the first (at least 1)"
    )


def _store(engine: Engine, items: list[Item]) -> float:
    store = Store(engine)
    store.archive_key()
    began = time.perf_counter()
    for start in range(0, len(items), BATCH):
        store.write([Submission(None, tuple(items[start : start + BATCH]))], NOW)
    return len(items) / (time.perf_counter() - began)


def _rows(engine: Engine) -> Rows:
    rows: Rows = {}
    with reading(engine) as connection:
        for target in TABLES:
            select = f"SELECT {_columns(target)} FROM {target.name} ORDER BY 1"
            rows[target.name] = [tuple(row) for row in connection.exec_driver_sql(select)]
    return rows


def _columns(target: Table) -> str:
    """Name the columns: migrations have put some of them in another place than a new table has them."""
    return ", ".join(target.c.keys())


def _bare_sqlite(path: Path, rows: Rows) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "cache_size = -131072",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA wal_autocheckpoint = 16384")
        began = time.perf_counter()
        for start in range(0, ITEMS, BATCH):
            connection.execute("BEGIN IMMEDIATE")
            for target in TABLES:
                marks = ", ".join("?" * len(target.c))
                connection.executemany(
                    f"INSERT INTO {target.name} ({_columns(target)}) VALUES ({marks}) ON CONFLICT DO NOTHING",
                    rows[target.name][start : start + BATCH],
                )
            connection.execute("COMMIT")
        return ITEMS / (time.perf_counter() - began)


def _bare_postgresql(address: str, rows: Rows) -> float:
    with psycopg.connect(address) as connection:
        for target in TABLES:
            connection.execute(
                f"CREATE TEMPORARY TABLE new_{target.name} (LIKE {target.name}) ON COMMIT DELETE ROWS"
            )
        connection.commit()
        began = time.perf_counter()
        for start in range(0, ITEMS, BATCH):
            for target in TABLES:
                _copy(connection, target, rows[target.name][start : start + BATCH])
            connection.commit()
        return ITEMS / (time.perf_counter() - began)


def _copy(connection: "psycopg.Connection[Any]", target: Table, rows: list[tuple[Any, ...]]) -> None:
    unique = "id" in target.c
    into = f"new_{target.name}" if unique else target.name
    names = _columns(target)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {into} ({names}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types([_KINDS.get(type(one.type).__name__, "text") for one in target.c])
        for row in rows:
            copy.write_row(row)
    if unique:
        into_table = f"INSERT INTO {target.name} ({names}) SELECT {names} FROM {into}"
        connection.execute(f"{into_table} ON CONFLICT DO NOTHING")


def _group_commit(database: str, engine: Engine, items: list[Item]) -> None:
    """Compare one commit an item with what 64 waiting submitters get through one writer."""
    store = Store(engine)
    store.archive_key()
    times: list[float] = []
    for one in items[:500]:
        began = time.perf_counter()
        store.write([Submission(None, (one,))], NOW)
        times.append(time.perf_counter() - began)
    alone = len(times) / sum(times)
    writer = Writer(store, clock=lambda: NOW)
    writer.start()
    waiting = iter(items[500:8500])
    lock = threading.Lock()

    def submit() -> None:
        while True:
            with lock:
                one = next(waiting, None)
            if one is None:
                return
            writer.submit(Submission(None, (one,))).result()

    threads = [threading.Thread(target=submit) for _ in range(64)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = 8000 / (time.perf_counter() - began)
    writer.stop(10)
    print(
        f"{database}: one item a commit {alone:,.0f}/s (median {statistics.median(times) * 1000:.2f} ms); "
        f"64 submitters in group commit {together:,.0f}/s, {together / alone:.1f} times as many"
    )


@contextmanager
def _archive(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


if __name__ == "__main__":
    main()
