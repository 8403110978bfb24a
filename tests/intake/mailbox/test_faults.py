"""What servers and networks do to a conversation: nothing is lost, nothing doubled, nobody stuck."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from ingestor.archive.mailbox_state import pending_work, read_cursor
from tests.intake.mailbox.desk import BROKEN, FOREIGN, OFTEN, QUICK, Desk, mail
from tests.servers.fault_proxy import FaultProxy
from tests.servers.imap.server import ImapServer
from tests.waiting import until

RESTLESS = replace(QUICK, silence=0.4, idle=0.2)
"""Leaves IDLE all the time, and soon calls silence a fault."""


def watching(desk: Desk, server: ImapServer, **changed: object) -> None:
    """Start a thread and wait until it idles."""
    thread = desk.thread(server.port, **changed)
    until(lambda: thread.state == "watching" and server.commands[-1] == "IDLE")


def test_lines_split_over_packets(desk: Desk, server: ImapServer) -> None:
    """A line that comes in two packets is waited for: no reconnect, in IDLE or out of it."""
    server.faults.split_lines = True
    server.deliver(mail(1))
    watching(desk, server)

    server.deliver(mail(2))

    until(lambda: desk.has(1, 2))
    assert server.commands.count("LOGIN") == 1


def test_exists_in_one_packet_with_the_continuation(desk: Desk, server: ImapServer) -> None:
    """A mail announced together with `+ idling` is seen at once, not at the end of IDLE a minute later."""
    server.faults.exists_with_continuation = mail(1)

    desk.thread(server.port)

    until(lambda: desk.has(1))


def test_exists_before_the_continuation(desk: Desk, server: ImapServer) -> None:
    """A mail announced before `+ idling` is seen at once, and the connection is kept."""
    server.faults.exists_before_continuation = mail(1)

    desk.thread(server.port)

    until(lambda: desk.has(1))
    assert server.commands.count("LOGIN") == 1


@pytest.mark.parametrize("command", ["UID SEARCH", "UID STORE"])
def test_exists_in_the_middle_of_another_answer(desk: Desk, server: ImapServer, command: str) -> None:
    """A mail that comes during our last command is announced there and never again: it is found before
    we wait."""
    box = server.boxes["INBOX"]
    carried_out: list[str] = []

    def arrive(name: str, words: bytes) -> None:
        carried_out.append(name)
        last = name == "UID SEARCH" and words == b"UID 2:*"  # nothing new: the one before IDLE
        if (last if command == "UID SEARCH" else name == command) and len(box.messages) == 1:
            box.deliver(mail(2))

    server.deliver(mail(1))
    server.faults.on_command = arrive
    server.faults.quiet_idle = True

    desk.thread(server.port, after_store="seen")

    until(lambda: desk.has(1, 2))
    assert command in carried_out


def test_bye_in_idle(desk: Desk, server: ImapServer) -> None:
    """BYE is a disconnect: we come back."""
    server.faults.bye_in_idle = True
    desk.thread(server.port)
    until(lambda: server.commands.count("IDLE") >= 2)

    server.faults.bye_in_idle = False
    server.deliver(mail(1))

    until(lambda: desk.has(1))


def test_a_connection_that_ends_in_idle(desk: Desk, server: ImapServer) -> None:
    """The end of the connection is noticed in IDLE, at once and without a busy loop."""
    watching(desk, server)

    server.disconnect()
    server.deliver(mail(1))

    until(lambda: desk.has(1))
    assert server.commands.count("LOGIN") == 2


def test_a_connection_that_dies_silently_in_idle(desk: Desk, server: ImapServer) -> None:
    """A peer behind a dead router says nothing: leaving IDLE, which must be answered, finds out."""
    watching(desk, server, timing=RESTLESS)
    server.faults.silent = True
    thread = desk.threads[0]
    until(lambda: thread.state == "unreachable")

    server.faults.silent = False
    server.deliver(mail(1))

    until(lambda: desk.has(1))


def test_a_server_that_dribbles_meets_the_deadline(desk: Desk, server: ImapServer) -> None:
    """A command takes only so long in all, however regularly a byte comes."""
    server.deliver(mail(1))
    server.faults.delay = 1.0

    desk.thread(server.port, timing=replace(QUICK, silence=0.2))

    until(lambda: desk.threads[0].state == "unreachable")
    server.faults.delay = 0.0
    until(lambda: desk.has(1))


@pytest.mark.parametrize("command", ["GREETING", "CAPABILITY", "EXAMINE", "UID SEARCH", "UID FETCH", "IDLE"])
@pytest.mark.parametrize("after", [0, 9, 60])
def test_cut_in_the_middle_of_an_answer(desk: Desk, server: ImapServer, command: str, after: int) -> None:
    """Wherever the connection is cut, the next one goes on from what was committed."""
    for number in range(5):
        server.deliver(mail(number))
    server.faults.cut[command] = after

    thread = desk.thread(server.port)

    until(lambda: desk.has(*range(5)) and thread.state == "watching")
    assert desk.count("arrivals") == 5


def test_cut_in_a_body_of_a_later_group(desk: Desk, server: ImapServer) -> None:
    """What was committed before the cut is not read again; the cursor moved with it."""
    for number in range(1200):
        server.deliver(mail(number))
    seen: list[bytes] = []

    def cut_the_third_fetch(name: str, words: bytes) -> None:
        if name == "UID FETCH":
            seen.append(words)
            if len(seen) == 3:
                server.faults.cut[name] = 5000

    server.faults.on_command = cut_the_third_fetch
    thread = desk.thread(server.port)

    until(lambda: desk.has(*range(1200)) and thread.state == "watching")
    assert desk.balance.read == 1200
    assert desk.balance.adds_up


def test_one_mail_that_always_breaks_the_connection(desk: Desk, server: ImapServer) -> None:
    """A mail the server cannot send is put off after a few tries; the others are stored, the cursor moves."""
    for number in range(60):
        server.deliver(mail(number))
    server.faults.cut_body_of = {30}

    thread = desk.thread(server.port, timing=OFTEN)
    expected = set(range(60)) - {29}
    until(lambda: desk.has(*expected) and thread.state == "watching")

    cursor = read_cursor(desk.engine, "main", "INBOX")
    assert cursor is not None
    assert cursor.last_uid == 60
    assert [entry.work.uid for entry in pending_work(desk.engine)] == [30]
    server.faults.cut_body_of = set()
    desk.pass_time(hours=2)
    until(lambda: desk.has(*range(60)) and not pending_work(desk.engine))
    assert desk.balance.adds_up


def test_a_clock_that_was_ahead_puts_no_mail_off(desk: Desk, server: ImapServer) -> None:
    """An attempt noted in the future, before the clock was set right, is no reason to wait until then."""
    server.deliver(mail(1))
    server.faults.missing_body = {1: 3}
    for _ in range(2):
        desk.thread(server.port, start=False).run_once()
    assert pending_work(desk.engine)[0].tried_at is not None
    server.faults.missing_body = {}
    desk.pass_time(days=-400)

    desk.thread(server.port, start=False).run_once()

    assert desk.has(1)
    assert pending_work(desk.engine) == []


def test_a_body_that_is_missing_is_tried_again(desk: Desk, server: ImapServer) -> None:
    """A row without a body, or no row at all, puts the mail into pending and not out of the world."""
    for number in range(4):
        server.deliver(mail(number))
    server.faults.missing_body = {2: 2}
    server.faults.missing_row = {3: 1}

    thread = desk.thread(server.port, timing=OFTEN)
    until(lambda: desk.has(0, 2, 3) and thread.state == "watching")
    assert [(e.work.uid, e.attempts, e.reason) for e in pending_work(desk.engine)] == [
        (2, 1, "the server sends no body")
    ]

    desk.pass_time(minutes=5)
    until(lambda: desk.has(*range(4)))
    assert desk.balance.failed == 2
    assert desk.balance.adds_up


def test_a_mail_that_vanishes_before_its_fetch(desk: Desk, server: ImapServer) -> None:
    """A mail somebody removes between search and fetch is nobody's failure."""
    box = server.boxes["INBOX"]
    for number in range(3):
        server.deliver(mail(number))

    def expunge(name: str, words: bytes) -> None:
        if name == "UID FETCH" and b"BODY.PEEK[]" in words:
            box.remove([m for m in box.messages if m.uid == 2])

    server.faults.on_command = expunge
    desk.thread(server.port, start=False).run_once()

    assert desk.has(0, 2)
    assert pending_work(desk.engine) == []
    assert desk.balance.failed == 0


