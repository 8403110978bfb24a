"""The life of a mailbox's thread: it ends when asked, tells how it fares, outlives an archive's trouble."""

import contextlib
import math
import socket
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ingestor.archive.mailbox_state import read_sources
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.errors import CredentialsRefused, IngestorError, MailboxUnavailable
from ingestor.intake.mailbox.context import Bell, Timing
from ingestor.intake.mailbox.thread import MailboxThread
from tests.intake.mailbox.desk import QUICK, RULES, Desk, mail
from tests.servers.imap.server import ImapServer
from tests.waiting import until

SLOW = replace(QUICK, connect=600.0, silence=600.0, command=600.0, idle=600.0)


@pytest.mark.parametrize("stuck_at", ["GREETING", "LOGIN", "EXAMINE", "UID SEARCH", "UID FETCH", "IDLE"])
def test_it_stops_in_the_middle_of_a_hung_read(desk: Desk, server: ImapServer, stuck_at: str) -> None:
    """Wherever the server stopped to answer, `stop` ends the wait."""
    server.deliver(mail(1))
    if stuck_at == "GREETING":
        server.faults.silent = True

    def hang(name: str, _: bytes) -> None:
        if name == stuck_at:
            server.faults.silent = True

    server.faults.on_command = hang
    thread = desk.thread(server.port, timing=SLOW)
    until(lambda: server.connections and (stuck_at == "GREETING" or stuck_at in server.commands))

    thread.stop()

    assert thread.join(30)
    server.faults.silent = False


def test_it_stops_while_a_connection_is_not_accepted(desk: Desk) -> None:
    """A server that answers nothing at all, not even the connection, does not hold up a stop."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for one in fillers:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        thread = desk.thread(full.getsockname()[1], timing=SLOW)

        assert not thread.join(0.2)
        thread.stop()

        assert thread.join(30)
        for one in fillers:
            one.close()


def test_it_stops_during_a_pause(desk: Desk, server: ImapServer) -> None:
    """The pause after a refused login, an hour in the end, is no obstacle."""
    thread = desk.thread(server.port, password="wrong")
    until(lambda: thread.state == "refused")

    thread.stop()

    assert thread.join(30)
    assert desk.source_state() == "stopped"


def test_one_mailbox_never_delays_another(desk: Desk, server: ImapServer) -> None:
    """A mailbox whose server hangs leaves the others alone."""
    hanging = ImapServer()
    hanging.faults.silent = True
    with hanging.running():
        stuck = desk.thread(hanging.port, name="stuck", timing=SLOW)
        desk.thread(1, name="closed", timing=SLOW)
        desk.thread(server.port)
        server.deliver(mail(1))

        until(lambda: desk.has(1))
        assert stuck.state == "starting"
        stuck.stop()
        assert stuck.join(30)


def test_progress_comes_with_finished_cycles_only(desk: Desk, server: ImapServer) -> None:
    """The watchdog's food: it moves with each cycle, and not while a read hangs."""
    thread = desk.thread(server.port, timing=replace(SLOW, idle=0.05))
    until(lambda: thread.state == "watching")
    before = thread.progress
    until(lambda: thread.progress > before)

    server.faults.silent = True

    def stands() -> bool:
        stood = thread.progress
        assert not thread.join(0.3)
        return thread.progress == stood

    until(stands, "the end of the cycle in hand")
    thread.stop()
    assert thread.join(30)
    server.faults.silent = False


def test_the_stall_limit_covers_the_wait_that_is_on(desk: Desk, server: ImapServer) -> None:
    """Waiting in IDLE, or after a refused login, is no stall; a command that takes longer than allowed is."""
    thread = desk.thread(server.port)
    until(lambda: server.commands and server.commands[-1] == "IDLE")
    until(lambda: thread.stall_limit == pytest.approx(QUICK.idle + 2 * QUICK.command, abs=5))
    refused = desk.thread(server.port, password="wrong", name="other")
    least = QUICK.refused_first / 2 + 2 * QUICK.command
    until(lambda: refused.state == "refused" and refused.stall_limit >= least)


