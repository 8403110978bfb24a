"""Three daemons on one PostgreSQL with a synchronous standby: each SMS once, whatever happens to them."""

import random
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ingestor.errors import IngestorError
from tests.intake.files.mails import sms_mail
from tests.servers.imap.box import Box
from tests.servers.imap.server import ImapServer
from tests.servers.postgresql import PostgresqlServer, free_port
from tests.service.archive import rows
from tests.service.process import Running, configuration, mailbox, until

pytestmark = pytest.mark.postgresql

DAEMONS = 3


@pytest.fixture
def standby(postgresql: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A standby that every commit of the primary waits for."""
    server = postgresql.standby()
    yield server
    server.close()
    postgresql.stop()
    postgresql.start()
    postgresql.wait_for_standby("")


class Machine:
    """A machine with a daemon: its port, its spool, and a process that comes and goes."""

    def __init__(self, folder: Path, url: str, imap: ImapServer) -> None:
        folder.mkdir()
        self.port = free_port()
        webhook = f'[webhook]\nlisten = "127.0.0.1:{self.port}"\n'
        endpoint = '[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
        box = mailbox(imap.port, poll_seconds=5, after_store="move", move_to="Stored")
        self.config = configuration(folder, url, webhook, endpoint, box)
        self.daemon = Running(self.config, "run", "--json")

    def kill(self) -> None:
        """End it as a power cut would, and let systemd start another."""
        self.daemon.close()
        self.daemon = Running(self.config, "run", "--json")

    def close(self) -> None:
        """End it for good."""
        self.daemon.close()

    def stand_still(self, seconds: float) -> None:
        """Take its processor away."""
        self.daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.daemon.process.send_signal(signal.SIGCONT)


class Provider(threading.Thread):
    """Posts one SMS after the other to any of the machines, each until it is acknowledged."""

    def __init__(self, machines: list[Machine], first: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: set[str] = set()
        self.halt = threading.Event()
        self._machines, self._number = machines, first

    def run(self) -> None:
        """Post until `halt` is set."""
        while not self.halt.is_set():
            self._number += 1
            sms = {"originator": "+393351234567", "destination": "+393331234333", "text": str(self._number)}
            body = urlencode({**sms, "date_time": "20260301130000"}).encode()
            while not self.halt.is_set():
                port = random.choice(self._machines).port
                address = f"http://127.0.0.1:{port}/a"
                with suppress(OSError), urllib.request.urlopen(address, body, timeout=8) as answer:
                    if answer.read() == b"+OK":
                        self.acknowledged.add(sms["text"])
                        break
                time.sleep(0.05)


@pytest.mark.parametrize(
    ("faults", "mails"), [(4, 40), pytest.param(60, 600, marks=pytest.mark.torture)], ids=["short", "long"]
)
def test_three_daemons_and_a_switchover(
    postgresql: PostgresqlServer, standby: PostgresqlServer, tmp_path: Path, faults: int, mails: int
) -> None:
    """Killed, stopped and cut off at random, and the primary dies in the middle of it.

    What was acknowledged is in the new primary, each SMS once, by mail and by POST; no daemon but the killed
    is started again; each mail is moved once; in the end one of them acts on the mailbox.
    """
    draw = random.Random(faults)
    hosts = f"host=127.0.0.1:{postgresql.port}&host=127.0.0.1:{standby.port}"
    url = f"postgresql+psycopg://app@/archive?{hosts}"
    imap = ImapServer({"INBOX": Box(), "Stored": Box()})
    with imap.running(), ExitStack() as ends:
        machines = [Machine(tmp_path / str(number), url, imap) for number in range(DAEMONS)]
        for machine in machines:
            ends.callback(machine.close)
        for machine in machines:
            machine.daemon.wait_ready()
        providers = [Provider(machines, number * 1_000_000) for number in range(3)]
        for provider in providers:
            provider.start()
            ends.callback(provider.halt.set)
        servers = [standby, postgresql]  # the last one is the primary

        def cut_database_clients() -> None:
            servers[-1].terminate_clients()

        kinds: list[Callable[[], None]] = [
            lambda: draw.choice(machines).kill(),
            lambda: draw.choice(machines).stand_still(draw.uniform(1, 3)),
            imap.disconnect,
            cut_database_clients,
        ]
        draw.shuffle(kinds)
        for number in range(faults):
            if number == faults // 2:
                servers.pop().stop()
                standby.promote()
                _goes_on(standby.url("archive"))
            for mail in range(number * mails // faults, (number + 1) * mails // faults):
                imap.deliver(sms_mail(mail))
            time.sleep(draw.uniform(0.2, 1.0))
            kinds[number % len(kinds)]()
        for provider in providers:
            provider.halt.set()
            provider.join()
        new = standby.url("archive")
        sent = {text for provider in providers for text in provider.acknowledged}
        sent |= {f"text {number}" for number in range(mails)}
        stored = "SELECT text FROM inbound_sms"
        until(lambda: sent <= {text for (text,) in rows(new, stored)}, "every SMS", 60)
        until(lambda: len(imap.boxes["Stored"].messages) == mails, "every mail moved, by somebody", 60)
        until(lambda: imap.boxes["INBOX"].messages == [], "none of them left behind")
        assert rows(new, "SELECT count(*) - count(DISTINCT text) FROM inbound_sms") == [(0,)]
        assert rows(new, "SELECT sum(stored) - (SELECT count(*) FROM sms) FROM runs") == [(0,)]
        unbalanced = "read <> stored + duplicate + ignored + quarantined + failed"
        assert rows(new, f"SELECT count(*) FROM runs WHERE {unbalanced}") == [(0,)]
        assert rows(new, "SELECT count(*) FROM leases WHERE name = 'mailbox main'") == [(1,)]
        assert all(machine.daemon.process.poll() is None for machine in machines)


def _goes_on(url: str) -> None:
    """Wait for new rows in the promoted server, and print how long that took."""
    began = time.monotonic()
    count = "SELECT count(*) FROM sms"
    before: list[tuple[object, ...]] = []

    def more() -> bool:
        nonlocal before
        with suppress(IngestorError):
            found = rows(url, count)
            before = before or found
            return found > before
        return False

    until(more, "a daemon at the new primary")
    print(f"writes went on after {time.monotonic() - began:.1f} s")
