"""Signals as wishes in a queue, seen even while the main thread is stuck in somebody's C code.

Python runs a handler only between two bytecodes of the main thread, and a name server or a database library
can keep it away from there for minutes. The C part of the interpreter writes each signal's number to the
wake-up descriptor at once, whatever the main thread does; a thread of ours reads it there. It also waits for
the last resort: when the stop is wished no further thread may be to be had (TasksMax, address space).
"""

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum
from types import FrameType
from typing import Self

# From SIGTERM to the end of the process in under 10 s, whatever hangs. Each phase of the stop has its share,
# and all of them together stay below the last resort, which ends the process without asking anybody. That is
# safe at every instant: what is not committed was never acknowledged, and is read or sent again.
MAILBOXES_SECONDS = 3.5
LISTENER_SECONDS = 2.0
WRITER_SECONDS = 2.0
RUN_SECONDS = 1.0
ANSWERS_SECONDS = 0.4  # they were asked first of all
LAST_RESORT_SECONDS = 9.0


class Wish(Enum):
    """What somebody outside wants of the daemon."""

    STOP = "stop"
    RELOAD = "reload"


STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
"""What ends a command; a daemon hears SIGHUP as well."""

_HELD_BACK = {signal.SIGHUP}
_WISHES = {signal.SIGTERM: Wish.STOP, signal.SIGINT: Wish.STOP, signal.SIGHUP: Wish.RELOAD}


class Signals:
    """While open, signals become wishes; closing restores what was there before.

    `last_resort` runs `seconds` after the first wish to stop, closed or not: it ends the process when no
    orderly way does, and a thread that is stuck can hold up the very end of the interpreter too. A second
    Ctrl-C calls for it at once.
    """

    def __init__(
        self, last_resort: Callable[[], None], seconds: float,
        numbers: Iterable[signal.Signals] = tuple(_WISHES),
    ) -> None:  # fmt: skip
        """Prepare to take over the signals `numbers`; nothing is changed before the context is entered, which
        only the main thread may do."""
        self._numbers = numbers
        self._wishes: queue.SimpleQueue[Wish] = queue.SimpleQueue()
        self._last_resort = last_resort
        self._seconds = seconds
        self._stop_wished = threading.Event()
        self.wait_for_stop = self._stop_wished.wait
        """Wait so many seconds, leaving wishes where they are; return whether a stop is wished."""
        self._heard = False

    def __enter__(self) -> Self:
        """Take the signals over."""
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._handlers = {number: signal.signal(number, self._noted) for number in self._numbers}
        self._descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._writer.close()
        if not self.stop_wished:  # else it still waits for the last resort
            self._thread.join(1)

    @property
    def stop_wished(self) -> bool:
        """Whether somebody asked for a stop, even if the wish still lies in the queue."""
        return self._heard or self._stop_wished.is_set()

    def next_wish(self, seconds: float) -> Wish | None:
        """Wait up to `seconds` for a wish and return it, or None."""
        try:
            return self._wishes.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            return None

    def _noted(self, number: int, _frame: FrameType | None) -> None:
        """Exist: without a handler of Python's own the number never reaches the wake-up descriptor.

        It sets no Event: the main thread, which it interrupts, may hold the Event's lock.
        """
        self._heard |= number in STOPS

    def _read(self) -> None:
        end_at: float | None = None
        with self._reader, contextlib.suppress(TimeoutError):
            while numbers := self._reader.recv(64):
                for number in [signal.Signals(one) for one in numbers if one in _WISHES]:
                    if number in STOPS and end_at is None:
                        end_at = time.monotonic() + self._seconds
                        self._stop_wished.set()
                    elif number is signal.SIGINT:
                        end_at = time.monotonic()
                    self._wishes.put(_WISHES[number])
                if end_at is not None:
                    self._reader.settimeout(max(end_at - time.monotonic(), 0.001))
        if end_at is not None:
            time.sleep(max(end_at - time.monotonic(), 0))  # a process that ends in order takes us along
            self._last_resort()


def hold_reload_back() -> None:
    """Let a SIGHUP wait until `Signals` is entered: before there is a handler for it, it would end us."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)


def exit_at_once() -> None:
    """End the process without any clean-up; safe at every instant, because only commits count."""
    os._exit(1)
