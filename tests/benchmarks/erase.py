"""An erasure by age beside a daemon that takes POSTs: SMS a second, and how long a POST waits meanwhile.

The archive is filled with an import's rows; what is measured are `ingestor erase plan` and `erase apply`,
as a person calls them, a real daemon with its listener, and POSTs that come at an even rate. A POST's time
counts from the moment it was to be sent. BENCHMARK_DATABASES names one database where the other need not be
measured.
"""

import http.client
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import SimpleQueue

from ingestor.archive import words
from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from tests.benchmarks._million import fill
from tests.benchmarks._post_load import request
from tests.benchmarks._postgresql import measured_postgresql
from tests.benchmarks.webhook import _break_in
from tests.service.process import configuration, running

ROWS = int(os.environ.get("BENCHMARK_ROWS", "100000"))
DATABASES = os.environ.get("BENCHMARK_DATABASES", "SQLite PostgreSQL").split()
RATE = float(os.environ.get("BENCHMARK_RATE", "200"))
SENDERS = 20
QUIET_SECONDS = 10.0
A_SECOND = 1_000_000 / 300
P99_MS = 50.0
PATH = "/agile/" + "b" * 32

Wait = tuple[float, float]
"""When a POST was to be sent (of the clock that all processes share), and how long its answer took."""


class _Waits:
    """Those of the POSTs that were to be sent between two moments."""

    def __init__(self, all_: list[Wait], since: float = 0.0, until: float = float("inf")) -> None:
        self._found = [(due, took) for due, took in all_ if since <= due < until]
        self._times = sorted(took for _, took in self._found) or [0.0]

    def __len__(self) -> int:
        return len(self._found)

    @property
    def p99(self) -> float:
        return 1000 * self._times[int(len(self._times) * 0.99)]

    @property
    def slowest(self) -> float:
        return 1000 * self._times[-1]

    def told(self, began: float) -> str:
        """Return the figures, and in which seconds (since `began`) most of those that took too long came."""
        slow = Counter(int(due - began) for due, took in self._found if took * 1000 > P99_MS)
        seconds = ", ".join(f"{second} s: {number}" for second, number in slow.most_common(5))
        return (
            f"p99 {self.p99:.1f} ms, the slowest {self.slowest:.0f} ms; over {P99_MS:.0f} ms {slow.total():,}"
            f" of {len(self):,}, in {len(slow)} seconds" + (f" (most at {seconds})" if slow else "")
        )


def main() -> None:
    """Print the figures of both databases."""
    if "SQLite" in DATABASES:
        with tempfile.TemporaryDirectory() as folder:
            _measure("SQLite", Path(folder), f"sqlite:///{folder}/archive.db")
    if "PostgreSQL" not in DATABASES:
        return
    with measured_postgresql() as server:
        if server is not None:
            _break_in(server)
            server.sql("CREATE DATABASE archive")
            with tempfile.TemporaryDirectory() as folder:
                _measure("PostgreSQL", Path(folder), server.url("archive"))


def _measure(database: str, folder: Path, url: str) -> None:
    _fill(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    webhook = (
        f'[webhook]\nlisten = "127.0.0.1:{port}"\n[[webhook.endpoint]]\npath = "{PATH}"\nprovider = "agile"\n'
    )
    config = configuration(folder, url, webhook)
    with running(config, fork=False) as daemon:
        daemon.wait_ready()
        with _posts(port, first=1) as quiet:
            time.sleep(QUIET_SECONDS)
        with _posts(port, first=5_000_000) as busy:
            began = time.perf_counter()
            cpu = _call(
                config, "erase", "plan", "--before", "2100-01-01", "--basis", "bench", "--output", "plan"
            )
            planned = time.perf_counter()
            cpu += _call(config, "erase", "apply", "plan")
            ended = time.perf_counter()
        daemon.stop()
    seconds = ended - began
    print(
        f"{database:<11} {ROWS:,} SMS in {seconds:.0f} s (plan {planned - began:.0f} s, {cpu:.0f} s of CPU in"
        f" both): {ROWS / seconds:,.0f} a second (at least {A_SECOND:,.0f})"
    )
    beside, without = _Waits(busy()), _Waits(quiet())
    print(
        f"{database:<11} POSTs at {RATE:.0f}/s: p99 {beside.p99:.1f} ms beside it (at most {P99_MS:.0f}),"
        f" {without.p99:.1f} ms without; {len(beside):,} answered, the slowest {beside.slowest:.0f} ms"
    )
    for what, since, until in (("the plan", began, planned), ("its doing", planned, ended)):
        print(f"{database:<11} {what:<9} {_Waits(busy(), since, until).told(since)}")


def _fill(url: str) -> None:
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    fill(engine, ROWS)
    for _ in words.bring_up(engine):  # else the daemon would do it meanwhile
        pass
    engine.dispose()


def _call(config: Path, *words: str) -> float:
    """Call the program, and return the seconds of CPU it took."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ingestor", "--config", str(config), *words], cwd=config.parent,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return used.ru_utime + used.ru_stime


@contextmanager
def _posts(port: int, first: int) -> Iterator[Callable[[], list[Wait]]]:
    """Post at `RATE` from a process of its own meanwhile; gives what returns how long each took, and when."""
    processes = get_context("spawn")
    stop, queue = processes.Event(), processes.Queue()
    process = processes.Process(target=_post_on, args=(port, first, stop, queue))
    process.start()
    waits: list[Wait] = []
    try:
        yield lambda: waits
    finally:
        stop.set()
        waits += queue.get()
        process.join()


def _post_on(port: int, first: int, stop: Event, queue: "SimpleQueue[list[Wait]]") -> None:
    waits: list[Wait] = []
    numbers = itertools.count(first)
    began = time.perf_counter()

    def send(place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.connect()
        for turn in itertools.count():
            due = began + (turn * SENDERS + place) / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            if stop.is_set():
                break
            connection.sock.sendall(request(PATH, next(numbers), int(time.time())))
            answer = http.client.HTTPResponse(connection.sock)
            answer.begin()
            assert answer.status == 200
            answer.read()
            waits.append((due, time.perf_counter() - due))
        connection.close()

    threads = [threading.Thread(target=send, args=(place,)) for place in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put(waits)


if __name__ == "__main__":
    main()
