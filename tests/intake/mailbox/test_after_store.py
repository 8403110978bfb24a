"""What is done on the server once an SMS is durable: only what is asked for, and to no other mail."""

import pytest

from ingestor.archive.items import Action, Pending, Submission
from ingestor.archive.mailbox_state import pending_work
from tests.intake.mailbox.desk import BROKEN, FOREIGN, OFTEN, Desk, mail
from tests.servers.imap.box import Box
from tests.servers.imap.server import CAPABILITIES, ImapServer
from tests.servers.scripted_imap import Message, ScriptedImap, Talk
from tests.waiting import until

WITHOUT_MOVE = tuple(set(CAPABILITIES) - {"MOVE"})
WITHOUT_BOTH = tuple(set(CAPABILITIES) - {"MOVE", "UIDPLUS"})


def fill(server: ImapServer) -> None:
    """Deliver two SMS (one twice), one broken mail of ours, and two of somebody else."""
    for raw in (FOREIGN, mail(1), BROKEN, mail(2), mail(2), FOREIGN):
        server.deliver(raw, flags=("\\Flagged",))


def flags(server: ImapServer, folder: str = "INBOX") -> dict[int, set[str]]:
    return {m.uid: m.flags - {"\\Flagged"} for m in server.boxes[folder].messages}


def test_keep_opens_no_folder_for_writing(desk: Desk, server: ImapServer) -> None:
    """By default nothing on the server changes: EXAMINE, PEEK, and not one flag."""
    fill(server)

    desk.thread(server.port, start=False).run_once()

    assert "SELECT" not in server.commands
    assert not any(flags(server).values())
    assert len(flags(server)) == 6


def test_seen(desk: Desk, server: ImapServer) -> None:
    """Stored and duplicate mails become seen; quarantined and foreign ones do not."""
    fill(server)

    desk.thread(server.port, start=False, after_store="seen").run_once()

    assert {uid for uid, has in flags(server).items() if has == {"\\Seen"}} == {2, 4, 5}
    assert {uid for uid, has in flags(server).items() if not has} == {1, 3, 6}
    assert pending_work(desk.engine) == []


@pytest.mark.parametrize("capabilities", [CAPABILITIES, WITHOUT_MOVE])
def test_move(desk: Desk, capabilities: tuple[str, ...]) -> None:
    """Stored mails move (by MOVE, or by COPY and UID EXPUNGE); the others stay with their flags."""
    server = ImapServer({"INBOX": Box(), "Stored": Box()}, capabilities=capabilities)
    with server.running():
        fill(server)

        desk.thread(server.port, start=False, after_store="move", move_to="Stored").run_once()

        assert flags(server) == {1: set(), 3: set(), 6: set()}
        assert sorted(m.raw for m in server.boxes["Stored"].messages) == sorted([mail(1), mail(2), mail(2)])
        assert "EXPUNGE" not in server.commands
        assert pending_work(desk.engine) == []


def test_move_with_neither_move_nor_uidplus(desk: Desk, logged: list[dict[str, object]]) -> None:
    """Mails are copied and marked as deleted, never expunged: EXPUNGE would take everybody's. It is said."""
    server = ImapServer({"INBOX": Box(), "Stored": Box()}, capabilities=WITHOUT_BOTH)
    with server.running():
        fill(server)
        server.call(lambda: server.boxes["INBOX"].messages[0].flags.add("\\Deleted"))

        for _ in range(2):
            desk.thread(server.port, start=False, after_store="move", move_to="Stored").run_once()

        assert {uid for uid, has in flags(server).items() if "\\Deleted" in has} == {1, 2, 4, 5}
        assert len(server.boxes["INBOX"].messages) == 6
        assert len(server.boxes["Stored"].messages) == 3
        assert not {"EXPUNGE", "UID EXPUNGE"} & set(server.commands)
        assert pending_work(desk.engine) == []
    assert any("neither MOVE nor UIDPLUS" in str(entry["event"]) for entry in logged)
    assert not [entry for entry in logged if entry["log_level"] == "error"]


def test_delete(desk: Desk, server: ImapServer) -> None:
    """Stored mails are expunged one by one; a mail that its owner marked as deleted is left to him."""
    fill(server)
    server.call(lambda: server.boxes["INBOX"].messages[0].flags.add("\\Deleted"))

    desk.thread(server.port, start=False, after_store="delete").run_once()

    assert flags(server) == {1: {"\\Deleted"}, 3: set(), 6: set()}
    assert "EXPUNGE" not in server.commands


def test_many_mails_are_moved_once_each(desk: Desk) -> None:
    """The fallback without MOVE copies each mail once, over several commands too."""
    server = ImapServer({"INBOX": Box(), "Stored": Box()}, capabilities=WITHOUT_MOVE)
    with server.running():
        for number in range(620):
            server.deliver(mail(number))

        desk.thread(server.port, start=False, after_store="move", move_to="Stored").run_once()

        assert len(server.boxes["Stored"].messages) == 620
        assert server.boxes["INBOX"].messages == []


