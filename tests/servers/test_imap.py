"""The demo's own IMAP server, held to the protocol by a stock client."""

import imaplib
from collections.abc import Iterator

import pytest
from imapclient import IMAPClient

from tests.servers.imap.box import Box
from tests.servers.imap.server import ImapServer

MAIL = b"From: a@example.org\r\nSubject: two\r\n lines\r\nX-Other: no\r\n\r\nbody\r\n"


@pytest.fixture
def server() -> Iterator[ImapServer]:
    """The server with three mails in INBOX."""
    with ImapServer({"INBOX": Box(5, first_uid=10), "Archive": Box(6)}).running() as running:
        for _ in range(3):
            running.deliver(MAIL)
        yield running


@pytest.fixture
def client(server: ImapServer) -> Iterator[IMAPClient]:
    """imapclient, logged in."""
    opened = IMAPClient("127.0.0.1", server.port, ssl=False)
    opened.login("demo", "demo")
    yield opened
    opened.logout()


def test_folders(client: IMAPClient) -> None:
    """LIST, NAMESPACE, STATUS, CREATE and EXAMINE say what is there."""
    assert [name for _, _, name in client.list_folders()] == ["INBOX", "Archive"]
    assert client.namespace().personal == (("", "/"),)
    client.create_folder("New")
    assert client.folder_exists("New")
    assert client.folder_status("INBOX")[b"MESSAGES"] == 3
    opened = client.select_folder("inbox", readonly=True)
    assert (opened[b"UIDVALIDITY"], opened[b"UIDNEXT"], opened[b"EXISTS"]) == (5, 13, 3)


def test_searches(client: IMAPClient) -> None:
    """Sequence sets, UID sets with the star's old trap, and flags."""
    client.select_folder("INBOX")
    client.add_flags([11], [b"\\Seen"], silent=True)
    assert client.search("ALL") == [10, 11, 12]
    assert client.search("UID 11:*") == [11, 12]
    assert client.search("UID 99:*") == [12]
    assert client.search("2:3") == [11, 12]
    assert client.search("UNSEEN") == [10, 12]


def test_fetches(client: IMAPClient) -> None:
    """Whole mails, parts of them, picked header fields with their folded lines, sizes and flags."""
    client.select_folder("INBOX")
    row = client.fetch([11], ["BODY.PEEK[]", "RFC822.SIZE", "FLAGS", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"])[
        11
    ]
    assert row[b"BODY[]"] == MAIL
    assert row[b"RFC822.SIZE"] == len(MAIL)
    assert row[b"FLAGS"] == ()
    assert row[b"BODY[HEADER.FIELDS (SUBJECT)]"] == b"Subject: two\r\n lines\r\n\r\n"
    assert client.fetch([11], ["BODY.PEEK[]<6.13>"])[11][b"BODY[]<6>"] == MAIL[6:19]
    assert client.fetch([12], ["BODY[]"])[12][b"BODY[]"] == MAIL
    assert client.get_flags([12])[12] == (b"\\Seen",)


def test_changes(client: IMAPClient, server: ImapServer) -> None:
    """MOVE, COPY, APPEND with a literal, UID EXPUNGE; everybody who watches is told."""
    other = IMAPClient("127.0.0.1", server.port, ssl=False)
    other.login("demo", "demo")
    other.select_folder("INBOX")
    client.select_folder("INBOX")
    client.move([10], "Archive")
    client.copy([11], "Archive")
    client.append("Archive", MAIL)
    client.delete_messages([12], silent=True)
    client.uid_expunge([12])
    assert client.search("ALL") == [11]
    assert other.noop()[1] == [] or other.search("ALL") == [11]
    assert client.folder_status("Archive")[b"MESSAGES"] == 3
    other.logout()


def test_idle_pushes(client: IMAPClient, server: ImapServer) -> None:
    """A delivery is pushed into IDLE."""
    client.select_folder("INBOX")
    client.idle()
    server.deliver(MAIL)
    assert client.idle_check(10) == [(4, b"EXISTS")]
    client.idle_done()


def test_who_may_come_in(server: ImapServer) -> None:
    """Only the one account; nothing works before the login, and unknown commands are BAD."""
    stranger = imaplib.IMAP4("127.0.0.1", server.port)
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        stranger.login("demo", "wrong")
    with pytest.raises(imaplib.IMAP4.error, match="BAD"):
        stranger.xatom("BLURDYBLOOP")
    stranger.logout()
