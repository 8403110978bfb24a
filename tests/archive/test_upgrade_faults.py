"""An upgrade that is killed, or finds the disk full, leaves the archive as it stood."""

import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from sqlalchemy import event

from ingestor.archive import migrate
from ingestor.archive.engine import open_engine
from ingestor.archive.intact import differences
from ingestor.errors import ArchiveUnavailable
from tests.archive.reading import number_of, one, opened, rows
from tests.archive.test_earlier_archives import put_back
from tests.archive.test_migrate import ENSURE
from tests.servers.postgresql import PostgresqlServer

KILLS = int(os.environ.get("INGESTOR_TEST_KILLS", "12"))
OLD = "SELECT id, subject, message_id, input, member, peer FROM arrivals ORDER BY id"
NEW = "SELECT id, subject, message_id, input, member, peer FROM arrivals_detail ORDER BY id"
# Each statement of the migration takes a moment, so that a random kill meets it; the one named, a minute.
SLOWLY = (
    "import itertools\nimport sys\nimport time\nfrom sqlalchemy import Engine, event\n"
    "numbers, longest = itertools.count(1), int(sys.argv[2])\n"
    "seconds = lambda: 60 if next(numbers) == longest else 0.01\n"
    "event.listen(Engine, 'before_cursor_execute', lambda *_: time.sleep(seconds()))\n" + ENSURE
)


def test_kill_9_in_an_upgrade_leaves_it_as_it_was(
    archive_url: str, postgresql_server: PostgresqlServer
) -> None:
    """Killed at random moments it stands at the old schema with every row, and comes up at the next try."""
    put_back("7ecdfed", archive_url, postgresql_server)
    with opened(archive_url) as engine:
        had = rows(engine, OLD)
    began = time.monotonic()
    moment, killed = random.Random(6), 0
    length = 2.0
    for number in range(KILLS):
        longest = "0" if number else "60"  # however late the first kill comes
        command = [sys.executable, "-c", SLOWLY, archive_url, longest]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(moment.uniform(0.3, length))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        killed += process.returncode == -signal.SIGKILL
        with opened(archive_url) as engine:
            if migrate.current(engine) == migrate.head():
                break
            assert migrate.current(engine) == "0005"
            assert rows(engine, OLD) == had
            assert number_of(engine, "quarantine") > 0
        length = min(length, time.monotonic() - began)
    assert killed
    with opened(archive_url) as engine:
        migrate.ensure_schema(engine, auto_upgrade=True)
        assert rows(engine, NEW) == had
        assert differences(engine) == []
        if engine.dialect.name == "sqlite":
            assert one(engine, "PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("pages", [0, 1, 2])
def test_a_full_disk_in_an_upgrade_leaves_it_as_it_was(sqlite_url: str, pages: int) -> None:
    """It is said, nothing has changed, and with room it comes up."""
    put_back("7ecdfed", sqlite_url, None)
    full = open_engine(sqlite_url)

    def fill(driver: Any, _record: Any) -> None:
        [(there,)] = driver.execute("PRAGMA page_count").fetchall()
        driver.execute(f"PRAGMA max_page_count = {there + pages}")

    event.listen(full, "connect", fill)
    had = rows(full, OLD)
    with pytest.raises(ArchiveUnavailable, match=r"the disk of .* is full; make room"):
        migrate.upgrade(full)
    assert migrate.current(full) == "0005"
    assert rows(full, OLD) == had
    full.dispose()
    with opened(sqlite_url) as engine:
        migrate.upgrade(engine)
        assert rows(engine, NEW) == had
        assert one(engine, "PRAGMA integrity_check") == "ok"
