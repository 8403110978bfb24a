"""A primary whose standby is promoted: what was acknowledged is in the new one, once."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.errors import IngestorError
from tests.sample_mails import generate
from tests.servers.imap.box import Box
from tests.servers.imap.server import ImapServer
from tests.servers.postgresql import PostgresqlServer
from tests.service.archive import read_so_far, rows
from tests.service.process import Running, configuration, mailbox, running, until

pytestmark = pytest.mark.postgresql


@pytest.fixture
def standby(postgresql: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A standby that every commit of the primary waits for."""
    server = postgresql.standby()
    yield server
    server.close()
    postgresql.start()
    postgresql.wait_for_standby("")


class Load(threading.Thread):
    """Posts one SMS after the other, and notes which were acknowledged."""

    def __init__(self, port: int, first: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self.halt = threading.Event()
        self._port, self._number = port, first

    def run(self) -> None:
        """Post until `halt` is set; what is refused is not sent again."""
        while not self.halt.is_set():
            self._number += 1
            sms = {"originator": "+393351234567", "destination": "+393331234333", "text": str(self._number)}
            body = urlencode({**sms, "date_time": "20260301130000"}).encode()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/a", body) as answer:
                    if answer.read() == b"+OK":
                        self.acknowledged.append(sms["text"])
            except (urllib.error.URLError, OSError):
                continue


def test_a_standby_is_promoted_under_load(
    postgresql: PostgresqlServer, standby: PostgresqlServer, tmp_path: Path
) -> None:
    """The primary dies between any two statements; the daemon finds the new one by the URL's hosts."""
    hosts = f"host=127.0.0.1:{postgresql.port}&host=127.0.0.1:{standby.port}"
    webhook = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    config = configuration(tmp_path, f"postgresql+psycopg://app@/archive?{hosts}", webhook)
    with running(config) as daemon:
        daemon.wait_ready()
        port = daemon.events("webhook listening")[0]["port"]
        clients = [Load(port, number * 1_000_000) for number in range(3)]
        for client in clients:
            client.start()
        until(lambda: sum(len(client.acknowledged) for client in clients) >= 60, "some POSTs")
        postgresql.stop()
        standby.promote()
        new = standby.url("archive")
        before = len(rows(new, "SELECT 1 FROM sms"))
        until(lambda: len(rows(new, "SELECT 1 FROM sms")) > before + 20, "the daemon at the new primary")
        for client in clients:
            client.halt.set()
        for client in clients:
            client.join()
        sent = {text for client in clients for text in client.acknowledged}
        until(lambda: sent <= {text for (text,) in rows(new, "SELECT text FROM inbound_sms")}, "every POST")
        assert rows(new, "SELECT count(*) - count(DISTINCT text) FROM inbound_sms") == [(0,)]
        assert rows(new, "SELECT sum(stored) - (SELECT count(*) FROM sms) FROM runs") == [(0,)]
        said = daemon.events("the archive takes no writes; intake waits and tries again")
        assert all("local socket" not in line["reason"] for line in said)
        assert daemon.stop() == 0


WEBHOOK = """[webhook]
listen = "127.0.0.1:0"
spool_first = true
[[webhook.endpoint]]
path = "/a"
provider = "agile"
"""


@pytest.fixture
def lagging(postgresql: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A standby that no commit waits for; it knows the schema."""
    ensured(postgresql.url("archive"))
    server = postgresql.standby(synchronous=False)
    yield server
    server.close()
    postgresql.stop()
    postgresql.start()


def ensured(url: str) -> None:
    """Make the schema."""
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    engine.dispose()


def post(daemon: Running, text: str) -> None:
    """Post an SMS, and see it acknowledged."""
    port = until(lambda: daemon.events("webhook listening"), "the listener")[0]["port"]
    sms = {"originator": "+393351234567", "destination": "+393331234333", "text": text}
    body = urlencode({**sms, "date_time": "20260301130000"}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", body) as answer:
        assert answer.read() == b"+OK"


class Both:
    """Two mailboxes: mails stay in the one, and are moved away in the other once they are stored."""

    def __init__(self, stays: ImapServer, moves: ImapServer) -> None:
        self.boxes = (stays, moves)
        mails = [mail for mail in generate(120, seed=43) if mail.expected is not None]
        self._mails = {mail.expected["text"]: mail.raw for mail in mails if mail.expected}
        self.texts: set[str] = set()

    @property
    def blocks(self) -> tuple[str, str]:
        """Their configuration."""
        stays, moves = self.boxes
        return (
            mailbox(stays.port, "stays", poll_seconds=3600),
            mailbox(moves.port, "moves", poll_seconds=3600, after_store="move", move_to="Stored"),
        )

    def deliver(self, count: int) -> None:
        """Deliver so many new mails to each."""
        for box in self.boxes:
            for _ in range(count):
                text = next(one for one in self._mails if one not in self.texts)
                box.deliver(self._mails[text])
                self.texts.add(text)


@pytest.mark.parametrize(
    ("daemon_is", "lacks"),
    [
        ("up", "the last minutes"),
        ("down", "all, and its run"),
        pytest.param("up", "all, and its run", marks=pytest.mark.torture),
        pytest.param("down", "the last minutes", marks=pytest.mark.torture),
    ],
)
def test_a_promoted_standby_is_given_what_it_lacks(
    postgresql: PostgresqlServer, lagging: PostgresqlServer, server: ImapServer, tmp_path: Path,
    lacks: str, daemon_is: str,
) -> None:  # fmt: skip
    """An asynchronous standby is promoted: POSTs come from the spool again, mails from their server.

    Also those that were moved away, and those that came by IDLE over an old cursor.
    """
    moves = ImapServer({"INBOX": Box(), "Stored": Box()})
    with moves.running():
        mails = Both(server, moves)
        hosts = f"host=127.0.0.1:{postgresql.port}&host=127.0.0.1:{lagging.port}"
        url = f"postgresql+psycopg://app@/archive?{hosts}"
        config = configuration(tmp_path, url, WEBHOOK, *mails.blocks)
        if lacks == "all, and its run":
            postgresql.catch_up(lagging)
            lagging.cut_off()
        with running(config) as daemon:
            daemon.wait_ready()
            sent = [str(number) for number in range(40)]
            for text in sent[:5]:
                post(daemon, text)
            mails.deliver(3)
            until(lambda: read_so_far(url) == 11, "what comes before")
            if lacks == "the last minutes":
                postgresql.catch_up(lagging)
                lagging.cut_off()
            for text in sent[5:30]:
                post(daemon, text)
            mails.deliver(4)
            until(lambda: read_so_far(url) == 44, "what the standby lacks")
            until(lambda: rows(url, "SELECT count(*) FROM pending") == [(0,)], "the moves")
            if daemon_is == "down":
                daemon.kill()
            postgresql.stop()
            lagging.promote()
            if daemon_is == "up":
                mails.deliver(1)
                for text in sent[30:]:
                    post(daemon, text)
                _all_is_there(url, {*sent, *mails.texts})
                assert daemon.stop() == 0
        if daemon_is == "down":
            with running(config) as daemon:
                daemon.wait_ready()
                mails.deliver(1)
                for text in sent[30:]:
                    post(daemon, text)
                _all_is_there(url, {*sent, *mails.texts})
                assert daemon.stop() == 0


def _all_is_there(url: str, texts: set[str]) -> None:
    def missing() -> set[object]:
        try:
            return texts - {text for (text,) in rows(url, "SELECT text FROM inbound_sms")}
        except IngestorError:
            return {"no primary yet"}

    until(lambda: not missing(), "every SMS", 60)
    assert rows(url, "SELECT count(*) - count(DISTINCT text) FROM inbound_sms") == [(0,)]
    assert rows(url, "SELECT count(*) FROM inbound_sms WHERE arrivals <> 1") == [(0,)]
    assert rows(url, "SELECT sum(stored) - (SELECT count(*) FROM sms) FROM runs") == [(0,)]
    # What is stored after a failover is answered by nobody: it may have been.
    again = "SELECT count(*) FROM arrivals a JOIN runs r ON r.id = a.run_id WHERE r.command = 'rescan'"
    assert int(str(rows(url, again)[0][0])) >= 25
