"""Mails become rows: by IDLE and by poll, from many folders, whatever the server's habits."""

from datetime import date

import pytest
from imapclient.imap_utf7 import encode
from sqlalchemy import Engine

from ingestor.archive.mailbox_state import read_cursor
from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox import session
from tests.intake.mailbox.desk import BROKEN, FOREIGN, OFTEN, Desk, mail
from tests.servers.imap.box import Box
from tests.servers.imap.server import CAPABILITIES, ImapServer
from tests.waiting import until


def test_a_mail_pushed_by_idle_becomes_a_row(desk: Desk, server: ImapServer) -> None:
    """A mail that arrives while we watch is stored at once, with where it stood."""
    thread = desk.thread(server.port)
    until(lambda: thread.state == "watching")

    uid = server.deliver(mail(1))

    until(lambda: desk.has(1))
    assert desk.column("SELECT uid FROM arrivals") == [uid]
    assert desk.column("SELECT source || ' ' || folder || ' ' || channel FROM arrivals") == [
        "main INBOX mailbox"
    ]
    assert server.commands.count("LOGIN") == 1


def test_every_mail_has_exactly_one_outcome(desk: Desk, server: ImapServer) -> None:
    """The run balances: stored, duplicate, ignored and quarantined mails add up to those read."""
    for raw in (mail(1), mail(1), FOREIGN, BROKEN, mail(2), FOREIGN):
        server.deliver(raw)

    desk.thread(server.port, start=False).run_once()

    done = desk.balance
    assert (done.read, done.stored, done.duplicate, done.ignored, done.quarantined) == (6, 2, 1, 2, 1)
    assert done.adds_up


def test_a_second_pass_reads_nothing_again(desk: Desk, server: ImapServer) -> None:
    """The cursor is beyond what was read, though `UID n:*` answers the last mail for ever."""
    server.deliver(mail(1))
    desk.thread(server.port, start=False).run_once()
    bodies: list[bytes] = []
    server.faults.on_command = lambda _, said: bodies.append(said) if b"BODY.PEEK[]" in said else None

    assert not +desk.thread(server.port, start=False).run_once()

    assert bodies == []
    assert desk.balance.read == 1


def test_headers_first(desk: Desk, server: ImapServer) -> None:
    """The body of a mail that is not ours is never fetched."""
    asked: list[bytes] = []
    server.faults.on_command = lambda name, words: asked.append(words) if name == "UID FETCH" else None
    server.deliver(FOREIGN)
    ours = server.deliver(mail(1))

    desk.thread(server.port, start=False).run_once()

    assert [words for words in asked if b"BODY.PEEK[]" in words] == [b"%d (BODY.PEEK[])" % ours]


def test_polling_alone_where_idle_is_not_offered(desk: Desk) -> None:
    """Without IDLE the poll finds new mail, over one connection."""
    server = ImapServer(capabilities=tuple(set(CAPABILITIES) - {"IDLE"}))
    with server.running():
        thread = desk.thread(server.port, timing=OFTEN)
        until(lambda: thread.state == "polling")
        server.deliver(mail(1))

        until(lambda: desk.has(1))
        assert "IDLE" not in server.commands
        assert server.commands.count("LOGIN") == 1


def test_polling_where_idle_is_offered_and_refused(desk: Desk, server: ImapServer) -> None:
    """NO to IDLE is an answer: the connection stays, and the poll goes on."""
    server.faults.refuse["IDLE"] = b"NO not for you"
    thread = desk.thread(server.port, timing=OFTEN)
    until(lambda: thread.state == "polling")
    server.deliver(mail(1))

    until(lambda: desk.has(1))
    assert server.commands.count("LOGIN") == 1
    assert server.commands.count("IDLE") == 1


def test_the_poll_finds_what_idle_keeps_quiet_about(desk: Desk, server: ImapServer) -> None:
    """A server whose IDLE never pushes is read every `poll_seconds` all the same."""
    server.faults.quiet_idle = True
    desk.thread(server.port, poll_seconds=1)
    until(lambda: "IDLE" in server.commands)
    server.deliver(mail(1))

    until(lambda: desk.has(1))


def test_all_folders_are_read_and_the_first_is_watched(desk: Desk) -> None:
    """At each wake-up every folder is read; IDLE stands on the first."""
    server = ImapServer({"INBOX": Box(1), "Archive": Box(2), "Old": Box(3)})
    with server.running():
        server.deliver(mail(1), "Archive")
        server.deliver(mail(2), "Old")
        thread = desk.thread(server.port, folders=("INBOX", "Archive", "Old"))
        until(lambda: desk.has(1, 2) and thread.state == "watching")
        server.deliver(mail(3), "Old")

        server.deliver(mail(4))

        until(lambda: desk.has(1, 2, 3, 4))


