"""The set of mailbox threads: raised when they die, replaced, and never waited for too long."""

import threading
import time
from itertools import pairwise

import pytest

from ingestor.service.mailboxes import LONGEST_PAUSE, Mailboxes
from ingestor.settings import Mailbox


class FakeReader:
    """A reader whose life the test decides."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox, self.progress, self.stall_limit = mailbox, 0.0, 30.0
        self.alive = self.stopped = False
        self.woken = 0
        self.deaf = False
        self.refused: Exception | None = None

    def start(self) -> None:
        if self.refused is not None:
            raise self.refused
        self.alive = True

    def wake(self) -> None:
        self.woken += 1

    def stop(self) -> None:
        self.stopped = True
        self.alive = self.deaf

    def join(self, timeout: float | None = None) -> bool:
        if self.alive:
            time.sleep(timeout or 0)
        return not self.alive


class Stage:
    """Mailboxes over fake readers, and a clock that the test moves."""

    def __init__(self, *names: str) -> None:
        self.now = 1000.0
        self.made: list[FakeReader] = []
        self.refused: Exception | None = None
        self.mailboxes = Mailboxes(self._make, clock=lambda: self.now)
        self.mailboxes.start([_mailbox(name) for name in names])

    def _make(self, mailbox: Mailbox) -> FakeReader:
        self.made.append(FakeReader(mailbox))
        self.made[-1].refused = self.refused
        return self.made[-1]

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.mailboxes.tend()


def _mailbox(name: str) -> Mailbox:
    return Mailbox(name=name, host="imap.example.org", username="u", password_credential="c")


def test_a_dead_reader_is_raised_after_a_pause() -> None:
    """It is not raised at once, but soon; the other mailbox is left alone."""
    stage = Stage("a", "b")
    stage.made[0].alive = False
    stage.after(0)
    assert len(stage.made) == 2

    stage.after(1.3)

    assert [reader.mailbox.name for reader in stage.made] == ["a", "b", "a"]
    assert stage.made[2].alive


def test_the_pause_grows_and_has_an_end() -> None:
    """A reader that keeps dying is raised more and more seldom, but for ever."""
    stage = Stage("a")
    pauses = []
    for _ in range(14):
        stage.made[-1].alive = False
        died, before = stage.now, len(stage.made)
        stage.after(0)
        while len(stage.made) == before:
            stage.after(0.25)
        pauses.append(stage.now - died)

    assert pauses[0] < 1.6
    assert all(later > 1.1 * earlier for earlier, later in pairwise(pauses[:8]))
    assert max(pauses) < 1.3 * LONGEST_PAUSE


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_reader_that_gets_no_thread_is_tried_again(fault: Exception) -> None:
    """The daemon lives on where no thread can be started (TasksMax), and the mailbox is read when one can."""
    stage = Stage("a")
    stage.made[0].alive = False
    stage.refused = fault
    for _ in range(8):
        stage.after(1)
    assert len(stage.made) > 2
    stage.mailboxes.start([_mailbox("b")])

    stage.refused = None
    for _ in range(30):
        stage.after(1)

    assert {reader.mailbox.name for reader in stage.made if reader.alive} == {"a", "b"}


def test_a_long_life_forgets_old_deaths() -> None:
    """A reader that lived well for a while is raised as fast as on its first death."""
    stage = Stage("a")
    for _ in range(6):
        stage.made[-1].alive = False
        stage.after(0)
        stage.after(400)
    stage.after(3600)
    stage.made[-1].alive = False
    stage.after(0)
    count = len(stage.made)

    stage.after(1.5)

    assert len(stage.made) == count + 1


def test_waking_reaches_the_named_one_only() -> None:
    """The schedule wakes one mailbox; a name that a reload removed wakes nobody."""
    stage = Stage("a", "b")

    stage.mailboxes.wake("b")
    stage.mailboxes.wake("gone")

    assert [reader.woken for reader in stage.made] == [0, 1]


def test_a_reader_that_does_not_end_is_left_behind() -> None:
    """All are stopped before any is waited for, and the deaf one costs no more than the time given."""
    stage = Stage("a", "b")
    stage.made[0].deaf = True
    ended = threading.Event()

    def stop() -> None:
        stage.mailboxes.stop(0.05)
        ended.set()

    threading.Thread(target=stop, daemon=True).start()

    assert ended.wait(10)
    assert all(reader.stopped for reader in stage.made)
    assert stage.mailboxes.beats() == []


def test_a_dead_reader_beats_until_its_pause_is_over() -> None:
    """Waiting to be raised is no hang; never being raised would be one."""
    stage = Stage("a")
    stage.made[0].alive = False
    stage.after(0)
    [beat] = stage.mailboxes.beats()

    assert not beat.late(stage.now + 30)
    assert beat.late(stage.now + 2 * LONGEST_PAUSE)
