"""Answers in other words than usual, and numbers that nobody can mean: what is ours is read all the same."""

import imaplib

import pytest

from ingestor.archive.mailbox_state import read_cursor
from ingestor.errors import CredentialsRefused, IngestorError, MailboxUnavailable
from ingestor.intake.mailbox.answers import (
    FolderMissing,
    Listed,
    Refused,
    bounded_number,
    listed_folders,
    searched_uids,
    speaking,
)  # fmt: skip
from ingestor.redaction import redact
from tests.intake.mailbox.desk import OFTEN, Desk, mail
from tests.intake.mailbox.test_login import logged_in
from tests.servers.imap.server import ImapServer
from tests.servers.scripted_imap import Message, ScriptedImap, Talk
from tests.waiting import until


@pytest.mark.parametrize(
    ("line", "name", "wire"),
    [
        (b'(\\HasNoChildren) "/" "R&D"', "R&D", b"R&D"),
        (b'(\\HasNoChildren) "/" "Q&A 2026"', "Q&A 2026", b"Q&A 2026"),
        (b'() "." &', "+", b"&"),
        (b'() "/" "a&!!-"', "a&!!-", b"a&!!-"),
        (b'() "/" "Citt&AOA-"', "Citt\u00e0", b"Citt&AOA-"),
        (b'() "/" "Citt\xc3\xa0&"', "Citt\u00c3\u00a0+", b"Citt\xc3\xa0&"),
        (b'() "/" "R&D\xff"', "R&D\\xff", b"R&D\xff"),
        (b'() NIL "a \\"b\\" \\\\c"', 'a "b" \\c', b'a "b" \\c'),
        (b'() "\\\\" 2026', "2026", b"2026"),
        ((b'() "/" {5}', b'a"b&c'), 'a"b&c', b'a"b&c'),
    ],
)  # fmt: skip
def test_every_name_of_a_list(line: object, name: str, wire: bytes) -> None:
    """A name that nobody can decode is kept as the server spells it, whatever form it comes in."""
    found = listed_folders([b'() "/" INBOX', line, b"", None, b"nonsense", b'() "/" SMS'])

    assert list(found) == ["INBOX", name, "SMS"]
    assert found[name].wire == wire
    assert found["SMS"] == Listed(b"SMS", "/")


def test_somebody_elses_folder_name_hides_no_folder_of_ours(desk: Desk, scripted: ScriptedImap) -> None:
    """Our folder is read beside names that are no UTF-7; one of them can be configured as it is spelt."""
    script = scripted.script
    script.folders |= {"SMS": [Message(901, mail(1))], "R&D": [Message(1, mail(2))]}
    script.listed = [b'* LIST () "/" "&-&"', b'* LIST () "/" "Q&A 2026"', b"* LIST what?"]

    desk.thread(scripted.port, start=False, folders=["SMS", "R&D"]).run_once()

    assert desk.has(1, 2)


def test_a_search_answer_in_several_lines(desk: Desk, scripted: ScriptedImap) -> None:
    """Each untagged line counts, in a small folder and in one that is listed in windows."""
    script = scripted.script
    script.search_chunk = 39
    script.folders["INBOX"] = [Message(n, mail(n)) for n in range(1, 1001)]

    desk.thread(scripted.port, start=False).run_once()

    assert desk.has(*range(1, 1001))


