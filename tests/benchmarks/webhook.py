"""Durable acknowledgements a second over 64 connections, against what a user writes from Agile's example.

The peer is Flask + gunicorn + SQLAlchemy with a commit for each request; the same listener without storage,
and the one that puts each POST into the spool first, are printed beside it. Unique messages, and the rows are
counted against the acknowledgements. All are measured in turns, because no machine is equally quiet for long;
the figures are medians of the turns.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.benchmarks._postgresql import measured_postgresql
from tests.servers.postgresql import PostgresqlServer

CONNECTIONS = 64
SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "3"))
TURNS = int(os.environ.get("BENCHMARK_TURNS", "3"))
PATH = "/agile/" + "b" * 32
LIMITS = {"SQLite": 5.0, "PostgreSQL": 3.5}
P99_MS = {"SQLite": 20.0, "PostgreSQL": 30.0}

Figures = dict[str, float]


def main() -> None:
    """Measure on SQLite and, where it is installed, on PostgreSQL."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _measure("SQLite", place, lambda name: f"sqlite:///{place / name}.db")
    with measured_postgresql() as server:
        if server is not None:
            _break_in(server)
            with tempfile.TemporaryDirectory() as folder:
                _measure("PostgreSQL", Path(folder), lambda name: _made(server, name))


def _break_in(server: PostgresqlServer) -> None:
    """Bring the server to where it is after its first hours, for everybody who is measured.

    A new one makes a new file for every 16 MB of its log, during which a commit takes 15 to 20 ms: one in 150
    commits, which is most of what a p99 sees. Later it uses its old files again.
    """
    for _ in range(2):
        server.sql(
            "CREATE TABLE log_filler AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 200000);"
            "DROP TABLE log_filler; CHECKPOINT"
        )


def _made(server: PostgresqlServer, name: str) -> str:
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


def _measure(database: str, folder: Path, url: Callable[[str], str]) -> None:
    ours, naive = url("ours"), url("naive")
    names = ("naive", "listener", "spool first", "without storage")
    turns: dict[str, list[Figures]] = {name: [] for name in names}
    acknowledged = 0
    with (
        _naive(naive, folder) as peer, _listener(ours, folder / "a") as port,
        _listener(url("first"), folder / "b", "first") as first, _listener("none", folder / "c") as bare,
    ):  # fmt: skip
        for turn in range(TURNS):
            for name, at in zip(names, (peer, port, first, bare), strict=True):
                figures = _load(at, first=(turn + 1) * 1_000_000)
                turns[name].append(figures)
                if figures["failed"]:
                    sys.exit(f"{name}: {figures['failed']:.0f} requests failed")
                acknowledged += int(figures["accepted"]) if name == "listener" else 0
    rows = _rows(ours)
    if rows < acknowledged:
        sys.exit(f"{acknowledged} acknowledged, but only {rows} rows")
    median = {name: _median(figures) for name, figures in turns.items()}
    for name, figures in median.items():
        print(
            f"{database:<11} {name:<16} {figures['rate']:8.0f}/s   median {figures['median_ms']:6.1f} ms"
            f"   p99 {figures['p99_ms']:6.1f} ms"
        )
    ratio = median["listener"]["rate"] / median["naive"]["rate"]
    kept = median["listener"]["rate"] / median["without storage"]["rate"]
    print(f"{database:<11} {ratio:.1f} times the naive receiver (at least {LIMITS[database]:g})")
    slower = median["spool first"]["rate"] / median["listener"]["rate"]
    print(f"{database:<11} {slower:.2f} of its rate where the spool comes first")
    print(f"{database:<11} p99 {median['listener']['p99_ms']:.1f} ms (at most {P99_MS[database]:.0f})")
    print(
        f"{database:<11} {kept:.2f} of its own rate without storage; {rows} rows for {acknowledged} answers"
    )


def _median(figures: list[Figures]) -> Figures:
    return {key: statistics.median(one[key] for one in figures) for key in figures[0]}


def _rows(url: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT count(*) FROM inbound_sms")).scalar_one()
    engine.dispose()
    return int(rows)


def _load(port: int, first: int) -> Figures:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks._post_load", str(port), PATH, str(CONNECTIONS), str(SECONDS),
         str(first)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures: Figures = json.loads(done.stdout)
    return figures


@contextmanager
def _listener(url: str, folder: Path, *words: str) -> Iterator[int]:
    folder.mkdir()
    with (folder / "listener.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks._webhook_server", url, str(folder / "spool"), PATH,
             *words],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def _naive(url: str, folder: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {**os.environ, "RECEIVER_DATABASE": url}
    subprocess.run([sys.executable, "-m", "tests.benchmarks._naive_receiver"], check=True, env=environment)
    with (folder / "naive.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "--no-control-socket",
             "tests.benchmarks._naive_receiver:app"],
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            time.sleep(1.0)  # both workers
            return


if __name__ == "__main__":
    main()
