"""The whole daemon against a real Dovecot over TLS: killed, cut off, deceived, and exact all the same."""

import random
import signal
import time
from pathlib import Path

import pytest

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.errors import IngestorError
from tests.sample_mails import SampleMail, generate
from tests.servers.dovecot import PASSWORD, DovecotServer
from tests.servers.postgresql import PostgresqlServer
from tests.service.archive import read_so_far, rows, stored
from tests.service.process import configuration, mailbox, running, until

pytestmark = pytest.mark.dovecot

KILLS = {"sqlite": 50, "postgresql": 20}  # of the long trial; the short one has a fifth
MAILS_A_KILL = 40
FLAGS = ("", "S", "FS", "RS", "D", "T")  # as other people's mail clients leave them


class Crowd:
    """Two accounts, one watched by IDLE and one polled, and what was delivered to them."""

    def __init__(self, dovecot: DovecotServer) -> None:
        self.dovecot = dovecot
        self.watched, self.polled = dovecot.account(), dovecot.account()
        self.delivered: list[SampleMail] = []

    def blocks(self) -> list[str]:
        """Return the configuration of both."""
        common = {
            "security": "tls", "host": "localhost", "ca_file": str(self.dovecot.ca_file),
            "password": PASSWORD,
        }  # fmt: skip
        port = self.dovecot.imaps_port
        return [
            mailbox(port, "watched", **{**common, "username": self.watched}, poll_seconds=60),
            mailbox(port, "polled", **{**common, "username": self.polled}, idle=False, poll_seconds=1),
        ]

    def deliver(self, mails: list[SampleMail]) -> None:
        """Deliver `mails` to both accounts in turn, with all kinds of flags."""
        for mail in mails:
            number = len(self.delivered)
            user = (self.watched, self.polled)[number % 2]
            self.dovecot.deliver(user, [mail.raw], flags=FLAGS[number // 2 % len(FLAGS)])
            self.delivered.append(mail)

    def flags(self) -> dict[str, str]:
        """Return the flags of every mail on disk by its unique name."""
        found = {}
        for user in (self.watched, self.polled):
            where = self.dovecot.maildir(user)
            for path in (*(where / "cur").iterdir(), *(where / "new").iterdir()):
                # Dovecot adds sizes to the name when it takes a mail over: ,S=123,W=124
                name, _, flags = path.name.partition(":2,")
                found[f"{user}/{name.partition(',')[0]}"] = flags
        return found

    def expected_flags(self) -> list[str]:
        """Return the flags that the mails were delivered with, sorted."""
        return sorted(FLAGS[number // 2 % len(FLAGS)] for number in range(len(self.delivered)))

    def expected(self) -> list[tuple[str, ...]]:
        """Return what the archive must hold, sorted."""
        return sorted({tuple(mail.expected.values()) for mail in self.delivered if mail.expected})

    def all_is_there(self, url: str) -> bool:
        """Say whether the archive holds exactly what was delivered: every SMS once, each mail one arrival."""
        kinds = list({mail.raw: mail.kind for mail in self.delivered}.values())
        return (
            stored(url) == self.expected()
            and rows(url, "SELECT sum(arrivals) FROM inbound_sms") == [(kinds.count("sms"),)]
            and rows(url, "SELECT count(*) FROM quarantine") == [(kinds.count("broken"),)]
        )

    def assert_exact(self, url: str) -> None:
        """Wait for that, and hold the mailboxes to what was delivered."""
        until(lambda: self.all_is_there(url), "every SMS once, each mail one arrival", 60)
        flags = self.flags()
        assert len(flags) == len(self.delivered)
        assert sorted(flags.values()) == self.expected_flags()


@pytest.fixture
def crowd(dovecot: DovecotServer) -> Crowd:
    """Two fresh accounts."""
    return Crowd(dovecot)


@pytest.mark.parametrize("part", [5, pytest.param(1, marks=pytest.mark.torture)], ids=["short", "long"])
def test_killed_over_and_over(crowd: Crowd, archive_url: str, tmp_path: Path, part: int) -> None:
    """Killed by -9 at random points (fifty among 2,000 mails), started again: exact rows and flags."""
    kills = KILLS[archive_url.partition(":")[0].partition("+")[0]] // part
    share = MAILS_A_KILL // 2
    mails = list(generate(kills * MAILS_A_KILL, seed=50))
    config = configuration(tmp_path, archive_url, *crowd.blocks())
    chance = random.Random(50)
    counts = []
    for kill in range(kills):
        if kill == kills // 10:
            _make_schema(archive_url)  # making it takes longer than most of these lives last
        crowd.deliver(mails[2 * kill * share : (2 * kill + 1) * share])
        with running(config, "run") as daemon:
            time.sleep(chance.uniform(0.0, 0.2))
            crowd.deliver(mails[(2 * kill + 1) * share : (2 * kill + 2) * share])
            if kill % 2 and kill > kills // 10:
                _wait_for_work(archive_url, len(crowd.delivered))  # so that many kills hit the middle of it
                time.sleep(chance.uniform(0.0, 0.03))
            else:
                time.sleep(chance.uniform(0.0, 0.2))
            daemon.kill()
            assert daemon.process.returncode == -signal.SIGKILL
        counts.append(_count(archive_url))
    assert len(set(counts)) > kills // 4, f"the kills came too early to hit any work: {counts}"

    with running(config) as daemon:
        daemon.wait_ready()
        crowd.assert_exact(archive_url)
        _wait_until_quiet(archive_url)
        assert daemon.stop() == 0
    crowd.assert_exact(archive_url)


def _make_schema(url: str) -> None:
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    engine.dispose()


def _wait_for_work(url: str, delivered: int) -> None:
    """Wait until another mail has been read, or there is none left."""
    before = read_so_far(url)
    until(lambda: before < (read := read_so_far(url)) or read >= delivered, "work", 60, 0.005)


def _count(url: str) -> int:
    """Return how many SMS there are; none before the schema is."""
    try:
        [[count]] = rows(url, "SELECT count(*) FROM inbound_sms")
    except IngestorError:
        return 0
    return int(str(count))


def _wait_until_quiet(url: str) -> None:
    """Wait until the last mails, which may be nobody's, are read too."""
    before = -1
    while (now := read_so_far(url)) != before:
        before = now
        time.sleep(1.2)  # longer than a poll


@pytest.mark.postgresql
def test_everything_else_that_happens(crowd: Crowd, postgresql: PostgresqlServer, tmp_path: Path) -> None:
    """Connections cut, servers restarted, UIDVALIDITY reset, folders emptied: exact rows all the same."""
    dovecot, url = crowd.dovecot, postgresql.url("archive")
    mails = iter(generate(10_000, seed=60))

    def some(count: int = 40) -> list[SampleMail]:
        return [next(mails) for _ in range(count)]

    def caught_up() -> bool:
        return stored(url) == crowd.expected()

    with running(configuration(tmp_path, url, *crowd.blocks())) as daemon:
        daemon.wait_ready()
        crowd.deliver(some(200))
        until(caught_up, "the first mails")

        for user in (crowd.watched, crowd.polled):
            dovecot.kick(user)
        crowd.deliver(some())
        until(caught_up, "mail after the connections were cut")

        dovecot.stop()
        crowd.deliver(some())
        dovecot.start()
        until(caught_up, "mail after the server was restarted")

        postgresql.stop()
        crowd.deliver(some())
        postgresql.start()
        until(caught_up, "mail after the database was restarted")

        dovecot.stop()
        for user in (crowd.watched, crowd.polled):
            dovecot.reset_uidvalidity(user)
        crowd.deliver(some())
        dovecot.start()
        until(caught_up, "mail after the UIDVALIDITY was reset")
        until(lambda: daemon.events("UIDVALIDITY changed; reading the whole folder again"), "a line")
        crowd.assert_exact(url)

        for user in (crowd.watched, crowd.polled):
            dovecot.empty(user)
        late = some()
        crowd.deliver(late)
        until(caught_up, "mail after the folders were emptied")
        _wait_until_quiet(url)
        assert daemon.stop() == 0

    assert stored(url) == crowd.expected()
    assert len(crowd.flags()) == len(late)
    assert rows(url, "SELECT read - stored - duplicate - ignored - quarantined - failed FROM runs") == [(0,)]