def test_numbers_of_a_search() -> None:
    """MODSEQ is none of them, what no UID can be is left out, and what is no number is no answer."""
    assert searched_uids([b"1 2", None, b"3 (MODSEQ 917162500)", b""]) == {1, 2, 3}
    assert searched_uids([b"0 7 9223372036854775808 99999999999999999999999"]) == {7}
    with pytest.raises(Exception, match="no number"):
        searched_uids([b"1 abc"])
    assert [bounded_number(one) for one in (b"7", 7, 2**63, -1, b"9" * 5000, b"x", None)] == [
        7, 7, None, None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("count", [8, 1600])
@pytest.mark.parametrize("blind_to", [b"*", b""])
def test_a_search_that_finds_nothing_is_not_believed(
    desk: Desk, scripted: ScriptedImap, logged: list[dict[str, object]], count: int, blind_to: bytes
) -> None:
    """EXISTS contradicts it: the mails are listed by number, in the first pass and in later ones; it is
    said once, and a folder that really is empty is no contradiction."""

    def find_nothing(talk: Talk, command: str, words: bytes, tag: bytes) -> bool:
        if command != "UID SEARCH" or blind_to not in words:
            return False
        talk.send(b"* SEARCH\r\n")
        return talk.end(tag)

    scripted.script.on_command = find_nothing
    thread = desk.thread(scripted.port, start=False)
    thread.run_once()
    assert not [entry for entry in logged if entry["log_level"] == "warning"]

    scripted.script.folders["INBOX"] = [Message(n, mail(n)) for n in range(1, count + 1)]
    for _ in range(2):
        thread.run_once()
    scripted.add(mail(count + 1))
    thread.run_once()

    assert desk.has(*range(1, count + 2))
    warnings = [entry["event"] for entry in logged if entry["log_level"] == "warning"]
    assert warnings == [
        "the server's SEARCH contradicts what it says of the folder; mails are listed by number"
    ]


def test_a_search_that_finds_some_of_them_is_not_believed_either(desk: Desk, scripted: ScriptedImap) -> None:
    """Fewer than EXISTS says, and they are there."""

    def find_the_last(talk: Talk, command: str, words: bytes, tag: bytes) -> bool:
        if command != "UID SEARCH" or b"*" not in words:
            return False
        talk.send(b"* SEARCH %d\r\n" % talk.box[-1].uid)
        return talk.end(tag)

    scripted.script.on_command = find_the_last
    scripted.script.folders["INBOX"] = [Message(n, mail(n)) for n in range(1, 9)]

    desk.thread(scripted.port, start=False).run_once()

    assert desk.has(*range(1, 9))


def test_a_rescan_from_a_day_on_does_not_believe_it_either(desk: Desk, scripted: ScriptedImap) -> None:
    """Nothing since a day may be true: only where the whole folder is denied as well it is not."""
    scripted.script.folders["INBOX"] = [Message(n, mail(n)) for n in range(1, 4)]
    scripted.script.refuse["UID SEARCH"] = b"OK done"

    desk.thread(scripted.port, start=False).rescan("INBOX", desk.now.date())

    assert desk.has(1, 2, 3)


@pytest.mark.parametrize("uidvalidity", [str(2**63), str(2**70), "9" * 5000, "0", "-1"])
def test_a_uidvalidity_that_cannot_be_kept(desk: Desk, scripted: ScriptedImap, uidvalidity: str) -> None:
    """The folder is named as one that cannot be read; nothing reaches the writer."""
    scripted.script.uidvalidity = uidvalidity
    scripted.add(mail(1))

    with pytest.raises(IngestorError):
        desk.thread(scripted.port, start=False).run_once()

    assert read_cursor(desk.engine, "main", "INBOX") is None
    assert desk.writer.trouble is None


@pytest.mark.parametrize("exists", [3, 10**9, 2**40, 2**80])
def test_more_mails_said_than_there_are(desk: Desk, scripted: ScriptedImap, exists: int) -> None:
    """The count is not believed either: neither time nor memory grows with it."""

    def exaggerate(talk: Talk, command: str, words: bytes, tag: bytes) -> bool:
        if command == "EXAMINE":
            talk.folder = "INBOX"
            talk.send(b"* %d EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n" % exists)
            return talk.end(tag)
        return False

    scripted.script.on_command = exaggerate
    scripted.script.folders["INBOX"] = [Message(n, mail(n)) for n in range(1, 4)]

    desk.thread(scripted.port, start=False).run_once()

    assert desk.has(1, 2, 3)


def test_a_size_that_no_column_holds(desk: Desk, scripted: ScriptedImap) -> None:
    """RFC822.SIZE beyond 63 bits is as good as none."""

    def lie(talk: Talk, command: str, words: bytes, tag: bytes) -> bool:
        if command != "UID FETCH" or b"RFC822.SIZE" not in words:
            return False
        head = mail(1).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        size = b"RFC822.SIZE 9999999999999999999999"
        talk.send(b"* 1 FETCH (UID 1 %s BODY[HEADER] {%d}\r\n%s)\r\n" % (size, len(head), head))
        return talk.end(tag)

    scripted.script.on_command = lie
    scripted.add(mail(1))

    desk.thread(scripted.port, start=False).run_once()

    assert desk.has(1)


@pytest.mark.parametrize("command", ["GREETING", "CAPABILITY", "LOGIN", "EXAMINE"])
@pytest.mark.parametrize(
    "words", [b"* BYE overloaded\r\n", b"zzz999 OK done\r\n", b"\x00\xff HTTP/1.1 400 no\r\n"]
)
def test_a_farewell_or_nonsense_at_any_moment_is_a_server_that_cannot_be_reached(
    desk: Desk, scripted: ScriptedImap, logged: list[dict[str, object]], command: str, words: bytes
) -> None:
    """Neither a fault of the program nor a wrong password: a state of its own, and it is tried again."""

    def break_off(talk: Talk, name: str, _: bytes, __: bytes) -> bool:
        return name == command and talk.hang_up(words)

    scripted.script.on_command = break_off
    thread = desk.thread(scripted.port)
    until(lambda: scripted.commands.count(command) >= 2)
    assert thread.state == "unreachable"

    scripted.script.on_command = None
    scripted.add(mail(1))

    until(lambda: desk.has(1))
    assert not [entry for entry in logged if entry["log_level"] == "error"]


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (b"NO [ALERT] Application-specific password required: https://example.org/ (Failure)", False),
        (b"NO [ALERT] Invalid credentials (Failure)", False),
        (b"NO [PRIVACYREQUIRED] no", False),
        (b"NO [CONTACTADMIN] locked", False),
        (b"NO [ALERT] Too many simultaneous connections. (Failure)", True),
        (b"NO Maximum number of concurrent connections reached", True),
        (b"NO [UNAVAILABLE] Temporary authentication failure", True),
        (b"NO [LIMIT] slow down", True),
        (b"NO [INUSE] locked", True),
        (b"NO Server busy, please try again later", True),
    ],
)
def test_an_alert_at_the_login_is_a_refusal_like_any_other(
    desk: Desk, server: ImapServer, answer: bytes, passes: bool
) -> None:
    """Only what passes by itself is tried again soon; all else may lock the account."""
    server.faults.refuse["LOGIN"] = answer

    with pytest.raises(MailboxUnavailable if passes else CredentialsRefused):
        logged_in(desk.mailbox(server.port))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"[SERVERBUG] Your code is 4711-SECRETTEXT for +393351234567", "[SERVERBUG]"),
        (b"[OVERQUOTA] Quota exceeded (mailbox of anna@example.org)", "[OVERQUOTA] quota exceeded"),
        (
            b"[AUTHENTICATIONFAILED] Invalid credentials (Failure)",
            "[AUTHENTICATIONFAILED] invalid credentials",
        ),
        (b"Mailbox doesn't exist: Anna", "mailbox doesn't exist"),
        (b"[ANNA] hello", "in words of its own, which `ingestor check` shows on a terminal"),
        (b"temporary SECRET\r\n[ALERT] x", "in words of its own, which `ingestor check` shows on a terminal"),
    ],
)
def test_of_a_refusal_the_log_takes_what_is_known(said: bytes, shown: str) -> None:
    """Codes and sentences that name nothing but the fault; the rest may be anybody's mail."""
    with pytest.raises(Refused) as caught, speaking("host:993"):
        raise imaplib.IMAP4.error(said)

    assert str(caught.value) == f"host:993: it refuses ({shown})"
    assert caught.value.said.startswith(said.decode().split("+")[0].split("\r")[0].rstrip())