@pytest.mark.parametrize("configured", ["Archive", "INBOX.Archive"])
def test_a_folder_below_the_namespace_prefix_is_found(desk: Desk, configured: str) -> None:
    """`Archive` is found where the server calls it `INBOX.Archive`, and is one folder in the archive."""
    server = ImapServer({"INBOX": Box(), "INBOX.Archive": Box()}, prefix="INBOX.", separator=".")
    with server.running():
        server.deliver(mail(1), "INBOX.Archive")

        desk.thread(server.port, start=False, folders=(configured,)).run_once()

        assert desk.column("SELECT folder FROM cursors") == ["INBOX.Archive"]


def test_folder_names_beyond_ascii(desk: Desk) -> None:
    """Ampersands and umlauts in a folder's name are written as the protocol wants them."""
    name = "Köder & Co/SMS"
    wire_name = encode("Köder & Co.SMS").decode()
    server = ImapServer({"INBOX": Box(), wire_name: Box()}, separator=".")
    with server.running():
        server.deliver(mail(1), wire_name)

        desk.thread(server.port, start=False, folders=(name,)).run_once()

        assert desk.has(1)


def test_a_missing_folder_is_named_and_the_others_go_on(desk: Desk, logged: list[dict[str, object]]) -> None:
    """A folder that is not there is one clear error that names a near one; it is read once it appears."""
    server = ImapServer({"INBOX": Box(), "Archive": Box()})
    with server.running():
        server.deliver(mail(1))
        thread = desk.thread(server.port, timing=OFTEN, folders=("Archiv", "INBOX"))
        until(lambda: desk.has(1) and thread.state == "polling")
        [error] = until(lambda: [entry for entry in logged if entry["log_level"] == "error"], "an error")
        assert "'Archiv'" in str(error["reason"])
        assert "Archive" in str(error["reason"])
        with pytest.raises(MailboxUnavailable, match="Archiv"):
            desk.thread(server.port, start=False, folders=("Archiv", "INBOX")).run_once()


def test_without_any_of_its_folders_a_mailbox_is_not_called_unreachable(
    desk: Desk, logged: list[dict[str, object]]
) -> None:
    """One line and a state of its own, however often it is looked for; it is read once it appears."""
    server = ImapServer({"INBOX": Box(), "Archive": Box()})
    with server.running():
        thread = desk.thread(server.port, folders=("Archiv",))
        until(lambda: desk.source_state() == "no folder")
        until(lambda: server.commands.count("LIST") > 2)
        faults = [entry for entry in logged if entry["log_level"] in ("warning", "error")]
        assert [entry.get("folder") for entry in faults] == ["Archiv"]

        server.call(lambda: server.boxes.update(Archiv=Box()))
        server.deliver(mail(1), "Archiv")
        until(lambda: desk.has(1) and thread.state == "watching")


def test_uids_that_begin_at_743_million(desk: Desk) -> None:
    """No UID space is walked: a folder whose UIDs begin high costs as few commands as any."""
    server = ImapServer({"INBOX": Box(1, first_uid=743_000_000)})
    with server.running():
        for number in range(3):
            server.deliver(mail(number))

        desk.thread(server.port, start=False).run_once()

        assert desk.has(0, 1, 2)
        assert len(server.commands) < 15


