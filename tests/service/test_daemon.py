"""The daemon as a service manager sees it: start, work, reload, stop."""

import json
import re
import socket
import sqlite3
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from tests.sample_mails import SampleMail, generate
from tests.servers.imap.server import ImapServer
from tests.service.archive import read_so_far, rows, stored
from tests.service.process import configuration, mailbox, running, until

MAILS = list(generate(40, seed=11))
WEBHOOK = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'


@pytest.fixture(autouse=True)
def _delivered(server: ImapServer) -> None:
    """Forty mails lie in the mailbox."""
    for mail in MAILS:
        server.deliver(mail.raw)


def _expected(mails: list[SampleMail]) -> list[tuple[str, ...]]:
    return sorted({tuple(mail.expected.values()) for mail in mails if mail.expected is not None})


def test_it_starts_works_and_stops_in_order(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """READY after the start, each mail archived, STOPPING and exit 0 on SIGTERM, and the run's row closed."""
    with running(configuration(tmp_path, sqlite_url, mailbox(server.port)), fork=False) as daemon:
        daemon.wait_ready()
        until(lambda: read_so_far(sqlite_url) == len(MAILS), "all mails read")
        server.deliver(next(generate(1, seed=12, unrelated=0, broken=0)).raw)
        until(lambda: read_so_far(sqlite_url) == len(MAILS) + 1, "the live mail read")
        assert daemon.stop() == 0
        assert daemon.heard[-1].startswith("STOPPING=1")
        balance = json.loads(daemon.said.splitlines()[-1])

    assert balance["read"] == len(MAILS) + 1
    assert balance["read"] == sum(balance[name] for name in ("stored", "duplicate", "ignored", "quarantined"))
    assert len(stored(sqlite_url)) == balance["stored"] == len(_expected(MAILS)) + 1
    assert rows(sqlite_url, "SELECT count(*) FROM runs WHERE ended_at IS NULL") == [(0,)]


@pytest.mark.parametrize("command", ["LOGIN", "UID FETCH", "IDLE"])
def test_a_hung_read_does_not_delay_the_stop(
    server: ImapServer, tmp_path: Path, made_url: str, command: str
) -> None:
    """SIGTERM while a command is never answered: exit 0, well within systemd's patience."""

    def fall_silent(name: str, _arguments: bytes) -> None:
        server.faults.silent = server.faults.silent or name == command

    server.faults.on_command = fall_silent
    with running(configuration(tmp_path, made_url, mailbox(server.port))) as daemon:
        daemon.wait_ready()
        until(lambda: server.faults.silent, "a command that gets no answer")

        assert daemon.stop() == 0


def test_a_reload_takes_mailboxes_and_numbers_over(server: ImapServer, tmp_path: Path, made_url: str) -> None:
    """After SIGHUP a new mailbox is read, and mail for a number that is no longer ours is quarantined."""
    other = ImapServer()
    sms = next(mail for mail in generate(9, seed=21, unrelated=0, broken=0) if mail.expected)
    with other.running():
        other.deliver(sms.raw)
        with running(configuration(tmp_path, made_url, mailbox(server.port))) as daemon:
            daemon.wait_ready()
            until(lambda: read_so_far(made_url) == len(MAILS), "all mails read")
            configuration(
                tmp_path, made_url, '[agile]\nnumbers = ["+393990000000"]', mailbox(other.port, "second")
            )
            daemon.reload()
            until(lambda: read_so_far(made_url) == len(MAILS) + 1, "the new mailbox read")
            assert daemon.stop() == 0

    assert rows(made_url, "SELECT source FROM quarantine ORDER BY id DESC LIMIT 1") == [("second",)]
    until(lambda: server.connections == 0, "the old one left")


BAD = [
    ("[agile]\nsendr = 'x@example.org'\n", "sender"),
    ("[[mailbox]]\nname = 'x'\n", "host"),
    ("[database\n", "TOML"),
    ("[agile]\nnumbers = []\n", "nothing to read"),
]


def test_a_bad_reload_is_refused_and_the_old_configuration_stays(
    server: ImapServer, tmp_path: Path, made_url: str
) -> None:
    """The reason is in the log and in the status, the manager is told READY, and mail goes on arriving."""
    with running(configuration(tmp_path, made_url, mailbox(server.port))) as daemon:
        daemon.wait_ready()
        until(lambda: read_so_far(made_url) == len(MAILS), "all mails read")
        for times, (new, reason) in enumerate(BAD, 1):
            daemon.config.write_text(new)
            daemon.reload(times)
            assert reason in daemon.events("reload refused")[-1]["reason"]
            assert any("reload refused" in message for message in daemon.heard)
        configuration(tmp_path, made_url, mailbox(server.port))
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d" / "site.toml").write_text('[database]\nurl = "sqlite:///other.db"\n')
        daemon.reload(len(BAD) + 1)
        assert re.search(
            r"conf\.d/site\.toml:2: .*ingestor\.toml:2", daemon.events("reload refused")[-1]["reason"]
        )

        server.deliver(MAILS[0].raw)
        until(lambda: read_so_far(made_url) == len(MAILS) + 1, "mail after the refused reloads")
        assert daemon.stop() == 0


def test_a_reload_says_what_needs_a_restart(server: ImapServer, tmp_path: Path, made_url: str) -> None:
    """A changed database or listener is named, and the old one goes on."""
    with running(configuration(tmp_path, made_url, mailbox(server.port))) as daemon:
        daemon.wait_ready()
        configuration(tmp_path, f"{made_url}.other", mailbox(server.port), WEBHOOK)
        daemon.reload()
        assert [line["changed"] for line in daemon.events("a restart is needed")] == ["database", "webhook"]

        server.deliver(MAILS[0].raw)
        until(lambda: read_so_far(made_url) == len(MAILS) + 1, "mail into the old archive")
        assert daemon.stop() == 0


def test_the_watchdog_is_fed_by_a_working_daemon(server: ImapServer, tmp_path: Path, made_url: str) -> None:
    """With WATCHDOG_USEC set WATCHDOG=1 comes, again and again, and the status shows the balance."""
    with running(
        configuration(tmp_path, made_url, mailbox(server.port)), environment={"WATCHDOG_USEC": "3000000"}
    ) as daemon:
        daemon.wait_heard("WATCHDOG=1", 2)
        assert daemon.stop() == 0


def test_what_the_manager_shows_is_true_from_the_first_second(
    server: ImapServer, tmp_path: Path, made_url: str
) -> None:
    """After a restart READY carries how the mailbox fares now, not the last word of the run before."""
    config = configuration(tmp_path, made_url, mailbox(server.port))
    for _ in range(2):
        with running(config) as daemon:
            until(lambda daemon=daemon: "main: watching" in str(daemon.heard), "it watches")
            assert daemon.stop() == 0
            told = [one for one in daemon.heard if "STATUS=" in one and "STOPPING" not in one]
            told = [one for one in told if "waiting for the archive" not in one]  # opening it may take long

    assert re.search(r"STATUS=0 read = .*; main: (starting|watching|polling)$", told[0]), told
    assert not any("stopped" in one for one in told)


def test_an_unreachable_mailbox_is_no_reason_to_be_killed(tmp_path: Path, made_url: str) -> None:
    """Retrying a dead server is progress: READY comes, the watchdog is fed, and the log says it once."""
    with running(
        configuration(tmp_path, made_url, mailbox(9)), environment={"WATCHDOG_USEC": "3000000"}
    ) as daemon:
        daemon.wait_ready()
        daemon.wait_heard("WATCHDOG=1", 3)
        assert daemon.stop() == 0


def test_nothing_configured_is_said_in_one_line(tmp_path: Path, made_url: str) -> None:
    """Without mailbox and webhook `run` exits with 2, which systemd does not restart."""
    with running(configuration(tmp_path, made_url)) as daemon:
        assert daemon.process.wait(20) == 2
        lines = [line for line in daemon.log_path.read_text().splitlines() if line.startswith("ingestor:")]

    assert len(lines) == 1
    assert "[[mailbox]]" in lines[0]


def test_a_database_that_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    """A mistyped URL is a matter of the configuration: exit code 2, and no waiting."""
    with running(configuration(tmp_path, f"sqlite:///{tmp_path}/nowhere/archive.db", mailbox(9))) as daemon:
        assert daemon.process.wait(20) == 2
        assert "nowhere does not exist" in daemon.log_path.read_text()


def test_a_newer_schema_is_refused(server: ImapServer, tmp_path: Path, made_url: str) -> None:
    """An archive that a newer program made ends the start with exit code 2."""
    config = configuration(tmp_path, made_url, mailbox(server.port))
    with closing(sqlite3.connect(tmp_path / "archive.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with running(config) as daemon:
        assert daemon.process.wait(20) == 2


def test_two_daemons_on_one_archive_store_each_sms_once(
    server: ImapServer, tmp_path: Path, made_url: str
) -> None:
    """A second copy with the same configuration just works, and doubles nothing."""
    config = configuration(tmp_path, made_url, mailbox(server.port))
    with running(config) as first, running(config) as second:
        first.wait_ready()
        second.wait_ready()
        for mail in generate(20, seed=33, unrelated=0, broken=0):
            server.deliver(mail.raw)
        wanted = _expected(MAILS + list(generate(20, seed=33, unrelated=0, broken=0)))
        until(lambda: stored(made_url) == wanted, "each SMS once")
        assert first.stop() == 0
        assert second.stop() == 0

    assert stored(made_url) == wanted


def test_a_daemon_with_a_webhook_serves_both(server: ImapServer, tmp_path: Path, made_url: str) -> None:
    """Mailbox and listener share the writer: an SMS that came both ways is one row with one more arrival."""
    sms = next(mail.expected for mail in MAILS if mail.expected is not None)
    with running(configuration(tmp_path, made_url, mailbox(server.port), WEBHOOK)) as daemon:
        daemon.wait_ready()
        until(lambda: read_so_far(made_url) == len(MAILS), "all mails read")
        [[before]] = rows(made_url, "SELECT sum(arrivals) FROM inbound_sms")
        port = daemon.events("webhook listening")[0]["port"]
        body = urllib.parse.urlencode(sms).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", body) as answer:
            assert answer.read() == b"+OK"
        kinds = "SELECT kind FROM sources WHERE state IN ('watching', 'listening') ORDER BY kind"
        until(lambda: rows(made_url, kinds) == [("mailbox",), ("webhook",)], "both sources noted")
        assert daemon.stop() == 0

    assert stored(made_url) == _expected(MAILS)
    assert rows(made_url, "SELECT sum(arrivals) FROM inbound_sms") == [(int(str(before)) + 1,)]


def test_a_taken_port_is_said_in_one_line(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """A listener that cannot listen ends the start in order with exit code 2: only a person can mend it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        webhook = WEBHOOK.replace(":0", f":{taken.getsockname()[1]}")
        with running(configuration(tmp_path, sqlite_url, mailbox(server.port), webhook)) as daemon:
            assert daemon.process.wait(30) == 2
            said = [line for line in daemon.log_path.read_text().splitlines() if line.startswith("ingestor:")]

    assert len(said) == 1
    assert not (tmp_path / "archive.db").exists()


def test_a_missing_state_directory_is_said_and_not_made(tmp_path: Path) -> None:
    """A mistyped place ends the start with exit code 2; no spool is made there behind anybody's back."""
    with running(configuration(tmp_path, f"sqlite:///{tmp_path}/nowhere/archive.db", WEBHOOK)) as daemon:
        assert daemon.process.wait(30) == 2
        assert "nowhere does not exist" in daemon.log_path.read_text()

    assert not (tmp_path / "nowhere").exists()


def test_the_environment_goes_before_the_file(server: ImapServer, tmp_path: Path, made_url: str) -> None:
    """INGESTOR_DATABASE_URL names the archive for the daemon too."""
    config = configuration(tmp_path, "sqlite:////nowhere/at/all.db", mailbox(server.port))
    with running(config, environment={"INGESTOR_DATABASE_URL": made_url}) as daemon:
        daemon.wait_ready()
        until(lambda: read_so_far(made_url) == len(MAILS), "all mails read")
        assert daemon.stop() == 0