def test_a_refusal_that_quotes_a_mail_leaves_nothing_of_it(
    desk: Desk, scripted: ScriptedImap, logged: list[dict[str, object]]
) -> None:
    """Neither in the log nor in what `status` shows."""
    scripted.add(mail(1))
    for command in ("LOGIN", "EXAMINE", "UID SEARCH", "UID FETCH"):
        scripted.script.refuse = {command: b"NO [SERVERBUG] Your code is 4711-SECRETTEXT for +393351234567"}
        thread = desk.thread(scripted.port, name=command.replace(" ", "-"))
        until(lambda: scripted.commands.count(command) >= 2)  # noqa: B023 - it is used up at once
        thread.stop()
        assert thread.join(30)

    assert "SECRETTEXT" not in repr(logged)
    assert not [one for one in desk.column("SELECT detail FROM sources") if "SECRETTEXT" in str(one)]


def test_redacting_hostile_text_takes_linear_time() -> None:
    """Words of a server may be many blank lines; each is looked at once."""
    assert redact("DETAIL:" + "\n" * 200_000 + "x").endswith("x")


def test_a_flood_in_idle_is_polled_instead(
    desk: Desk, scripted: ScriptedImap, logged: list[dict[str, object]]
) -> None:
    """Pushes without end are neither kept nor read for long: the mailbox goes on without IDLE."""

    def flood(talk: Talk, command: str, _: bytes, __: bytes) -> bool:
        if command == "IDLE":
            talk.send(b"+ idling\r\n")
            while True:
                talk.send(b"".join(b"* %d EXISTS\r\n" % n for n in range(20_000)))
        return False

    scripted.script.on_command = flood
    scripted.add(mail(1))
    thread = desk.thread(scripted.port, timing=OFTEN)
    until(lambda: desk.has(1) and thread.state == "polling")

    scripted.add(mail(2))
    until(lambda: desk.has(1, 2))
    assert scripted.commands.count("IDLE") == 1
    assert [entry["event"] for entry in logged].count(
        "the server pushes without end in IDLE; it is polled for an hour"
    ) == 1


