"""A port that systemd keeps: over restarts of the daemon no POST is refused, lost or doubled."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ingestor.archive.engine import open_engine, reading
from ingestor.intake.listener.reception import Limits
from ingestor.intake.listener.spool import depth
from tests.intake.listener.client import post, sms
from tests.intake.listener.crowd import Steady
from tests.service.process import configuration, running
from tests.waiting import until

BLOCK = '[webhook]\nlisten = "127.0.0.1:1"\n[[webhook.endpoint]]\nprovider = "agile"\npath = "/{path}"\n'
PATH = "agile-0123456789abcdef0123456789abcdef"
# What systemd does between fork and exec.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "webhook"}
os.execv(sys.argv[2], sys.argv[2:])
"""
START = subprocess.Popen
TAKEN_AT_ONCE = Limits().connections


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket that every `ingestor run` of the test is handed as systemd would hand it over."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)

    def as_systemd(words: list[str], **more: Any) -> Any:
        given = [sys.executable, "-c", AS_SYSTEMD, str(listening.fileno()), *words]
        return START(given, pass_fds=[listening.fileno()], **more)

    monkeypatch.setattr("tests.service.process.subprocess.Popen", as_systemd)
    yield listening
    listening.close()


def test_a_crowd_that_waits_for_the_start_is_answered(tmp_path: Path, kept: socket.socket) -> None:
    """More than are taken at once: who has no room yet stays in the kernel's queue, and none is sent away."""
    requests = [post(f"/{PATH}", sms(number), "Connection: close") for number in range(TAKEN_AT_ONCE + 200)]
    crowd = [_sent(kept, request) for request in requests]
    with running(_configuration(tmp_path), "run", fork=False) as daemon:
        answers = [_rest(client) for client in crowd]
        daemon.wait_ready()
        until(lambda: depth(tmp_path / "spool") == 0, "what came before the archive was open", seconds=60)
        assert daemon.stop() == 0
    for client in crowd:
        client.close()

    assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200")] == []
    assert _counted(tmp_path) == (len(crowd), len(crowd))


def test_a_stop_finishes_what_was_begun_and_leaves_the_rest(tmp_path: Path, kept: socket.socket) -> None:
    """A client half through its POST gets some seconds; one that comes meanwhile waits for the next start."""
    half, late, other = (post(f"/{PATH}", sms(number), "Connection: close") for number in range(3))
    with running(_configuration(tmp_path), "run", fork=False) as daemon:
        daemon.wait_ready()
        with _sent(kept, half[:-5]) as begun, _sent(kept, other) as whole:
            assert _rest(whole).endswith(b"+OK")  # so what came before it has been read
            daemon.process.terminate()
            until(lambda: bool(daemon.events("daemon stops")), "the stop")
            time.sleep(1)  # of the five that it has
            waiting = _sent(kept, late)
            begun.sendall(half[-5:])
            assert _rest(begun).endswith(b"+OK")
        assert daemon.process.wait(10) == 0
    with running(_configuration(tmp_path), "run", fork=False) as again, waiting:
        assert _rest(waiting).endswith(b"+OK")
        again.wait_ready()
        until(lambda: depth(tmp_path / "spool") == 0, "what came before the archive was open", seconds=60)
        assert again.stop() == 0

    assert _counted(tmp_path) == (3, 3)


@pytest.mark.parametrize(("restarts", "rate"), [(2, 20), pytest.param(20, 200, marks=pytest.mark.torture)])
def test_no_post_is_refused_lost_or_doubled(
    tmp_path: Path, kept: socket.socket, restarts: int, rate: int
) -> None:
    """POSTs come all the time, each over a connection of its own, while the daemon stops and starts."""
    config = _configuration(tmp_path)
    with Steady(kept.getsockname(), f"/{PATH}", rate) as posts:
        for _ in range(restarts):
            with running(config, "run", fork=False) as daemon:
                daemon.wait_ready()
                time.sleep(0.5)
                assert daemon.stop() == 0
        with running(config, "run", fork=False) as daemon:
            daemon.wait_ready()
            posts.end()
            until(lambda: depth(tmp_path / "spool") == 0, "what came before the archive was open", seconds=60)
            assert daemon.stop() == 0

    assert posts.faults == []
    assert _counted(tmp_path) == (posts.sent, posts.sent)


def _sent(listening: socket.socket, request: bytes) -> socket.socket:
    """Return a connection over which `request` was sent."""
    client = socket.create_connection(listening.getsockname(), 60)
    client.sendall(request)
    return client


def _rest(client: socket.socket) -> bytes:
    return b"".join(iter(partial(client.recv, 4096), b""))


def _configuration(folder: Path) -> Path:
    return configuration(folder, f"sqlite:///{folder}/archive.db", BLOCK.format(path=PATH))


def _counted(folder: Path) -> tuple[int, int]:
    """Return how many SMS, and how many arrivals, the archive in `folder` holds."""
    engine = open_engine(f"sqlite:///{folder}/archive.db", read_only=True)
    with reading(engine) as connection:
        messages, arrivals = connection.execute(
            text("SELECT count(*), (SELECT count(*) FROM arrivals) FROM sms")
        ).one()
    engine.dispose()
    return messages, arrivals
