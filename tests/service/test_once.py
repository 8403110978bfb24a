"""`run --once`: one pass over every mailbox, then the balance and an honest exit code."""

import json
import os
import stat
from pathlib import Path

import pytest

from ingestor.archive import migrate
from tests.archive.reading import opened, spoil
from tests.sample_mails import generate
from tests.servers.imap.server import ImapServer
from tests.service.archive import rows
from tests.service.process import configuration, mailbox, running, until

MAILS = list(generate(50, seed=71))


def test_a_pass_reads_everything_and_ends(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """Exit 0 with the balance as the last line; a second pass reads nothing, and a third only what is new."""
    for mail in MAILS:
        server.deliver(mail.raw)
    config = configuration(tmp_path, sqlite_url, mailbox(server.port))
    for expected in (50, 0, 1):
        with running(config, "run", "--once", "--json") as once:
            assert once.process.wait(60) == 0, once.log_path.read_text()
            balance = json.loads(once.said.splitlines()[-1])
        assert balance["read"] == expected
        server.deliver(MAILS[0].raw) if not expected else None

    assert rows(sqlite_url, "SELECT count(*) FROM runs WHERE ended_at IS NULL") == [(0,)]
    assert list(balance) == [
        "run", "read", "stored", "duplicate", "ignored", "quarantined", "failed", "seconds",
    ]  # fmt: skip


def test_one_failing_mailbox_does_not_stop_the_others(
    server: ImapServer, tmp_path: Path, sqlite_url: str
) -> None:
    """The healthy mailbox is read whole, the other one is named with its reason, and the exit code is 1."""
    for mail in MAILS:
        server.deliver(mail.raw)
    blocks = mailbox(server.port, "sound"), mailbox(server.port, "locked", password="wrong-one")
    with running(configuration(tmp_path, sqlite_url, *blocks), "run", "--once", "--json") as once:
        assert once.process.wait(60) == 1
        assert json.loads(once.said.splitlines()[-1])["read"] == 50
        complaints = once.log_path.read_text()

    assert "ingestor: mailbox locked:" in complaints
    assert complaints.count("refuses the user name or password") == 1
    assert "wrong-one" not in complaints


def test_without_a_mailbox_there_is_nothing_to_do(tmp_path: Path, sqlite_url: str) -> None:
    """A webhook alone cannot be read once: wrong usage."""
    webhook = '[webhook]\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    with running(configuration(tmp_path, sqlite_url, webhook), "run", "--once") as once:
        assert once.process.wait(60) == 2


def test_an_absent_database_is_not_waited_for(server: ImapServer, tmp_path: Path) -> None:
    """Somebody waits for this command: it says what is wrong and exits with 1."""
    config = configuration(tmp_path, "postgresql+psycopg://a@127.0.0.1:9/b", mailbox(server.port))
    with running(config, "run", "--once") as once:
        assert once.process.wait(60) == 1
        assert "PostgreSQL" in once.log_path.read_text()


def test_a_database_that_refuses_every_sms_is_no_success(
    server: ImapServer, tmp_path: Path, sqlite_url: str
) -> None:
    """What was read is kept in the quarantine, and the exit code says that somebody must look."""
    for mail in generate(5, seed=3, unrelated=0, broken=0):
        server.deliver(mail.raw)
    with opened(sqlite_url) as engine:
        migrate.upgrade(engine)
        spoil(engine)
    with running(configuration(tmp_path, sqlite_url, mailbox(server.port)), "run", "--once") as once:
        assert once.process.wait(60) == 1
        assert "mailbox main: the database refuses every item" in once.log_path.read_text()
        assert once.events("the database refuses every item; they wait in the quarantine")


def test_a_signal_ends_a_pass(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """SIGTERM during a hung read: the pass ends in time and cleanly, and says that it is not whole."""
    server.faults.silent = True
    with running(configuration(tmp_path, sqlite_url, mailbox(server.port)), "run", "--once") as once:
        until(lambda: server.connections, "a connection")
        assert once.stop() == 0
        assert once.events("mailbox not read to its end")

    assert rows(sqlite_url, "SELECT count(*) FROM runs WHERE ended_at IS NULL") == [(0,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own files as somebody else")
def test_root_is_told_whose_archive_it_is(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """In another user's state directory the exact sudo line is printed and nothing is left behind."""
    os.chown(tmp_path, 65534, 65534)
    tmp_path.chmod(stat.S_IRWXU)
    with running(configuration(tmp_path, sqlite_url, mailbox(server.port)), "run", "--once") as once:
        assert once.process.wait(60) == 2
        assert "sudo -u nobody" in once.log_path.read_text()

    assert not (tmp_path / "archive.db").exists()
