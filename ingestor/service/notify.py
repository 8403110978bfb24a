"""The dozen lines of sd_notify that we need; without `NOTIFY_SOCKET` every call does nothing.

Protocol: man sd_notify(3), one AF_UNIX datagram of `KEY=value` lines. The libraries on offer are a C
extension or have had no release for years.
"""

import os
import socket
import time
from collections.abc import Mapping

import structlog

log = structlog.get_logger(__name__)


class Notifier:
    """Tells the service manager how we are. It never raises: a deaf manager must not stop the archive."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` from `environment`."""
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._complained = False
        self.watchdog_seconds = _watchdog_seconds(environment)

    def ready(self, status: str) -> None:
        """Say that start or reload is over."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        """Say in a line what `systemctl status` shows."""
        self._send(f"STATUS={_one_line(status)}")

    def alive(self) -> None:
        """Feed the watchdog; call it for finished work only."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def still_starting(self, status: str, seconds: float) -> None:
        """Ask for `seconds` more before the start counts as failed."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}\nSTATUS={_one_line(status)}")

    def reloading(self) -> None:
        """Say that a reload begins, in one datagram, or `Type=notify-reload` waits for ever."""
        now = time.monotonic_ns() // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the configuration again")

    def stopping(self, status: str) -> None:
        """Say that the stop has begun."""
        self._send(f"STOPPING=1\nSTATUS={_one_line(status)}")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as out:
                out.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("the service manager cannot be told", error=error.strerror)


def _address(text: str) -> str | None:
    """Return the socket's address, or None. A leading @ stands for the NUL of an abstract name."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return how often the watchdog must be fed, or None when it is off or meant for another process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
