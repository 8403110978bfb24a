"""PgBouncer in transaction mode: every session is shared, and nobody leaves anything behind in it."""

import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ingestor.archive.engine import open_engine, writing
from ingestor.archive.export import snapshot
from ingestor.archive.items import Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from tests.archive.reading import number_of, one, opened
from tests.archive.samples import NOW, item
from tests.cli.calling import Called, ingestor
from tests.conftest import missing
from tests.servers.pgbouncer import INSTALL, PgBouncer, program
from tests.servers.postgresql import PostgresqlServer
from tests.service.archive import rows
from tests.service.process import configuration, running, until

pytestmark = pytest.mark.postgresql

SMS = {"originator": "+393351234567", "destination": "+393331234333", "date_time": "20260301130000"}


@pytest.fixture
def pooler(postgresql_server: PostgresqlServer, postgresql_url: str) -> Iterator[PgBouncer]:
    """A PgBouncer before a fresh, empty database."""
    if program() is None:
        missing(INSTALL)
    pooler = PgBouncer(postgresql_server.port, postgresql_url.rpartition("/")[2])
    yield pooler
    pooler.close()


def command(url: str, *words: str) -> Called:
    """Run `ingestor --database-url URL WORDS`."""
    return ingestor("--database-url", url, *words, folder=Path.cwd())


def test_readers_beside_the_daemon_harm_no_write(pooler: PgBouncer, tmp_path: Path) -> None:
    """`search` and `status` come and go; every POST is stored at once, none in a read-only session."""
    assert command(pooler.url, "db", "upgrade").code == 0
    webhook = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    with running(configuration(tmp_path, pooler.url, webhook)) as daemon:
        daemon.wait_ready()
        port = daemon.events("webhook listening")[0]["port"]

        def post(number: int) -> bytes:
            body = urlencode(SMS | {"text": f"x {number}"}).encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", body) as answer:
                return bytes(answer.read())

        assert [post(number) for number in range(12)] == [b"+OK"] * 12
        assert command(pooler.url, "search", "x").code == 0
        assert "LATE" not in command(pooler.url, "status").out
        with ThreadPoolExecutor(6) as clients:
            assert list(clients.map(post, range(12, 30))) == [b"+OK"] * 18
        until(lambda: rows(pooler.url, "SELECT count(*) FROM inbound_sms") == [(30,)], "every POST stored")
        assert not daemon.events("the archive takes no writes; intake waits and tries again")
        assert not daemon.events("POSTs go to the spool")
        assert daemon.stop() == 0


def test_what_one_client_sets_no_other_meets(pooler: PgBouncer) -> None:
    """Read-only and writing engines share two sessions with a stranger who lowers the durability in one."""
    with opened(pooler.url) as engine:
        ensure_schema(engine, auto_upgrade=True)
        store, run = Store(engine), begin_run(engine, "run", {}, NOW)
        with writing(engine) as connection:
            connection.exec_driver_sql("SET synchronous_commit = local")  # a session that others get
        reader = open_engine(pooler.url, read_only=True)
        for number in range(40):
            assert str(store.write([Submission(run, (item(number),))], NOW)[0].outcomes[0]) == "stored"
            assert number_of(reader, "inbound_sms") == number + 1
            assert one(engine, "SHOW synchronous_commit") == "on"
            assert one(reader, "SHOW transaction_read_only") == "on"
        assert one(engine, "SELECT count(*) FROM pg_prepared_statements") == 0
        counts = balance(engine, run)
        assert (counts.read, counts.stored) == (40, 40)
        reader.dispose()


def test_an_import_and_a_snapshot_work(pooler: PgBouncer, tmp_path: Path) -> None:
    """The fast lane, cursors on the server and a snapshot of one moment need a transaction only."""
    from tests.intake.files.mails import mbox_of, sms_mail

    box = tmp_path / "box.mbox"
    box.write_bytes(mbox_of(*(sms_mail(number) for number in range(1200))))
    done = command(pooler.url, "import", "--quiet", str(box))
    assert done.code == 0, done.err
    with opened(pooler.url) as engine:
        assert number_of(engine, "inbound_sms") == 1200
        assert snapshot(engine, tmp_path / "copy.db", NOW).sms == 1200
    assert command(pooler.url, "export", "-o", str(tmp_path / "out.jsonl")).code == 0