def test_a_missing_target_is_made(desk: Desk) -> None:
    """The folder to move to is created where it is missing, below the namespace's prefix."""
    server = ImapServer({"INBOX": Box()}, prefix="INBOX.", separator=".")
    with server.running():
        server.deliver(mail(1))

        desk.thread(server.port, start=False, after_store="move", move_to="Stored").run_once()

        assert len(server.boxes["INBOX.Stored"].messages) == 1


def test_a_mail_already_in_the_target_stays(desk: Desk) -> None:
    """A target that is read as well is no treadmill."""
    server = ImapServer({"INBOX": Box(), "INBOX.Stored": Box()}, prefix="INBOX.", separator=".")
    with server.running():
        server.deliver(mail(1))

        desk.thread(
            server.port, start=False, after_store="move", move_to="Stored", folders=("INBOX", "INBOX.Stored")
        ).run_once()

        assert [m.uid for m in server.boxes["INBOX.Stored"].messages] == [1]
        assert pending_work(desk.engine) == []


def test_what_was_pending_at_a_crash_is_done_at_the_next_start(desk: Desk, server: ImapServer) -> None:
    """The commit queues the action; a process that died in between finds it again."""
    server.deliver(mail(1))
    server.faults.cut_always["UID STORE"] = 0
    thread = desk.thread(server.port, after_store="seen")
    until(lambda: server.commands.count("UID STORE") >= 2)
    thread.stop()
    assert thread.join(30)
    assert [entry.work.action for entry in pending_work(desk.engine)] == [Action.SEEN]

    server.faults.cut_always.clear()
    desk.thread(server.port, start=False, after_store="seen").run_once()

    assert flags(server) == {1: {"\\Seen"}}
    assert pending_work(desk.engine) == []
    assert desk.has(1)


def test_a_copy_that_was_made_before_a_crash_is_not_made_again(desk: Desk) -> None:
    """Copied and marked, but not expunged: the next start only expunges."""
    server = ImapServer({"INBOX": Box(), "Stored": Box()}, capabilities=WITHOUT_MOVE)
    with server.running():
        server.deliver(mail(1))

        def die(name: str, _: bytes) -> None:
            if name == "UID EXPUNGE":
                raise EOFError

        server.faults.on_command = die
        thread = desk.thread(server.port, after_store="move", move_to="Stored")
        until(lambda: server.commands.count("UID EXPUNGE") >= 2)
        server.faults.on_command = None

        until(lambda: server.boxes["INBOX"].messages == [] and not pending_work(desk.engine))

        assert len(server.boxes["Stored"].messages) == 1
        thread.stop()
        assert thread.join(30)


def test_a_pending_mail_that_is_gone_is_done(desk: Desk, server: ImapServer) -> None:
    """Somebody else removed it: nothing is left to do."""
    server.deliver(mail(1))
    desk.thread(server.port, start=False, after_store="seen").run_once()
    gone = Pending("main", "INBOX", 1, 99, Action.SEEN)
    desk.writer.submit(Submission(run_id=None, to_do=(gone,))).result(30)

    desk.thread(server.port, start=False, after_store="seen").run_once()

    assert pending_work(desk.engine) == []


def test_an_action_that_is_no_longer_asked_for_is_dropped(desk: Desk, server: ImapServer) -> None:
    """Back to `keep`: what `delete` had left to do is not done any more."""
    server.deliver(mail(1))
    server.faults.refuse["UID STORE"] = b"NO not now"
    desk.thread(server.port, start=False, after_store="delete").run_once()
    assert len(pending_work(desk.engine)) == 1
    server.faults.refuse.clear()

    desk.thread(server.port, start=False, after_store="keep").run_once()

    assert pending_work(desk.engine) == []
    assert flags(server) == {1: set()}


