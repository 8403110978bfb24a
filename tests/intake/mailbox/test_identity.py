"""A UID names the mail that was read under it, or it names nothing: renumbered and restored mailboxes."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from ingestor.archive.engine import writing
from ingestor.archive.mailbox_state import pending_work, read_cursor
from ingestor.intake.mailbox.context import account_of
from tests.intake.mailbox.desk import FOREIGN, Desk, mail
from tests.servers.imap.box import Box
from tests.servers.imap.server import ImapServer

AFTER = {
    "keep": {}, "seen": {"after_store": "seen"}, "delete": {"after_store": "delete"},
    "move": {"after_store": "move", "move_to": "Stored"},
}  # fmt: skip


def bare(number: int) -> bytes:
    """Return an SMS whose mail has no Message-ID, and a size and header like the next one's."""
    lines = mail(number, f"text {number}").split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"Message-ID"))


@pytest.fixture
def server() -> Iterator[ImapServer]:
    """A server with a folder to move to."""
    with ImapServer({"INBOX": Box(), "Stored": Box()}).running() as running:
        yield running


def put(server: ImapServer, raws: list[bytes], uidnext: int | None = None) -> None:
    """Make these the mails of INBOX, numbered from 1 under the same UIDVALIDITY, as if nothing had been."""

    def change() -> None:
        box = server.boxes["INBOX"]
        box.remove(box.messages)
        box.uidnext = 1
        for raw in raws:
            box.deliver(raw)
        if uidnext is not None:
            box.uidnext = uidnext

    server.disconnect()
    server.call(change)


def warnings(logged: list[dict[str, object]]) -> list[str]:
    return [str(e["event"]) for e in logged if e["log_level"] == "warning"]


def kept(server: ImapServer, folder: str = "INBOX") -> list[bytes]:
    return [message.raw for message in server.boxes[folder].messages]


@pytest.mark.parametrize("make", [mail, bare])
@pytest.mark.parametrize("after", AFTER)
def test_renumbered_mails_are_all_read(
    desk: Desk, server: ImapServer, after: str, make: Callable[[int], bytes], logged: list[dict[str, object]]
) -> None:
    """A new mail takes the UID of one that was read, as on Courier: it is read, and nothing twice."""
    put(server, [make(11), FOREIGN, make(12)])
    desk.thread(server.port, start=False, **AFTER[after]).run_once()
    left = kept(server)

    put(server, [make(13), make(14), *left])
    desk.thread(server.port, start=False, **AFTER[after]).run_once()

    assert desk.has(11, 12, 13, 14)
    assert len([one for one in warnings(logged) if "other mails stand" in one]) <= 1
    assert FOREIGN in kept(server)
    assert pending_work(desk.engine) == []
    if after == "move":
        assert sorted(kept(server, "Stored")) == [make(n) for n in (11, 12, 13, 14)]
    assert not any(m.flags for m in server.boxes["INBOX"].messages if m.raw == FOREIGN)


@pytest.mark.parametrize("make", [mail, bare])
@pytest.mark.parametrize("after", AFTER)
def test_new_mails_of_a_restored_mailbox_are_all_read(
    desk: Desk, server: ImapServer, after: str, make: Callable[[int], bytes], logged: list[dict[str, object]]
) -> None:
    """Restored from a backup with its numbers: the UIDs of lost mails are those of new ones."""
    backup = [make(11), FOREIGN, make(12)]
    put(server, [*backup, make(13), make(14)])
    desk.thread(server.port, start=False, **AFTER[after]).run_once()

    put(server, [*backup, make(15), make(16), make(17), make(18)])
    for _ in range(2):
        desk.thread(server.port, start=False, **AFTER[after]).run_once()

    assert desk.has(11, 12, 13, 14, 15, 16, 17, 18)
    assert len([one for one in warnings(logged) if "other mails stand" in one]) <= 1
    assert pending_work(desk.engine) == []
    if after in ("move", "delete"):
        assert kept(server) == [FOREIGN]


