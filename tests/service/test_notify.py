"""sd_notify as a service manager hears it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.service.watchdog import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's ear, and what it would put into NOTIFY_SOCKET."""
    named = str(tmp_path / "notify") if request.param == "path" else f"@ingestor-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(named.replace("@", "\0", 1) if request.param == "abstract" else named)
        ear.settimeout(2)
        yield named, ear


def test_it_speaks_to_both_kinds_of_socket(manager: tuple[str, socket.socket]) -> None:
    """READY and a status of one line arrive over a path and over an abstract name."""
    named, ear = manager
    Notifier({"NOTIFY_SOCKET": named}).ready("3 mails\nread")

    assert ear.recv(4096) == b"READY=1\nSTATUS=3 mails read"


def test_a_reload_is_one_datagram(manager: tuple[str, socket.socket]) -> None:
    """RELOADING and MONOTONIC_USEC travel together, as notify-reload demands."""
    named, ear = manager
    Notifier({"NOTIFY_SOCKET": named}).reloading()

    lines = ear.recv(4096).decode().splitlines()
    assert lines[0] == "RELOADING=1"
    assert int(lines[1].removeprefix("MONOTONIC_USEC=")) > 0


def test_the_watchdog_is_fed_only_where_it_was_asked_for(manager: tuple[str, socket.socket]) -> None:
    """Without WATCHDOG_USEC, or with somebody else's WATCHDOG_PID, nothing is sent."""
    named, ear = manager
    ours = {"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    Notifier({"NOTIFY_SOCKET": named}).alive()
    Notifier({**ours, "WATCHDOG_PID": "1"}).alive()
    Notifier({**ours, "WATCHDOG_USEC": "soon"}).alive()
    Notifier(ours).alive()
    ear.setblocking(False)

    assert ear.recv(4096) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        ear.recv(4096)
    assert Notifier(ours).watchdog_seconds == 2


@pytest.mark.parametrize("named", ["", "/nowhere/at/all", "@nobody-listens", "vsock:2:1234"])
def test_a_deaf_manager_stops_nothing(named: str) -> None:
    """No socket, a dead one and a kind we do not speak are all borne in silence."""
    notifier = Notifier({"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "1"})

    notifier.ready("up")
    notifier.alive()
    notifier.stopping("down")