def test_a_read_only_folder_is_read_and_complained_about_once(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """A folder we may not write to is read all the same; the action waits, and is an error once."""
    server.boxes["INBOX"].read_only = True
    server.deliver(mail(1))
    thread = desk.thread(server.port, timing=OFTEN, after_store="seen")
    until(lambda: desk.has(1) and thread.state == "watching")

    server.deliver(mail(2))
    until(lambda: desk.has(1, 2))
    until(lambda: len(pending_work(desk.engine)) == 2)
    until(lambda: len([entry for entry in logged if entry["log_level"] == "error"]) == 1)


def test_a_refused_action_does_not_stop_the_reading(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """NO to the flag change (a quota, say) leaves it pending, and the next mails are read."""
    server.faults.refuse["UID STORE"] = b"NO [OVERQUOTA] full"
    thread = desk.thread(server.port, timing=OFTEN, after_store="seen")
    until(lambda: thread.state == "watching")
    server.deliver(mail(1))
    until(lambda: desk.has(1))
    server.deliver(mail(2))
    until(lambda: desk.has(1, 2))
    assert server.commands.count("LOGIN") == 1
    until(lambda: any(entry["log_level"] == "error" for entry in logged))

    server.faults.refuse.clear()
    until(lambda: flags(server) == {1: {"\\Seen"}, 2: {"\\Seen"}})
    assert len([entry for entry in logged if entry["log_level"] == "error"]) == 1


@pytest.mark.parametrize("further", [0, 3])
@pytest.mark.parametrize("after_store", ["delete", "seen"])
def test_a_server_restored_from_an_old_copy_loses_nobody_elses_mail(
    desk: Desk, server: ImapServer, further: int, after_store: str
) -> None:
    """The UIDs of what is pending are given to other people's mails: those are never touched.

    With few of them the server's next UID lies below our cursor, with `further` ones nothing tells.
    """
    server.deliver(mail(1))
    server.deliver(mail(2))
    server.faults.refuse = {"UID STORE": b"NO not now"}
    desk.thread(server.port, start=False, after_store=after_store).run_once()
    assert {entry.work.uid for entry in pending_work(desk.engine)} == {1, 2}

    box = server.boxes["INBOX"]

    def restore_an_old_copy() -> None:
        box.remove(box.messages)
        box.uidnext = 1

    server.call(restore_an_old_copy)
    for _ in range(1 + further):
        server.deliver(FOREIGN)
    server.faults.refuse = {}
    desk.thread(server.port, start=False, after_store=after_store).run_once()

    assert [m.flags for m in box.messages] == [set()] * (1 + further)
    assert pending_work(desk.engine) == []


def test_a_rescan_of_a_restored_folder_touches_nobody_elses_mail(desk: Desk, server: ImapServer) -> None:
    """What was pending under the old numbers is forgotten before anything is done on the server."""
    for number in (1, 2):
        server.deliver(mail(number))
    server.faults.refuse = {"UID STORE": b"NO not now"}
    desk.thread(server.port, start=False, after_store="delete").run_once()
    box = server.boxes["INBOX"]
    server.call(lambda: box.remove(box.messages))
    server.call(lambda: setattr(box, "uidnext", 1))
    server.deliver(BROKEN)  # ours, but quarantined mail stays where it is
    server.faults.refuse = {}

    desk.thread(server.port, start=False, after_store="delete").rescan()

    assert len(box.messages) == 1
    assert pending_work(desk.engine) == []


@pytest.mark.parametrize("capabilities", ["IMAP4rev1 UIDPLUS MOVE", "IMAP4rev1 MOVE"])
@pytest.mark.parametrize("answer", [b"NO MOVE extension not supported", b"BAD Unknown command"])
def test_move_offered_and_refused(
    desk: Desk, scripted: ScriptedImap, logged: list[dict[str, object]], capabilities: str, answer: bytes
) -> None:
    """The mails are copied and marked, and expunged where that can be done to them alone; it is said once."""
    scripted.script.capabilities = capabilities
    scripted.script.folders["Done"] = []
    scripted.script.refuse["UID MOVE"] = answer
    thread = desk.thread(scripted.port, start=False, after_store="move", move_to="Done")

    for number in (1, 2):
        scripted.add(mail(number))
        thread.run_once()

    assert len(scripted.uids("Done")) == 2
    if "UIDPLUS" in capabilities:
        assert scripted.uids() == []
    else:
        assert all(b"\\Deleted" in one.flags for one in scripted.script.folders["INBOX"])
    assert pending_work(desk.engine) == []
    assert [entry["event"] for entry in logged].count(
        "the server offers MOVE and refuses it; mails are copied, marked as deleted and expunged"
    ) == 1


@pytest.mark.parametrize("capabilities", ["IMAP4rev1 UIDPLUS", "IMAP4rev1"])
@pytest.mark.parametrize("done", [True, False])
def test_a_line_that_breaks_while_mails_are_copied(
    desk: Desk, scripted: ScriptedImap, capabilities: str, done: bool
) -> None:
    """Whether the server copied them or not, each stands in the target once: it is looked for there."""
    scripted.script.capabilities = capabilities
    scripted.script.folders["Done"] = [Message(1, FOREIGN)]

    def cut(talk: Talk, command: str, words: bytes, _: bytes) -> bool:
        if command != "UID COPY" or scripted.commands.count("UID COPY") > 1:
            return False
        if done:
            for _, one in talk.chosen(words.partition(b" ")[0]):
                scripted.add(one.raw, "Done")
        return talk.hang_up(b"")

    scripted.script.on_command = cut
    for number in range(1, 6):
        scripted.add(mail(number))

    thread = desk.thread(scripted.port, after_store="move", move_to="Done")
    until(lambda: desk.has(*range(1, 6)) and not pending_work(desk.engine) and thread.state == "polling")

    assert len(scripted.uids("Done")) == 6
    assert len({one.raw for one in scripted.script.folders["Done"]}) == 6
