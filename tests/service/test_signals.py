"""Signals become wishes, wherever the main thread is."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ingestor.service.signals import STOPS, Signals, Wish, hold_reload_back


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
    came, moments = threading.Event(), [time.monotonic()]

    def note() -> None:
        moments.append(time.monotonic())
        came.set()

    with Signals(note, 0.2) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wait_for_stop(5)

    assert came.wait(5)
    assert moments[1] - moments[0] >= 0.2


def test_a_second_ctrl_c_does_not_wait() -> None:
    """Who asks twice gets the last resort at once; signals that were not asked for stay as they were."""
    came = threading.Event()
    before = signal.getsignal(signal.SIGHUP)
    with Signals(came.set, 3600, STOPS) as signals:
        assert signal.getsignal(signal.SIGHUP) is before
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.next_wish(5) is Wish.STOP
        assert came.wait(5)


def test_a_stop_needs_no_further_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is to be had (TasksMax, address space) the stop is wished, and the last resort comes."""
    came = threading.Event()

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with Signals(came.set, 0.2) as signals:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wait_for_stop(5)
        assert signals.next_wish(5) is Wish.STOP

    assert came.wait(5)


def test_a_reload_before_the_start_waits() -> None:
    """SIGHUP that comes before anything can be reloaded ends nobody, and is a wish once it can."""
    hold_reload_back()
    signal.raise_signal(signal.SIGHUP)  # to this thread: those of other tests hold nothing back

    with Signals(lambda: None, 60) as signals:
        assert signals.next_wish(5) is Wish.RELOAD
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


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
