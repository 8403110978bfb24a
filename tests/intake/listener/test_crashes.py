"""kill -9 while 64 connections post: what was acknowledged is there, and nothing is there twice."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ingestor.archive.engine import reading
from ingestor.intake.listener import spool
from tests.intake.listener.crowd import Crowd

TRIALS = [
    pytest.param(8, 1_500, id="short"),
    pytest.param(30, 5_000, id="long", marks=pytest.mark.torture),
]
"""How many kills, among how many messages."""


class Crashing:
    """The process that forks listeners, and the thread that keeps one of them alive."""

    def __init__(self, url: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = ("127.0.0.1", int(free.getsockname()[1]))
        self.spool = folder / "spool"
        self.child = 0
        self.crashes = 0
        self._dice = random.Random(30)
        command = ["-m", "tests.intake.listener.crashing", url, str(self.address[1]), str(self.spool)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, bufsize=1,
            )  # fmt: skip
        self._ending = False
        self._kills: list[threading.Timer] = []
        self._one_at_a_time = threading.Lock()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive)
        self._thread.start()
        assert self._up.wait(30)

    def kill(self) -> None:
        """Kill the listener; the next one is forked at once."""
        with self._one_at_a_time:
            self._up.wait(30)
            self._up.clear()
            with suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)
            self.crashes += 1

    def kill_in(self, seconds: float) -> None:
        """Kill it a moment later."""
        self._kills.append(threading.Timer(seconds, self.kill))
        self._kills[-1].start()

    def end(self) -> int:
        """Let the last listener replay its spool and stop in order; return its exit status."""
        for one in self._kills:
            one.join()
        assert self._up.wait(30)
        self._ending = True
        os.kill(self.child, signal.SIGTERM)
        self._thread.join(60)
        return self._status

    def close(self) -> None:
        """Leave nothing running, however the test went."""
        self._ending = True
        if self._process.poll() is None:
            self.kill()
        self._thread.join(30)
        self._process.communicate(timeout=30)

    def _keep_alive(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        while not self._ending:
            self._process.stdin.write(self._dice.choice(["patient\n", "hasty\n"]))
            self.child = int(self._process.stdout.readline())
            assert self.child > 0
            self._up.set()
            self._status = int(self._process.stdout.readline())


@pytest.fixture
def crashing(archive_engine: Engine, tmp_path: Path) -> Iterator[Crashing]:
    """Listeners to be killed, on each database."""
    made = Crashing(archive_engine.url.render_as_string(hide_password=False), tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(("kills", "messages"), TRIALS)
def test_kills_lose_and_double_nothing(
    crashing: Crashing, archive_engine: Engine, kills: int, messages: int
) -> None:
    """Unique messages, and kill -9 at random moments, through the database and through the spool."""
    dice = random.Random(4)
    moments = set(dice.sample(range(100, messages - 100), kills))

    def acknowledged(count: int) -> None:
        if count in moments:
            crashing.kill_in(dice.random() * 0.02)

    crowd = Crowd(lambda: crashing.address, range(messages), acknowledged)
    crowd.run()
    assert crashing.end() == 0

    assert crashing.crashes == kills
    assert crowd.retries >= kills
    assert sorted(crowd.acknowledged) == list(range(messages))
    assert spool.names(crashing.spool) == []
    with reading(archive_engine) as connection:
        texts = [row[0] for row in connection.execute(text("SELECT text FROM inbound_sms"))]
        arrivals = connection.execute(text("SELECT count(*) FROM arrivals")).scalar_one()
    assert sorted(texts) == sorted(f"message {number}" for number in range(messages))
    assert arrivals >= messages
