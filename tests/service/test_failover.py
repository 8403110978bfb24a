"""A primary whose synchronous standby is promoted under load: what was acknowledged is in the new one."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.servers.postgresql import PostgresqlServer
from tests.service.archive import rows
from tests.service.process import configuration, running, until

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