def test_a_large_folder_is_listed_in_short_searches(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many mails every nth is looked up by number first; each search then answers a bounded line."""
    monkeypatch.setattr(session, "WINDOW", 20)
    monkeypatch.setattr("ingestor.intake.mailbox.reading.WINDOW", 20)
    searches: list[bytes] = []
    server.faults.on_command = lambda name, words: searches.append(words) if name == "UID SEARCH" else None
    box = server.boxes["INBOX"]
    server.call(lambda: [box.deliver(FOREIGN if n % 3 else mail(n)) for n in range(207)])
    server.call(lambda: box.remove(box.messages[10:50:2]))

    desk.thread(server.port, start=False).run_once()

    left = [m for m in server.boxes["INBOX"].messages if m.raw != FOREIGN]
    assert desk.count("inbound_sms") == len(left)
    assert desk.balance.read == len(server.boxes["INBOX"].messages)
    assert len(searches) >= 187 // 20
    assert all(not words.endswith(b":*") for words in searches[: 187 // 20 - 1])


def test_an_expunge_while_a_large_folder_is_listed_hides_nothing(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mails removed by somebody else shift all numbers; every mail that is left is read nevertheless."""
    monkeypatch.setattr(session, "WINDOW", 20)
    monkeypatch.setattr("ingestor.intake.mailbox.reading.WINDOW", 20)
    box = server.boxes["INBOX"]
    server.call(lambda: [box.deliver(mail(n)) for n in range(100)])
    searched: list[bytes] = []

    def expunge_at_the_second_search(name: str, words: bytes) -> None:
        if name == "UID SEARCH":
            searched.append(words)
            if len(searched) == 2:
                box.remove(box.messages[5:18])

    server.faults.on_command = expunge_at_the_second_search
    desk.thread(server.port, start=False).run_once()

    left = {f"text {m.uid - 1}" for m in box.messages}
    assert left <= set(desk.texts())


def test_more_new_mails_than_a_search_may_bring_while_we_watch(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst into the watched folder is read in windows too: Yahoo cuts long searches short silently."""
    monkeypatch.setattr(session, "WINDOW", 20)
    monkeypatch.setattr("ingestor.intake.mailbox.reading.WINDOW", 20)
    thread = desk.thread(server.port)
    until(lambda: thread.state == "watching")
    box = server.boxes["INBOX"]

    server.call(lambda: [box.deliver(mail(n)) for n in range(90)])

    until(lambda: desk.has(*range(90)))


def test_no_charset_in_any_search(desk: Desk, server: ImapServer) -> None:
    """Searches carry no CHARSET, which Exchange refuses, and none with a date either."""
    said: list[bytes] = []
    server.faults.on_command = lambda name, words: said.append(words) if "SEARCH" in name else None
    server.deliver(mail(1))

    desk.thread(server.port, start=False).rescan(since=date(2026, 1, 1))

    assert said
    assert not any(b"CHARSET" in words.upper() for words in said)


def test_rescan_reads_again_what_the_unique_key_absorbs(desk: Desk, server: ImapServer) -> None:
    """A rescan stores 0 rows of known mails and leaves the cursor alone."""
    server.deliver(mail(1))
    desk.thread(server.port, start=False).run_once()
    before = read_cursor(desk.engine, "main", "INBOX")
    server.deliver(mail(2))

    outcomes = desk.thread(server.port, start=False).rescan("INBOX")

    assert (outcomes["stored"], outcomes["duplicate"]) == (1, 1)
    assert desk.has(1, 2)
    assert read_cursor(desk.engine, "main", "INBOX") == before


def test_a_server_that_names_no_uidnext(desk: Desk, server: ImapServer) -> None:
    """UIDNEXT is used where it is said, and not needed."""
    server.boxes["INBOX"].keep_uidnext = False
    server.deliver(mail(1))

    desk.thread(server.port, start=False).run_once()

    assert desk.has(1)


def test_no_ranges_in_a_fetch(desk: Desk, server: ImapServer) -> None:
    """imapclient 4 refuses range strings after the round trip; mails are named one by one."""
    named: list[bytes] = []
    server.faults.on_command = lambda name, words: named.append(words.split()[0]) if "FETCH" in name else None
    for number in range(30):
        server.deliver(mail(number))

    desk.thread(server.port, start=False).run_once()

    assert named
    assert not any(set(uids) & set(b":*") for uids in named)


def test_two_daemons_on_one_mailbox_and_database(archive_engine: Engine, server: ImapServer) -> None:
    """Each SMS is stored once, however many read it; on both databases."""
    desk = Desk(archive_engine)
    for number in range(40):
        server.deliver(mail(number))
    first, second = desk.thread(server.port), desk.thread(server.port)
    until(lambda: first.state == second.state == "watching")

    for number in range(40, 60):
        server.deliver(mail(number))

    until(lambda: desk.has(*range(60)))
    assert desk.count("arrivals") == 60
    assert desk.balance.adds_up
    desk.close()


def test_a_mail_that_comes_with_the_capabilities_is_not_waited_for(desk: Desk, server: ImapServer) -> None:
    """Its EXISTS comes along with the answer to CAPABILITY, asked for just before IDLE."""
    delivered: list[int] = []

    def deliver(name: str, _arguments: bytes) -> None:
        if name == "CAPABILITY" and "EXAMINE" in server.commands and not delivered:
            delivered.append(server.boxes["INBOX"].deliver(mail(2)))

    server.faults.on_command = deliver
    server.deliver(mail(1))
    desk.thread(server.port)
    until(lambda: desk.has(1, 2))
    assert delivered
