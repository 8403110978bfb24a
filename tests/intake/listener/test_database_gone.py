"""The database stops under load, the disk is full, several daemons share one database."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.intake.listener import spool
from ingestor.intake.listener.reception import Limits
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.crowd import Crowd
from tests.intake.listener.stand import AGILE, Stand
from tests.servers.postgresql import PostgresqlServer

# `LISTENER_OUTAGE_SECONDS=60` stops PostgreSQL for the whole minute that is promised.
OUTAGE_SECONDS = float(os.environ.get("LISTENER_OUTAGE_SECONDS", "4"))
Eventually = Callable[..., None]


@pytest.mark.postgresql
def test_postgresql_stopped_under_load_loses_nothing(
    own_postgresql: PostgresqlServer, make_stand: MakeStand, eventually: Eventually
) -> None:
    """Everything is acknowledged meanwhile, from the spool; afterwards all of it is there, each once."""
    engine = open_engine(own_postgresql.url("archive"))
    ensure_schema(engine, auto_upgrade=True)
    stand = make_stand(engine, limits=Limits(writer_seconds=1.0))
    back = threading.Event()

    def interrupt(count: int) -> None:
        if count == 500:
            threading.Thread(target=_outage).start()

    def _outage() -> None:
        own_postgresql.stop()
        time.sleep(OUTAGE_SECONDS)
        try:
            eventually(lambda: stand.listener.keeper.depth > 100)
            spooled.append(stand.listener.keeper.depth)
        finally:
            own_postgresql.start()
            back.set()

    spooled: list[int] = []
    numbers = itertools.takewhile(lambda _: not back.is_set(), itertools.count())
    crowd = Crowd(lambda: stand.listener.address, numbers, interrupt, rest=0.05, patience=OUTAGE_SECONDS + 60)
    crowd.run()
    eventually(lambda: stand.listener.keeper.depth == 0, seconds=30 + 5 * OUTAGE_SECONDS)

    sent = len(crowd.acknowledged)
    assert spooled
    assert crowd.refused == crowd.retries == 0
    assert sorted(stand.texts()) == sorted(f"message {number}" for number in range(sent))
    assert stand.rows("SELECT count(*) FROM arrivals") == [(sent,)]
    engine.dispose()


def test_a_full_disk_is_503_until_there_is_room_again(
    small_disk: Path, make_stand: MakeStand, eventually: Eventually
) -> None:
    """Archive and spool on a disk that fills up: no +OK without a durable SMS; with room all goes on."""
    engine = open_engine(f"sqlite:///{small_disk / 'archive.db'}")
    ensure_schema(engine, auto_upgrade=True)
    stand = make_stand(engine, folder=small_disk, limits=Limits(writer_seconds=0.3))
    acknowledged = [number for number in range(20) if stand.sms(number).body == b"+OK"]
    assert len(acknowledged) == 20

    _fill(small_disk / "ballast")
    statuses = []
    for number in range(20, 60):
        answer = stand.ask(post(AGILE, sms(number) + b"x" * 3000))
        statuses.append(answer.status)
        if answer.status == 200:
            acknowledged.append(number)
    assert 503 in statuses

    (small_disk / "ballast").unlink()
    eventually(lambda: stand.sms(100).body == b"+OK")
    eventually(lambda: stand.listener.keeper.depth == 0)
    assert stand.sms(101).body == b"+OK"
    eventually(lambda: stand.listener.keeper.depth == 0)  # a slow disk sends it there, too
    eventually(lambda: stand.writer is not None and stand.writer.queued == 0)
    assert stand.listener.keeper.trouble is None or spool.depth(stand.spool) == 0

    stored = {int(row[0].split()[1].rstrip("x")) for row in stand.rows("SELECT text FROM inbound_sms")}
    assert stored >= {*acknowledged, 100, 101}
    assert stand.rows("SELECT count(*) - count(DISTINCT text) FROM inbound_sms") == [(0,)]
    engine.dispose()


@pytest.mark.parametrize("from_the_start", [False, True], ids=["later", "from the start"])
def test_a_spool_has_room_again_by_itself(
    small_disk: Path, make_stand: MakeStand, eventually: Eventually, from_the_start: bool
) -> None:
    """After a full disk nobody need post for the spool to be well again; then it takes the next POST."""
    if from_the_start:
        _fill(small_disk / "ballast")
    stand = make_stand(folder=small_disk)
    stand.at_hand.trouble = "down"
    if not from_the_start:
        assert stand.sms(1).body == b"+OK"
        _fill(small_disk / "ballast")
    assert stand.ask(post(AGILE, sms(2) + b"x" * 9000)).status == 503
    assert stand.listener.keeper.trouble is not None

    (small_disk / "ballast").unlink()
    eventually(lambda: stand.listener.keeper.trouble is None)

    assert stand.sms(3).body == b"+OK"
    assert stand.listener.keeper.depth == spool.depth(stand.spool) == (1 if from_the_start else 2)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


@pytest.fixture
def two_stands(make_stand: MakeStand, archive_engine: Engine, tmp_path: Path) -> Iterator[list[Stand]]:
    """Two listeners with a writer each on one database, as behind a balancer."""
    second = open_engine(archive_engine.url.render_as_string(hide_password=False))
    yield [make_stand(archive_engine), make_stand(second, folder=tmp_path / "second")]
    second.dispose()


def test_the_same_post_at_two_daemons_at_once_is_one_row(two_stands: list[Stand]) -> None:
    """Each of 300 messages goes to both at the same moment: 300 rows, two arrivals each."""
    crowds = [Crowd(lambda stand=stand: stand.listener.address, range(300)) for stand in two_stands]  # type: ignore[misc]  # bound now
    threads = [threading.Thread(target=crowd.run, args=(16,)) for crowd in crowds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [len(crowd.acknowledged) for crowd in crowds] == [300, 300]
    assert [crowd.retries for crowd in crowds] == [0, 0]
    assert two_stands[0].rows(
        "SELECT count(*), count(DISTINCT text), min(arrivals), max(arrivals) FROM inbound_sms"
    ) == [(300, 300, 2, 2)]