@pytest.mark.parametrize("command", ["UID SEARCH", "LIST"])
def test_an_answer_of_endless_lines_is_bounded(desk: Desk, scripted: ScriptedImap, command: str) -> None:
    """So many lines are a fault of the server, in a sentence; we come back when it has stopped."""

    def flood(talk: Talk, name: str, _: bytes, __: bytes) -> bool:
        if name == command:
            while True:
                talk.send(b"* 1 EXISTS\r\n" * 20_000)
        return False

    scripted.script.on_command = flood
    scripted.script.folders["SMS"] = [Message(1, mail(1))]
    thread = desk.thread(scripted.port, folders=["SMS"])
    until(lambda: "more than was asked for" in str(desk.column("SELECT detail FROM sources")))
    assert thread.state == "unreachable"

    scripted.script.on_command = None

    until(lambda: desk.has(1))


@pytest.mark.parametrize("answer", [b"NO [UNAVAILABLE] cannot list", b"BAD what", b"OK there are none"])
def test_a_server_that_lists_no_folder(desk: Desk, scripted: ScriptedImap, answer: bytes) -> None:
    """The configured one is opened by its name; one that is not there is named as ever."""
    scripted.script.folders["SMS"] = [Message(1, mail(1))]
    scripted.script.refuse["LIST"] = answer

    desk.thread(scripted.port, start=False, folders=["SMS"]).run_once()

    assert desk.has(1)
    with pytest.raises(FolderMissing, match=r"'Nope' cannot be opened.*NONEXISTENT"):
        desk.thread(scripted.port, start=False, folders=["Nope"]).run_once()


def test_a_namespace_that_cannot_be_read(desk: Desk, scripted: ScriptedImap) -> None:
    """Somebody else's prefix hides no folder either."""
    scripted.script.capabilities += " NAMESPACE"
    scripted.script.folders["SMS"] = [Message(1, mail(1))]

    def odd(talk: Talk, command: str, _: bytes, tag: bytes) -> bool:
        if command == "NAMESPACE":
            talk.send(b'* NAMESPACE (("R&D/" "/")) NIL NIL\r\n')
            return talk.end(tag)
        return False

    scripted.script.on_command = odd

    desk.thread(scripted.port, start=False, folders=["SMS"]).run_once()

    assert desk.has(1)


def test_a_greeting_that_logs_us_in(desk: Desk, scripted: ScriptedImap) -> None:
    """Nobody knows whose mailbox that is; it is no wrong password, and the password is not sent."""
    scripted.script.on_command = lambda talk, command, _, __: (
        command == "GREETING" and talk.send(b"* PREAUTH welcome\r\n") is None
    )

    with pytest.raises(MailboxUnavailable, match="PREAUTH"):
        logged_in(desk.mailbox(scripted.port))
    assert "LOGIN" not in scripted.commands


def test_a_name_whose_accents_stand_apart(desk: Desk, scripted: ScriptedImap) -> None:
    """A server that keeps names decomposed has the folder that a person writes in one letter."""
    scripted.script.folders["Citta&AwA-"] = [Message(1, mail(1))]

    desk.thread(scripted.port, start=False, folders=["Citt\u00e0"]).run_once()

    assert desk.has(1)


def test_names_without_end_hold_nothing_up(desk: Desk, scripted: ScriptedImap) -> None:
    """Of what a hostile server lists little is compared and shown."""
    scripted.script.listed = [b'* LIST () "/" "%s%d"' % (b"x" * 2000, n) for n in range(5000)]
    scripted.script.listed.append(b'* LIST () "/" "Archive"')

    with pytest.raises(FolderMissing, match=r"near it are Archive$"):
        desk.thread(scripted.port, start=False, folders=["Archiv"]).run_once()
