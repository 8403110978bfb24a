"""How long a mailbox waits for what, and how another thread ends any of its waits."""

import contextlib
import os
import select
from dataclasses import dataclass
from typing import Any


class Stopped(Exception):
    """The wait was ended because the mailbox's thread is asked to stop."""


class Bell:
    """Rung in one thread, it ends every wait of another, now and from now on."""

    def __init__(self) -> None:
        self._listening, self._ringing = os.pipe()
        os.set_blocking(self._listening, False)
        os.set_blocking(self._ringing, False)

    def __del__(self) -> None:
        os.close(self._listening)
        os.close(self._ringing)

    def ring(self) -> None:
        """End the wait that is, and each further one."""
        with contextlib.suppress(BlockingIOError):  # full of rings already
            os.write(self._ringing, b"!")

    def fileno(self) -> int:
        """Return what `poll` watches."""
        return self._listening

    def wait(self, seconds: float) -> bool:
        """Wait until the bell rings: True; False when `seconds` have passed."""
        return bool(ready(seconds, self))

    @property
    def rung(self) -> bool:
        """Whether it has been rung."""
        return self.wait(0)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long what may take, in seconds."""

    connect: float = 30.0
    """TCP and TLS, until the server's greeting."""
    silence: float = 60.0
    """The longest wait for a byte when an answer is due."""
    hurried: float = 15.0
    """The same for mails over which a connection broke before, since others wait behind them; a command then
    takes a quarter of its time at most."""
    command: float = 300.0
    """One command in all, however slowly its answer dribbles in."""
    idle: float = 300.0
    """IDLE is left and entered again: routers forget silent connections, Dovecot and GMX after 10 minutes."""
    retry_first: float = 1.0
    retry_longest: float = 300.0
    refused_first: float = 120.0
    """A wrong password is tried again one to two minutes later at first, at most four times in ten minutes:
    many servers lock an account after five. A slip of the server's costs no more than that."""
    refused_longest: float = 3600.0
    settled: float = 30.0
    """A connection that lived this long starts the next retries from the beginning."""
    retry_flapping: float = 8.0
    """The longest pause after a connection that finished a pass, however soon it broke then: mail that came
    meanwhile must not wait for minutes, and a server that ends each connection must not be hammered."""


def ready(seconds: float, *waited_for: Any) -> set[int]:
    """Return the file numbers that can be read (or are at their end) within `seconds`."""
    poll = select.poll()
    for one in waited_for:
        poll.register(one, select.POLLIN)
    return {number for number, _ in poll.poll(max(0.0, seconds) * 1000)}