def test_the_state_is_written_down_for_status(desk: Desk, server: ImapServer) -> None:
    """`status` learns of each change, and when all was last well."""
    thread = desk.thread(server.port, timing=replace(QUICK, retry_first=30.0, retry_longest=30.0))
    until(lambda: desk.source_state() == "watching")
    well = read_sources(desk.engine)[0].last_success
    assert well == desk.now
    desk.pass_time(minutes=1)

    server.faults.silent = True
    server.disconnect()

    until(lambda: desk.source_state() == "unreachable")
    source = read_sources(desk.engine)[0]
    assert source.last_success == well
    assert source.detail is not None
    assert str(server.port) in source.detail
    thread.stop()
    assert thread.join(30)
    server.faults.silent = False


def test_an_outage_is_told_once_and_its_end_too(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """Many failed attempts are one warning; when it is over that is said."""
    port = server.port
    thread = desk.thread(port)
    until(lambda: thread.state == "watching")
    server.faults.refuse["CAPABILITY"] = b"NO not today"
    server.disconnect()
    until(lambda: server.commands.count("CAPABILITY") > 5)
    server.faults.refuse.clear()
    until(lambda: thread.state == "watching")

    def said() -> list[object]:
        levels = [entry["log_level"] for entry in logged if entry.get("mailbox") == "main"]
        return [level for level in levels if level != "debug"]

    until(lambda: len(said()) >= 3, "the end of the outage in the log")
    assert said() == ["info", "warning", "info"]


def test_a_locked_archive_holds_the_mails_back(desk: Desk, server: ImapServer) -> None:
    """While the database takes no writes nothing is lost, marked or doubled; afterwards it goes on."""
    file = desk.engine.url.database
    assert file is not None
    thread = desk.thread(server.port, after_store="seen")
    until(lambda: thread.state == "watching")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(5):
            server.deliver(mail(number))
        until(lambda: desk.writer.trouble)
        until(lambda: thread.stall_limit == math.inf)

        assert not any(message.flags for message in server.boxes["INBOX"].messages)
        other.execute("ROLLBACK")
    other.close()

    until(lambda: desk.has(*range(5)))
    until(lambda: all(m.flags == {"\\Seen"} for m in server.boxes["INBOX"].messages))
    assert desk.balance.adds_up


def test_a_stop_while_the_archive_is_locked(desk: Desk, server: ImapServer) -> None:
    """It ends in seconds; the mail in hand is not committed, and is read again by the next start."""
    file = desk.engine.url.database
    assert file is not None
    thread = desk.thread(server.port)
    until(lambda: thread.state == "watching")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        server.deliver(mail(1))
        until(lambda: desk.writer.queued)

        thread.stop()

        assert thread.join(30)
        other.execute("ROLLBACK")
    other.close()
    desk.thread(server.port, start=False).run_once()
    assert desk.has(1)


def test_a_writer_that_has_stopped_ends_the_cycle(desk: Desk, server: ImapServer) -> None:
    """What the writer no longer takes stays on the server: `run_once` says so."""
    stopped = Writer(Store(desk.engine))
    stopped.start()
    stopped.stop(30)
    server.deliver(mail(1))
    thread = MailboxThread(desk.mailbox(server.port), RULES, stopped, desk.engine, None, timing=QUICK)

    with pytest.raises(IngestorError):
        thread.run_once()

    assert desk.count("arrivals") == 0


def test_a_rescan_beside_a_daemon_leaves_its_state_alone(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """What `status` says of a mailbox is the daemon's word: neither a rescan nor a failed one changes it."""
    desk.thread(server.port)
    until(lambda: desk.source_state() == "watching")
    before = read_sources(desk.engine)
    logged.clear()

    desk.thread(server.port, start=False).rescan()
    with pytest.raises(IngestorError, match="Nope"):
        desk.thread(server.port, start=False).rescan("Nope")

    assert read_sources(desk.engine) == before
    assert not [entry for entry in logged if entry["log_level"] in ("warning", "error")]


@pytest.mark.parametrize(
    ("changed", "state"),
    [({}, "read once"), ({"password": "wrong"}, "refused"), ({"folders": ("Nope",)}, "no folder")],
)
def test_a_single_pass_is_written_down_as_one(
    desk: Desk, server: ImapServer, changed: dict[str, object], state: str
) -> None:
    """`status` tells a single pass from a daemon that was stopped, and why one failed."""
    with contextlib.suppress(IngestorError):
        desk.thread(server.port, start=False, **changed).run_once()

    assert desk.source_state() == state


def test_a_mailbox_that_is_polled_each_second_is_never_called_late(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` calls a mailbox late after three polls, so that each poll is reported, however frequent."""
    monkeypatch.setattr("ingestor.intake.mailbox.thread.NOTED_EVERY", 3600.0)
    desk.thread(server.port, poll_seconds=1)
    until(lambda: desk.source_state() == "watching")

    desk.pass_time(seconds=2)

    until(lambda: read_sources(desk.engine)[0].last_success == desk.now)


def test_a_password_that_cannot_be_had(desk: Desk, server: ImapServer) -> None:
    """A missing credential is told as a fault of the configuration; no login is tried."""
    thread = desk.thread(server.port, password=None, password_file="/nonexistent/password")

    until(lambda: desk.source_state() == "misconfigured")

    assert thread.state == "misconfigured"
    assert server.commands == []


def test_whatever_is_raised_the_mailbox_is_tried_again(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the program itself ends no thread, and its words, which may be anybody's, are not logged."""
    server.deliver(mail(1))
    calls = []

    def fail(*_: object) -> bool:
        calls.append(1)
        raise RuntimeError("planted words")

    with monkeypatch.context() as patch:
        patch.setattr("ingestor.providers.agile.mail.may_be_ours", fail)
        thread = desk.thread(server.port)
        until(lambda: len(calls) > 2)
    until(lambda: desk.has(1) and thread.state == "watching")

    assert "planted" not in repr(logged)
    assert any("RuntimeError" in str(entry.get("reason")) for entry in logged)


def test_a_report_that_fails_ends_no_thread(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the report of a fault cannot be made (no memory for it) the mailbox is tried again."""
    server.deliver(mail(1))
    server.faults.refuse["LOGIN"] = b"BAD no"
    tried = []

    def fail(*_: object, **__: object) -> None:
        tried.append(1)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("ingestor.intake.mailbox.thread.note_source", fail)
        thread = desk.thread(server.port)
        until(lambda: len(tried) > 2)
        assert not thread.join(0)
    server.faults.refuse.clear()

    until(lambda: desk.has(1) and thread.state == "watching")


def test_pauses_grow_with_jitter_up_to_their_bound(desk: Desk) -> None:
    """The pause after a fault doubles up to five minutes, that after a refused login up to an hour."""
    thread = desk.thread(1, start=False, timing=Timing())
    unavailable, refused = MailboxUnavailable("gone"), CredentialsRefused("no")

    pauses = [thread._pause_after(unavailable, 0.1) for _ in range(14)]
    refusals = [thread._pause_after(refused, 0.1) for _ in range(7)]

    assert all(min(300, 2**n) / 2 <= pause <= min(300, 2**n) for n, pause in enumerate(pauses))
    assert len(set(pauses)) == len(pauses)
    assert all(60 * 2**n <= pause <= 120 * 2**n for n, pause in enumerate(refusals[:5]))
    assert all(1800 <= pause <= 3600 for pause in refusals[5:])
    assert thread._pause_after(unavailable, 3600.0) <= 1


def test_a_connection_that_finished_a_pass_is_not_waited_for_long(desk: Desk) -> None:
    """However soon each breaks: mail that came meanwhile must not wait for minutes. One that finished none
    is waited for longer and longer."""
    thread = desk.thread(1, start=False, timing=Timing())
    pauses = []
    for _ in range(12):
        thread._passed = True
        pauses.append(thread._pause_after(MailboxUnavailable("gone"), 0.1))

    assert max(pauses) <= 8
    assert 150 <= thread._pause_after(MailboxUnavailable("gone"), 0.1) <= 300


def test_bells_do_not_leak(desk: Desk) -> None:
    """A reload makes new threads: the old ones leave no file open behind."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(200):
        Bell().ring()
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 100


def test_no_message_text_in_any_log(desk: Desk, server: ImapServer, logged: list[dict[str, object]]) -> None:
    """Nothing that is logged about mails holds their text or whole numbers."""
    server.deliver(mail(1, "planted words"))
    server.deliver(mail(2, "planted words", to="+390000000000"))

    desk.thread(server.port, start=False).run_once()

    assert desk.balance.quarantined == 1
    assert "planted" not in repr(logged)
    assert "0000001" not in repr(logged)
