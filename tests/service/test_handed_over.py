"""A port that systemd keeps: over restarts of the daemon no POST is refused, lost or doubled."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ingestor.archive.engine import open_engine, reading
from ingestor.intake.listener.spool import depth
from tests.intake.listener.client import post, sms
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


@pytest.mark.parametrize(("restarts", "rate"), [(2, 20), pytest.param(20, 200, marks=pytest.mark.torture)])
def test_no_post_is_refused_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int, rate: int
) -> None:
    """POSTs come all the time, each over a connection of its own, while the daemon stops and starts."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    os.set_inheritable(listening.fileno(), True)
    address = listening.getsockname()
    config = configuration(tmp_path, f"sqlite:///{tmp_path}/archive.db", BLOCK.format(path=PATH))
    ended = threading.Event()
    faults: list[object] = []
    sent: list[threading.Thread] = []

    def send(number: int) -> None:
        try:
            with socket.create_connection(address, 60) as client:
                client.sendall(post(f"/{PATH}", sms(number), "Connection: close"))
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"+OK"):
                faults.append((number, answer[:60]))
        except OSError as fault:
            faults.append((number, fault))

    def keep_sending() -> None:
        while not ended.is_set():
            sent.append(threading.Thread(target=send, args=(len(sent),), daemon=True))
            sent[-1].start()
            time.sleep(1 / rate)

    def as_systemd(words: list[str], **more: Any) -> Any:
        given = [sys.executable, "-c", AS_SYSTEMD, str(listening.fileno()), *words]
        return START(given, pass_fds=[listening.fileno()], **more)

    monkeypatch.setattr("tests.service.process.subprocess.Popen", as_systemd)
    sending = threading.Thread(target=keep_sending, daemon=True)
    sending.start()
    try:
        for _ in range(restarts):
            with running(config, "run") as daemon:
                daemon.wait_ready()
                time.sleep(0.5)
                assert daemon.stop() == 0
        with running(config, "run") as daemon:
            daemon.wait_ready()
            ended.set()
            sending.join()
            for one in sent:
                one.join()
            until(lambda: depth(tmp_path / "spool") == 0, "what came before the archive was open", seconds=60)
            assert daemon.stop() == 0
    finally:
        ended.set()
    listening.close()

    assert faults == []
    engine = open_engine(f"sqlite:///{tmp_path}/archive.db", read_only=True)
    with reading(engine) as connection:
        counted = connection.execute(text("SELECT count(*), (SELECT count(*) FROM arrivals) FROM sms")).one()
    engine.dispose()
    assert tuple(counted) == (len(sent), len(sent))