def test_other_peoples_flag_changes_in_between(desk: Desk, server: ImapServer) -> None:
    """Unasked-for FETCH rows in an answer confuse nobody, though their numbers look like UIDs of ours."""
    for number in range(5):
        server.deliver(mail(number) if number != 2 else FOREIGN)
    server.faults.foreign_rows = True

    desk.thread(server.port, start=False).run_once()

    assert desk.has(0, 1, 3, 4)
    assert desk.balance.failed == 0


def test_a_search_answer_beyond_imaplibs_line(desk: Desk, server: ImapServer) -> None:
    """A line of more than a megabyte is a fault of the connection, in a sentence; we come back."""
    server.deliver(mail(1))
    server.faults.search_line = 1_100_000
    thread = desk.thread(server.port)
    until(lambda: desk.source_state() == "unreachable")
    assert thread.state == "unreachable"

    server.faults.search_line = None

    until(lambda: desk.has(1))


@pytest.mark.parametrize("answer", [b"NO [SERVERBUG] oops", b"BAD what"])
@pytest.mark.parametrize("command", ["UID SEARCH", "UID FETCH", "EXAMINE", "CAPABILITY"])
def test_commands_that_are_refused_for_a_while(
    desk: Desk, server: ImapServer, command: str, answer: bytes
) -> None:
    """NO and BAD to any command end in another try, never in a dead thread or a lost mail."""
    server.deliver(mail(1))
    server.faults.refuse[command] = answer
    desk.thread(server.port, timing=OFTEN)
    until(lambda: server.commands.count(command) >= 3)

    server.faults.refuse.clear()
    desk.pass_time(hours=2)  # by now the mail may have been put off

    until(lambda: desk.has(1))


