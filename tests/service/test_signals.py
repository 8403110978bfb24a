"""Signals become wishes, wherever the main thread is."""

import os
import signal
import subprocess
import sys
import threading

from ingestor.service.signals import Signals, Wish


def test_each_signal_is_its_wish() -> None:
    """SIGHUP asks for a reload; SIGTERM and SIGINT ask for a stop; the order is kept."""
    before = signal.getsignal(signal.SIGTERM)
    with Signals(lambda: None, 60) as signals:
        assert signals.next_wish(0) is None
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        wishes = [signals.next_wish(5) for _ in range(3)]
        assert signals.stop_wished

    assert wishes == [Wish.RELOAD, Wish.STOP, Wish.STOP]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_last_resort_waits_its_time() -> None:
    """It comes after a stop that does not end, even when all that is left is the interpreter's own end."""
    came = threading.Event()
    with Signals(came.set, 0.2) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wait_for_stop(5)
        assert not came.is_set()

    assert came.wait(5)


def test_a_main_thread_that_never_comes_back_is_ended() -> None:
    """Stuck in C code, where no Python handler runs, the process still ends by its last resort."""
    program = (
        "import ctypes, os, signal\n"
        "from ingestor.service.signals import Signals, exit_at_once\n"
        "with Signals(exit_at_once, 0.2):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True: ctypes.CDLL(None).sleep(30)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=20)

    assert done.returncode == 1
