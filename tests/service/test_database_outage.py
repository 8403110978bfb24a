"""PostgreSQL that is absent at boot, goes away in the middle, or hangs: nothing lost, nothing doubled."""

import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.sample_mails import generate
from tests.servers.fault_proxy import FaultProxy
from tests.servers.imap.server import ImapServer
from tests.servers.postgresql import PostgresqlServer
from tests.service.archive import read_so_far, rows, stored
from tests.service.process import Running, configuration, mailbox, running, until

pytestmark = pytest.mark.postgresql

MAILS = list(generate(60, seed=41))
EXPECTED = sorted({tuple(mail.expected.values()) for mail in MAILS if mail.expected is not None})


@pytest.mark.parametrize("refused", [True, False])
def test_absent_at_boot(
    postgresql: PostgresqlServer, server: ImapServer, tmp_path: Path, refused: bool
) -> None:
    """The start ends in seconds with READY and the reason, whether the database refuses or never answers.

    It is said once, the watchdog is fed meanwhile, and all goes on when the database is there.
    """
    for mail in MAILS:
        server.deliver(mail.raw)
    url = postgresql.url("archive")
    proxy = FaultProxy(postgresql.port)
    if refused:
        postgresql.stop()
    else:
        proxy.plan.blackhole = True
    with proxy.running():
        through = url if refused else url.replace(str(postgresql.port), str(proxy.port))
        config = configuration(tmp_path, through, mailbox(server.port))
        with running(config, environment={"WATCHDOG_USEC": "3000000"}) as daemon:
            daemon.wait_heard("READY=1\nSTATUS=waiting for the archive: ")
            daemon.wait_heard("WATCHDOG=1", daemon.heard.count("WATCHDOG=1") + 3)
            assert not daemon.events("daemon started")
            said = len(daemon.events("the archive is waited for"))
            assert said == 1 if refused else said <= 1  # a try that hangs may have ended by now
            proxy.plan.blackhole = False
            if refused:
                postgresql.start()
            daemon.wait_ready()
            until(lambda: read_so_far(url) == len(MAILS), "all mails read")
            daemon.wait_heard("STATUS=60 read")
            assert sum(message.startswith("READY=1") for message in daemon.heard) == 1
            assert daemon.stop() == 0

    assert stored(url) == EXPECTED


def test_posts_are_taken_while_the_database_is_absent_at_boot(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    """The listener serves before there is an archive: a POST is spooled, acknowledged, and stored later.

    So it is across a kill -9 in between, and the replayed POSTs count for the run that stored them.
    """
    webhook = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    sent = [mail.expected for mail in MAILS if mail.expected is not None][:3]

    def post(daemon: Running, sms: dict[str, str]) -> bytes:
        port = until(lambda: daemon.events("webhook listening"), "the listener")[0]["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", urlencode(sms).encode()) as answer:
            return bytes(answer.read())

    url = postgresql.url("archive")
    config = configuration(tmp_path, url, webhook)
    postgresql.drop("archive")
    postgresql.create("archive")
    postgresql.stop()
    with running(config) as daemon:
        assert post(daemon, sent[0]) == b"+OK"
        daemon.kill()
    with running(config) as daemon:
        assert post(daemon, sent[1]) == b"+OK"
        postgresql.start()
        daemon.wait_ready()
        assert post(daemon, sent[2]) == b"+OK"
        until(lambda: read_so_far(url) == len(sent), "every POST stored")
        assert daemon.stop() == 0

    assert stored(url) == sorted({tuple(sms.values()) for sms in sent})
    assert rows(url, "SELECT read, ended_at IS NOT NULL FROM runs") == [(len(sent), True)]


def test_a_stop_while_waiting_at_boot(
    postgresql: PostgresqlServer, server: ImapServer, tmp_path: Path
) -> None:
    """SIGTERM ends the waiting with exit code 0."""
    url = postgresql.url("archive")
    postgresql.stop()
    with running(configuration(tmp_path, url, mailbox(server.port))) as daemon:
        daemon.wait_heard("READY=1\nSTATUS=waiting for the archive: ")
        assert daemon.stop() == 0


def test_stopped_and_started_in_the_middle(
    postgresql: PostgresqlServer, server: ImapServer, tmp_path: Path
) -> None:
    """Mail that comes while the database is away waits on its server; the watchdog goes on being fed."""
    url = postgresql.url("archive")
    config = configuration(tmp_path, url, mailbox(server.port, poll_seconds=1))
    with running(config, environment={"WATCHDOG_USEC": "3000000"}, fork=False) as daemon:
        daemon.wait_ready()
        for mail in MAILS[:20]:
            server.deliver(mail.raw)
        until(lambda: read_so_far(url) == 20, "the first mails read")
        for begin in (20, 40):
            postgresql.stop()
            for mail in MAILS[begin : begin + 20]:
                server.deliver(mail.raw)
            fed = daemon.heard.count("WATCHDOG=1")
            daemon.wait_heard("WATCHDOG=1", fed + 2)
            postgresql.start()
            until(lambda wanted=begin + 20: read_so_far(url) == wanted, "the mails of the outage read")
        assert daemon.stop() == 0

    assert stored(url) == EXPECTED
    assert rows(url, "SELECT read - stored - duplicate - ignored - quarantined - failed FROM runs") == [(0,)]
    assert server.call(lambda: [sorted(message.flags) for message in server.boxes["INBOX"].messages]) == [
        [] for _ in MAILS
    ]


def test_a_stop_during_an_outage(postgresql: PostgresqlServer, server: ImapServer, tmp_path: Path) -> None:
    """SIGTERM while the database is away: exit 0 in time, and the next start reads what waited."""
    url = postgresql.url("archive")
    config = configuration(tmp_path, url, mailbox(server.port, poll_seconds=1))
    with running(config) as daemon:
        daemon.wait_ready()
        postgresql.stop()
        for mail in MAILS:
            server.deliver(mail.raw)
        # Who meets it first says it: the mailbox that asks the archive, or the writer that has its mails.
        said = ("mailbox waits for the archive", "the archive takes no writes; intake waits and tries again")
        until(lambda: any(map(daemon.events, said)), "the outage in the log")
        assert daemon.stop() == 0
    postgresql.start()
    with running(config) as daemon:
        daemon.wait_ready()
        until(lambda: read_so_far(url) >= len(MAILS), "all mails read")
        assert daemon.stop() == 0

    assert stored(url) == EXPECTED


def test_a_stop_while_the_database_hangs(
    postgresql: PostgresqlServer, server: ImapServer, tmp_path: Path
) -> None:
    """SIGTERM while the database takes everything and answers nothing: exit 0 in time, nothing lost."""
    proxy = FaultProxy(postgresql.port)
    with proxy.running():
        url = postgresql.url("archive").replace(str(postgresql.port), str(proxy.port))
        config = configuration(tmp_path, url, mailbox(server.port, poll_seconds=1))
        with running(config) as daemon:
            daemon.wait_ready()
            until(lambda: daemon.events("mailbox is read"), "the mailbox watched")
            proxy.plan.blackhole = True
            for mail in MAILS:
                server.deliver(mail.raw)
            time.sleep(1.5)  # longer than a poll: by now the mailbox or the writer hangs in the database
            assert daemon.stop() == 0
    with running(configuration(tmp_path, postgresql.url("archive"), mailbox(server.port))) as daemon:
        daemon.wait_ready()
        until(lambda: stored(postgresql.url("archive")) == EXPECTED, "every SMS")
        assert daemon.stop() == 0