def test_a_change_is_told_and_read_once(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """One warning and one reading; the next pass finds everything as it was."""
    put(server, [mail(1), mail(2)])
    desk.thread(server.port, start=False).run_once()
    put(server, [mail(3), mail(1), mail(2)])

    for _ in range(3):
        desk.thread(server.port, start=False).run_once()

    assert desk.has(1, 2, 3)
    assert warnings(logged) == [
        "other mails stand under the UIDs of those that were read; reading the whole folder again"
    ]
    assert desk.balance.read == 2 + 3


def test_a_stranger_under_the_uid_of_a_stranger_is_noticed(desk: Desk, server: ImapServer) -> None:
    """Only the header of other people's mail is known, and that is enough."""
    other = FOREIGN.replace(b"hello", b"hallo")
    put(server, [FOREIGN, other])
    desk.thread(server.port, start=False).run_once()
    put(server, [other, FOREIGN, mail(1)], uidnext=9)

    desk.thread(server.port, start=False).run_once()

    assert desk.has(1)
    assert desk.balance.ignored == 4


def test_mails_that_have_gone_are_no_difference(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """People tidy up: nothing is read again, nothing said, and the archive forgets the UIDs."""
    for number in range(1, 8):
        server.deliver(mail(number))
    desk.thread(server.port, start=False).run_once()
    box = server.boxes["INBOX"]
    server.call(lambda: box.remove([box.messages[0], box.messages[3], box.messages[6]]))

    desk.thread(server.port, start=False).run_once()

    assert desk.balance.read == 7
    assert warnings(logged) == []
    cursor = read_cursor(desk.engine, "main", "INBOX")
    assert cursor is not None
    assert (cursor.last_uid, cursor.uids) == (7, "2:3,5:6")


def test_a_mail_below_the_cursor_that_was_not_there_is_read(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """It alone, whatever the server means by it, and at once also where the folder is large."""
    for number in range(1, 5):
        server.deliver(mail(number))
    box = server.boxes["INBOX"]
    late = server.call(lambda: box.messages[1])
    server.call(lambda: box.remove([late]))
    desk.thread(server.port, start=False).run_once()
    assert desk.has(1, 3, 4)

    server.call(lambda: setattr(late, "gone", False))
    server.call(lambda: box.messages.insert(1, late))
    desk.thread(server.port, start=False).run_once()

    assert desk.has(1, 2, 3, 4)
    assert desk.balance.read == 4
    assert warnings(logged) == []


def test_a_size_that_is_only_guessed_makes_no_other_mail(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """Of ours the content decides, of others the Message-ID: Exchange guesses sizes, Dovecot mends them."""
    put(server, [mail(1), FOREIGN, mail(2)])
    desk.thread(server.port, start=False).run_once()
    for message in server.boxes["INBOX"].messages:
        message.size += 3

    desk.thread(server.port, start=False).run_once()

    assert desk.balance.read == 3
    assert warnings(logged) == []


def test_a_large_folder_is_listed_only_where_its_count_has_changed(desk: Desk, server: ImapServer) -> None:
    """A pass over thousands of mails costs a hundred headers; one that came among them is found."""
    box = server.boxes["INBOX"]
    box.uidnext = 10
    server.call(lambda: [box.deliver(FOREIGN) for _ in range(2000)])
    desk.thread(server.port, start=False).run_once()
    server.commands.clear()
    desk.thread(server.port, start=False).run_once()
    assert server.commands.count("UID SEARCH") == 1
    assert server.commands.count("UID FETCH") == 1

    def come() -> None:
        box.deliver(mail(1))
        late = box.messages.pop()
        late.uid = 5
        box.messages.insert(0, late)

    server.call(come)
    desk.thread(server.port, start=False).run_once()

    assert desk.has(1)
    assert desk.balance.read == 2001


def test_where_none_of_the_hundred_is_left_the_folder_is_read_again(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """A backup older than the newest hundred, a server that says no UIDNEXT: nothing else would tell."""
    server.boxes["INBOX"].keep_uidnext = False
    put(server, [FOREIGN] * 250)
    desk.thread(server.port, start=False).run_once()

    put(server, [*[FOREIGN] * 20, mail(1), mail(2)])
    desk.thread(server.port, start=False).run_once()

    assert desk.has(1, 2)
    assert len(warnings(logged)) == 1


def test_nothing_in_the_cursor_names_anybody(desk: Desk, server: ImapServer) -> None:
    """Other people's mail leaves its UID and a keyed hash."""
    put(server, [FOREIGN, mail(1)])
    desk.thread(server.port, start=False).run_once()

    cursor = read_cursor(desk.engine, "main", "INBOX")

    assert cursor is not None
    assert cursor.accounts == f"demo@127.0.0.1:{server.port}"
    assert cursor.uids == "1:2"
    assert cursor.marks is not None
    assert len(cursor.marks) == 2 * 28


# Whose mailbox it is


def test_another_mailbox_under_the_same_name_is_read_from_its_beginning(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """Host or user changed, and the UIDVALIDITY is 1 on both: one warning, and every mail is read once."""
    put(server, [mail(1), mail(2), mail(3)])
    desk.thread(server.port, start=False).run_once()

    with ImapServer({"INBOX": Box()}).running() as other:
        put(other, [mail(number) for number in range(4, 12)])
        for _ in range(2):
            desk.thread(other.port, start=False).run_once()

    assert desk.has(*range(1, 12))
    assert warnings(logged) == ["the mailbox has another server or user name; reading the whole folder again"]
    assert desk.balance.read == 11


def test_another_user_is_another_mailbox(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """The same server, the same UIDVALIDITY, another login."""
    put(server, [mail(1), mail(2), mail(3)])
    desk.thread(server.port, start=False).run_once()
    put(server, [mail(4), mail(5), mail(6), mail(7)])
    server.username = "another"

    desk.thread(server.port, start=False, username="another").run_once()

    assert desk.has(*range(1, 8))
    assert len(warnings(logged)) == 1


def test_a_mere_spelling_of_the_host_costs_one_reading(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """The same mailbox by another name is read again once; two daemons with a name each do not take turns."""
    put(server, [mail(1), mail(2)])
    for host in ("127.0.0.1", "localhost", "127.0.0.1", "localhost", "LOCALHOST"):
        desk.thread(server.port, start=False, host=host).run_once()

    assert desk.has(1, 2)
    assert len(warnings(logged)) == 1
    assert desk.balance.read == 4


def test_an_archive_from_before_takes_what_it_finds(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """A cursor without an identity: nothing is read again, nothing said, and from then on all is known."""
    put(server, [mail(1), FOREIGN, mail(2)])
    desk.thread(server.port, start=False).run_once()
    before = read_cursor(desk.engine, "main", "INBOX")
    with writing(desk.engine) as connection:
        connection.execute(text("UPDATE cursors SET accounts = NULL, uids = NULL, marks = NULL"))

    desk.thread(server.port, start=False).run_once()

    after = read_cursor(desk.engine, "main", "INBOX")
    assert before is not None
    assert after is not None
    assert (after.accounts, after.uids, after.marks) == (before.accounts, before.uids, before.marks)
    assert desk.balance.read == 3
    assert warnings(logged) == []


# Servers that write no numbers down for who only looks


def test_a_folder_without_uidnext_is_opened_read_write(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """As Courier wants it; it is said once, and no mail gets a flag."""
    server.boxes["INBOX"].keep_uidnext = False
    put(server, [mail(1), FOREIGN])
    thread = desk.thread(server.port, start=False)
    for _ in range(3):
        thread.run_once()

    assert server.commands.count("EXAMINE") == 1
    assert server.commands.count("SELECT") == 3
    assert [e["log_level"] for e in logged if "opened read-write" in str(e["event"])] == ["info"]
    assert not any(message.flags for message in server.boxes["INBOX"].messages)
    assert "UID STORE" not in server.commands


def test_a_new_uidvalidity_of_an_examined_folder_is_asked_for_again_read_write(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """A server that makes one up at each EXAMINE and keeps the one of SELECT causes no reading."""
    box = server.boxes["INBOX"]
    put(server, [mail(1)])
    desk.thread(server.port, start=False).run_once()

    def make_up(command: str, _: bytes) -> None:
        box.uidvalidity = 7 if command == "EXAMINE" else 1 if command == "SELECT" else box.uidvalidity

    server.faults.on_command = make_up
    desk.thread(server.port, start=False).run_once()

    assert desk.balance.read == 1
    assert warnings(logged) == []


def test_a_folder_that_may_only_be_examined_is_read_all_the_same(desk: Desk, server: ImapServer) -> None:
    """SELECT is refused: EXAMINE has to do."""
    server.boxes["INBOX"].keep_uidnext = False
    server.faults.refuse["SELECT"] = b"NO not for you"
    put(server, [mail(1)])

    desk.thread(server.port, start=False).run_once()

    assert desk.has(1)


@pytest.mark.parametrize(
    ("host", "port"), [("IMAP.Example.ORG.", 993), ("imap.example.org", 143), ("imap.example.org", 993)]
)
def test_an_account_has_one_spelling(desk: Desk, host: str, port: int) -> None:
    """Capitals, the dot at the end and which of the standard ports is used make no other mailbox."""
    mailbox = desk.mailbox(port, host=host, security="tls")

    assert account_of(mailbox) == "demo@imap.example.org"
