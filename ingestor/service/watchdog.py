"""What the service manager hears of us: sd_notify, and its watchdog, fed on finished cycles of every part.

Liveness is progress. Each finished cycle pays for the time that the next one may take, and for no more. A
loop that goes on retrying a dead network or a stopped database finishes a cycle with each try: a restart
would mend neither. A loop that hangs finishes none, and then nothing is fed until systemd ends us.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingestor.logs import get_logger

STOOD_STILL_SECONDS = 10.0
"""Without a look for so long it was the whole process that stood still: SIGSTOP, a frozen machine."""

log = get_logger(__name__)


class Notifier:
    """Tells the service manager how we are. It never raises: a deaf manager must not stop the archive.

    The dozen lines of sd_notify that we need (man sd_notify(3): one AF_UNIX datagram of `KEY=value` lines);
    without `NOTIFY_SOCKET` every call does nothing. The libraries on offer are a C extension or have had no
    release for years.
    """

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


@dataclass(frozen=True, slots=True)
class Beat:
    """How a part stands: when it last finished a cycle (monotonic), and how long one may take at most."""

    part: str
    finished: float
    limit: float


class Watchdog:
    """Feeds systemd's watchdog, and says once which part hangs and once that it goes on."""

    def __init__(self, notifier: Notifier) -> None:
        """Report to `notifier`."""
        self._notifier = notifier
        self.hanging: set[str] = set()
        """The parts that did not finish in time, by the last look."""
        self._looked = float("inf")
        self._awake_since = 0.0

    def look(self, beats: Sequence[Beat], now: float) -> None:
        """Feed the watchdog unless a part is late."""
        if now - self._looked > STOOD_STILL_SECONDS:
            log.info("the process stood still", seconds=round(now - self._looked))
            self._awake_since = now
        self._looked = now
        late = set()
        for beat in beats:
            since = 0.0 if beat.part in self.hanging else self._awake_since  # what was before counts for none
            if now - max(beat.finished, since) > beat.limit:
                late.add(beat.part)
        for part in sorted(late - self.hanging):
            log.error("a part hangs", part=part, consequence="the watchdog is not fed until it goes on")
        for part in sorted(self.hanging - late):
            log.info("the part goes on", part=part)
        self.hanging = late
        if not late:
            self._notifier.alive()