def test_a_new_uidvalidity(desk: Desk, server: ImapServer, logged: list[dict[str, object]]) -> None:
    """The folder is read again as a whole: no row is lost, none doubled, one warning."""
    for raw in (mail(1), BROKEN, mail(2)):
        server.deliver(raw)
    watching(desk, server, timing=OFTEN)
    until(lambda: desk.has(1, 2))

    server.call(lambda: server.boxes["INBOX"].renumber(uidvalidity=9))
    server.disconnect()
    server.deliver(mail(3))

    until(lambda: desk.has(1, 2, 3) and server.commands[-1] == "IDLE")
    cursor = read_cursor(desk.engine, "main", "INBOX")
    assert cursor is not None
    assert (cursor.uidvalidity, cursor.last_uid) == (9, 4)
    assert desk.count("arrivals") == 4
    assert desk.count("quarantine") == 1
    until(lambda: server.commands.count("EXAMINE") >= 3)
    assert len([entry for entry in logged if "UIDVALIDITY" in str(entry["event"])]) == 1


def test_a_new_uidvalidity_of_an_emptied_folder(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """An emptied and rebuilt folder takes nothing away from the archive, and is warned of once."""
    server.deliver(mail(1))
    desk.thread(server.port, start=False).run_once()
    box = server.boxes["INBOX"]
    server.call(lambda: box.remove(box.messages))
    server.call(lambda: box.renumber(uidvalidity=9))

    for _ in range(3):
        desk.thread(server.port, start=False).run_once()

    assert desk.has(1)
    assert len([entry for entry in logged if "UIDVALIDITY" in str(entry["event"])]) == 1


def test_our_cursor_beyond_uidnext(desk: Desk, server: ImapServer, logged: list[dict[str, object]]) -> None:
    """A server restored from an old copy reuses UIDs: the folder is read again, with one warning."""
    for number in range(5):
        server.deliver(mail(number))
    desk.thread(server.port, start=False).run_once()
    box = server.boxes["INBOX"]

    def restore_an_old_copy() -> None:
        box.remove(box.messages[2:])
        box.uidnext = 3

    server.call(restore_an_old_copy)
    server.deliver(mail(77))

    for _ in range(3):
        desk.thread(server.port, start=False).run_once()

    assert desk.has(*range(5), 77)
    assert len([entry for entry in logged if "below our cursor" in str(entry["event"])]) == 1
    cursor = read_cursor(desk.engine, "main", "INBOX")
    assert cursor is not None
    assert cursor.last_uid == 3


def test_pending_work_of_an_old_uidvalidity_is_dropped(desk: Desk, server: ImapServer) -> None:
    """UIDs of an old UIDVALIDITY mean other mails now: the rescan covers what was pending."""
    server.deliver(mail(1))
    server.deliver(mail(2))
    server.faults.missing_body = {1: 99}
    desk.thread(server.port, start=False).run_once()
    assert len(pending_work(desk.engine)) == 1

    server.faults.missing_body = {}
    server.call(lambda: server.boxes["INBOX"].renumber(uidvalidity=9, first_uid=50))
    desk.thread(server.port, start=False).run_once()

    assert pending_work(desk.engine) == []
    assert desk.has(1, 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plan: setattr(plan, "cut_after", 700),
        lambda plan: (setattr(plan, "cut_after", 1500), setattr(plan, "reset", True)),
        lambda plan: setattr(plan, "refuse", True),
    ],
)
def test_a_broken_network_that_heals(
    desk: Desk, server: ImapServer, spoil: Callable[[object], object]
) -> None:
    """Cuts, resets and refusals for a while: afterwards every mail is there once."""
    for number in range(20):
        server.deliver(mail(number))
    with FaultProxy(server.port).running() as proxy:
        spoil(proxy.plan)
        desk.thread(proxy.port, timing=OFTEN)
        until(lambda: proxy.connections >= 3)
        proxy.plan.cut_after, proxy.plan.refuse = None, False
        desk.pass_time(hours=2)  # by now mails may have been put off

        until(lambda: desk.has(*range(20)))
    assert desk.count("arrivals") == 20


def test_no_log_line_holds_what_a_desynchronised_server_says(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """Pieces of a mail in the wrong place break the connection, and never reach a log."""
    server.deliver(mail(1, "the planted secret text"))
    answers = {b"UID FETCH": b"the planted secret text", b"UID SEARCH": b"* FETCH (BODY[] {5}"}
    for command, garbage in answers.items():
        server.faults.refuse = {command.decode(): b"OK\r\n" + garbage + b" planted +393351234567"}
        thread = desk.thread(server.port)
        until(lambda: server.commands.count("LOGIN") >= 2)
        thread.stop()
        assert thread.join(30)
        server.commands.clear()

    assert not [entry for entry in logged if re.search("planted|3351234567", repr(entry))]
