"""Who acts on a mailbox, on which mails, and that nothing is done twice."""

import pytest
from sqlalchemy import text

from ingestor.archive.engine import writing
from ingestor.archive.items import Action, Pending, Submission
from ingestor.archive.mailbox_state import pending_work
from ingestor.intake.mailbox import context
from tests.intake.mailbox.desk import BROKEN, Desk, mail
from tests.servers.imap.box import Box
from tests.servers.imap.server import CAPABILITIES, ImapServer
from tests.waiting import until

WITHOUT_MOVE = tuple(set(CAPABILITIES) - {"MOVE"})


A_CENTURY = 3e9
"""Seconds of a lease under which one until 2099 is nobody's mistake: longer ones are taken over."""


def somebody_acts(desk: Desk, *, until: str = "2099-01-01T00:00:00.000Z", holder: str = "another") -> None:
    """Give the lease of the mailbox to somebody."""
    with writing(desk.engine) as connection:
        connection.execute(text("DELETE FROM leases"))
        connection.execute(
            text("INSERT INTO leases VALUES ('mailbox main', :holder, :until)"),
            {"holder": holder, "until": until},
        )


# One at a time


@pytest.mark.parametrize("command", ["run_once", "rescan"])
def test_who_does_not_hold_the_lease_reads_and_acts_on_nothing(
    desk: Desk, server: ImapServer, command: str, logged: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What is to be done stays pending, it is said, and the command has not failed."""
    monkeypatch.setattr(context, "LEASE_SECONDS", A_CENTURY)
    for number in (1, 2):
        server.deliver(mail(number))
    somebody_acts(desk)

    getattr(desk.thread(server.port, start=False, after_store="delete"), command)()

    assert desk.has(1, 2)
    assert [entry.work.action for entry in pending_work(desk.engine)] == [Action.DELETE] * 2
    assert "UID STORE" not in server.commands
    said = [e for e in logged if "another daemon acts" in str(e["event"])]
    assert [e["count"] for e in said] == [2]

    somebody_acts(desk, until="2020-01-01T00:00:00.000Z")
    desk.thread(server.port, start=False, after_store="delete").run_once()

    assert server.boxes["INBOX"].messages == []
    assert pending_work(desk.engine) == []


def test_a_daemon_that_stands_by_takes_over_when_the_lease_ends(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder was killed, hangs or is cut off; nobody wakes the other one."""
    monkeypatch.setattr(context, "LEASE_SECONDS", A_CENTURY)
    somebody_acts(desk)
    thread = desk.thread(server.port, after_store="delete")
    server.deliver(mail(1))
    until(lambda: desk.has(1) and thread.state == "watching")
    assert len(server.boxes["INBOX"].messages) == 1

    somebody_acts(desk, until="2020-01-01T00:00:00.000Z")

    until(lambda: server.boxes["INBOX"].messages == [] and not pending_work(desk.engine))
    assert desk.column("SELECT holder FROM leases") != ["another"]


def test_the_holder_does_what_another_daemon_left_pending(desk: Desk, server: ImapServer) -> None:
    """It was stored by one that may not act: the holder sees it without any news from the server."""
    server.faults.quiet_idle = True
    thread = desk.thread(server.port, after_store="seen")
    until(lambda: thread.state == "watching" and desk.column("SELECT 1 FROM leases"))
    server.deliver(mail(1))

    desk.thread(server.port, start=False, after_store="seen").run_once()

    until(lambda: server.boxes["INBOX"].messages[0].flags == {"\\Seen"})


def test_the_same_installation_acts_at_once_after_a_kill(desk: Desk, server: ImapServer) -> None:
    """Its row stands there still, and is its own."""
    server.deliver(mail(1))
    somebody_acts(desk, holder="this installation")

    desk.thread(server.port, start=False, after_store="delete", holder="this installation").run_once()

    assert server.boxes["INBOX"].messages == []


def test_the_lease_is_given_back_at_the_end(desk: Desk, server: ImapServer) -> None:
    """The next one need not wait."""
    for number in (1, 2):
        server.deliver(mail(number))
        desk.thread(server.port, start=False, after_store="delete").run_once()

    assert server.boxes["INBOX"].messages == []


def test_a_daemon_takes_the_lease_when_it_begins(desk: Desk, server: ImapServer) -> None:
    """Not only when there is something to do, nor only where no poll comes in between."""
    thread = desk.thread(server.port, after_store="seen")
    until(lambda: thread.state == "watching")

    assert desk.count("leases") == 1


def test_a_mailbox_that_is_only_read_takes_no_lease(desk: Desk, server: ImapServer) -> None:
    """Nothing is written for it, day after day."""
    server.deliver(mail(1))
    desk.thread(server.port, start=False).run_once()

    assert desk.count("leases") == 0


# The very mail


def test_pending_work_for_another_mail_is_not_done(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """One of ours stands under the UID, and even its SMS is known; it is not the mail that was stored."""
    server.deliver(mail(1))
    desk.thread(server.port, start=False).run_once()
    noted = Pending("main", "INBOX", 1, 1, Action.DELETE, b"the key of another..")
    desk.writer.submit(Submission(run_id=None, to_do=(noted,))).result(30)

    desk.thread(server.port, start=False, after_store="delete").run_once()

    assert [m.raw for m in server.boxes["INBOX"].messages] == [mail(1)]
    assert pending_work(desk.engine) == []
    assert [e["count"] for e in logged if "other mails than were stored" in str(e["event"])] == [1]


@pytest.mark.parametrize(("raw", "left"), [(mail(1), 0), (BROKEN, 1)])
def test_pending_work_of_an_earlier_version_is_done_only_to_mails_in_the_archive(
    desk: Desk, server: ImapServer, raw: bytes, left: int
) -> None:
    """It was noted without a key: then the archive is asked for the mail's."""
    server.deliver(raw)
    desk.thread(server.port, start=False).run_once()
    noted = Pending("main", "INBOX", 1, 1, Action.DELETE)
    desk.writer.submit(Submission(run_id=None, to_do=(noted,))).result(30)

    desk.thread(server.port, start=False, after_store="delete").run_once()

    assert len(server.boxes["INBOX"].messages) == left
    assert pending_work(desk.engine) == []


# Once


@pytest.mark.parametrize("copied", [True, False])
def test_a_line_that_breaks_at_the_copy_leaves_one_copy(desk: Desk, copied: bool) -> None:
    """Before or after the server did it: the target is looked at before it is done again."""
    server = ImapServer({"INBOX": Box(), "Stored": Box()}, capabilities=WITHOUT_MOVE)
    cuts = 3

    def break_off(command: str, _: bytes) -> None:
        nonlocal cuts
        if command == "UID COPY" and cuts > 0:
            cuts -= 1
            if not copied:
                raise EOFError
            server.faults.cut["UID COPY"] = 0

    with server.running():
        server.faults.on_command = break_off
        for raw in (*map(mail, range(10, 50)), mail(10)):
            server.deliver(raw)
        thread = desk.thread(server.port, after_store="move", move_to="Stored")

        until(lambda: server.boxes["INBOX"].messages == [] and not pending_work(desk.engine))
        server.deliver(mail(60))
        until(lambda: len(server.boxes["Stored"].messages) == 42)
        thread.stop()
        assert thread.join(30)

        stored = [m.raw for m in server.boxes["Stored"].messages]
        assert sorted(stored) == sorted([*map(mail, range(10, 50)), mail(10), mail(60)])


def test_mail_that_comes_while_the_target_is_looked_at_is_read_at_once(desk: Desk) -> None:
    """The folder is left for a moment, and what comes then is never announced."""
    server = ImapServer({"INBOX": Box(), "Stored": Box()}, capabilities=WITHOUT_MOVE)
    with server.running():
        server.faults.cut["UID COPY"] = 0
        server.deliver(mail(1))

        def deliver(command: str, arguments: bytes) -> None:
            if command == "EXAMINE" and b"Stored" in arguments:
                server.faults.on_command = None
                server.boxes["INBOX"].deliver(mail(2))

        server.faults.on_command = deliver
        thread = desk.thread(server.port, after_store="move", move_to="Stored")
        until(lambda: desk.has(1, 2))
        until(lambda: len(server.boxes["Stored"].messages) == 2)
        thread.stop()
        assert thread.join(30)


def test_a_refusal_that_says_read_only_breaks_no_connection(desk: Desk) -> None:
    """Imaplib takes the code for the folder's state, and would break off at the next command."""
    with ImapServer({"INBOX": Box(), "Stored": Box()}).running() as server:
        server.faults.refuse["UID MOVE"] = b"NO [READ-ONLY] you may not"
        server.deliver(mail(1))

        desk.thread(server.port, start=False, after_store="move", move_to="Stored").run_once()

        assert len(server.boxes["Stored"].messages) == 1
        assert server.commands.count("LOGIN") == 1


def test_three_daemons_on_one_mailbox_move_each_mail_once(desk: Desk) -> None:
    """All read and store; copies are made by one of them, whatever the server can do."""
    server = ImapServer({"INBOX": Box(), "Stored": Box()}, capabilities=WITHOUT_MOVE)
    with server.running():
        threads = [desk.thread(server.port, after_store="move", move_to="Stored") for _ in range(3)]
        until(lambda: all(thread.state == "watching" for thread in threads))
        for number in range(1, 31):
            server.deliver(mail(number))

        until(lambda: server.boxes["INBOX"].messages == [] and not pending_work(desk.engine))
        for thread in threads:
            thread.stop()
        assert all(thread.join(30) for thread in threads)

        assert sorted(m.raw for m in server.boxes["Stored"].messages) == sorted(map(mail, range(1, 31)))
        assert desk.has(*range(1, 31))
