"""The set of mailbox threads: started when that is possible, and never waited for too long."""

import threading
import time

import pytest

from ingestor.service.mailboxes import Mailboxes
from ingestor.settings import Mailbox


class FakeThread:
    """A mailbox thread whose life the test decides."""

    def __init__(self, stage: "Stage", name: str) -> None:
        self.stage, self.name, self.progress, self.stall_limit = stage, name, 0.0, 30.0
        self.alive = self.stopped = False
        self.deaf = False

    def start(self) -> None:
        assert not self.alive
        if self.stage.refused is not None:
            raise self.stage.refused
        self.alive = True

    def stop(self) -> None:
        self.stopped = True
        self.alive = self.deaf

    def join(self, timeout: float | None = None) -> bool:
        if self.alive:
            time.sleep(timeout or 0)
        return not self.alive


class Stage:
    """Mailboxes over fake threads."""

    def __init__(self, *names: str, refused: Exception | None = None) -> None:
        self.made: list[FakeThread] = []
        self.refused = refused
        self.mailboxes = Mailboxes(self._make)  # type: ignore[arg-type]
        self.mailboxes.start([_mailbox(name) for name in names])

    def _make(self, mailbox: Mailbox) -> FakeThread:
        self.made.append(FakeThread(self, mailbox.name))
        return self.made[-1]


def _mailbox(name: str) -> Mailbox:
    return Mailbox(name=name, host="imap.example.org", username="u", password_credential="c")


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_mailbox_that_gets_no_thread_is_tried_again(
    fault: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon lives on where no thread can be started (TasksMax), and the mailbox is read when one can."""
    stage = Stage("a", "b", refused=fault)
    for _ in range(8):
        stage.mailboxes.tend()
    assert not any(thread.alive for thread in stage.made)

    stage.refused = None
    for _ in range(2):
        stage.mailboxes.tend()

    assert [(thread.name, thread.alive) for thread in stage.made] == [("a", True), ("b", True)]


def test_a_thread_that_does_not_end_is_left_behind() -> None:
    """All are stopped before any is waited for, and the deaf one costs no more than the time given."""
    stage = Stage("a", "b")
    stage.made[0].deaf = True
    ended = threading.Event()

    def stop() -> None:
        stage.mailboxes.stop(0.05)
        ended.set()

    threading.Thread(target=stop, daemon=True).start()

    assert ended.wait(10)
    assert all(thread.stopped for thread in stage.made)
    assert stage.mailboxes.beats() == []


def test_what_a_reload_removed_is_not_started_any_more() -> None:
    """A mailbox that waited for a thread when the configuration changed is forgotten with the old one."""
    stage = Stage("old", refused=RuntimeError("can't start new thread"))
    stage.mailboxes.stop(0.05)
    stage.refused = None
    stage.mailboxes.start([_mailbox("new")])

    stage.mailboxes.tend()

    assert [thread.name for thread in stage.made if thread.alive] == ["new"]
