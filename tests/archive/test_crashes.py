"""kill -9 at any point, and a disk that is full: nothing lost, nothing doubled."""

import multiprocessing
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.export import snapshot
from ingestor.archive.items import Item, Submission
from ingestor.archive.mailbox_state import read_cursor
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable
from tests.archive.crashing import STEP, read_on
from tests.archive.reading import number_of, one, opened
from tests.archive.samples import NOW, item, payload

KILLS = int(os.environ.get("INGESTOR_TEST_KILLS", "12"))
MAILS = 2000


def test_kill_9_at_random_points_loses_and_doubles_nothing(archive_engine: Engine) -> None:
    """A writing process is killed again and again; each successor goes on at the committed cursor."""
    run_id = begin_run(archive_engine, "run", {}, NOW)
    processes = multiprocessing.get_context("forkserver")  # so that a start costs no imports
    processes.set_forkserver_preload([read_on.__module__])

    def started() -> Any:
        begun = processes.Event()
        url = archive_engine.url.render_as_string(hide_password=False)
        process = processes.Process(target=read_on, args=(url, run_id, MAILS, begun))
        process.start()
        assert begun.wait(60)
        return process

    order = random.Random(7)
    for _ in range(KILLS):
        process = started()
        time.sleep(order.uniform(0, 0.06))
        process.kill()
        process.join()
        cursor = read_cursor(archive_engine, "main", "INBOX")
        assert number_of(archive_engine, "arrivals") == (cursor.last_uid if cursor else 0)
    started().join(120)
    unread = MAILS // 11
    for table in ("inbound_sms", "sms_content", "pending"):
        assert number_of(archive_engine, table) == MAILS - unread
    assert number_of(archive_engine, "quarantine") == unread
    assert number_of(archive_engine, "arrivals") == number_of(archive_engine, "payloads") == MAILS
    counts = balance(archive_engine, run_id)
    assert counts.adds_up
    assert (counts.stored, counts.duplicate, counts.quarantined) == (MAILS - unread, 0, unread)
    assert counts.ignored >= MAILS // STEP
    if archive_engine.dialect.name == "sqlite":
        assert one(archive_engine, "PRAGMA integrity_check") == "ok"
        assert number_of(archive_engine, "pragma_foreign_key_check") == 0


def noise(first: int) -> tuple[Item, ...]:
    """Return twenty mails that no compression makes smaller."""
    raws = [os.urandom(3000) for _ in range(20)]
    return tuple(item(n, raw=raw, payload=payload(raw)) for n, raw in enumerate(raws, first))


def test_a_full_disk_takes_nothing_halfway_and_recovers(small_disk: Path) -> None:
    """When the disk is full a batch is refused whole, in words; with room again all goes on."""
    ballast = small_disk / "ballast"
    with opened(f"sqlite:///{small_disk / 'archive.db'}") as engine:
        ensure_schema(engine, auto_upgrade=True)
        ballast.write_bytes(bytes(700_000))
        store = Store(engine)
        run_id = begin_run(engine, "run", {}, NOW)
        done = 0
        batch = noise(done)
        with pytest.raises(ArchiveUnavailable, match="full"):  # noqa: PT012 - which one fails is the disk's say
            while True:
                store.write([Submission(run_id, batch)], NOW)
                done += len(batch)
                batch = noise(done)
        assert number_of(engine, "arrivals") == number_of(engine, "inbound_sms") == done
        ballast.unlink()
        store.write([Submission(run_id, batch)], NOW)
        assert number_of(engine, "inbound_sms") == done + 20
        assert balance(engine, run_id).read == done + 20
        assert one(engine, "PRAGMA integrity_check") == "ok"


def test_a_snapshot_to_a_full_disk_leaves_nothing_behind(sqlite_engine: Engine, small_disk: Path) -> None:
    """A snapshot appears whole or not at all."""
    raws = [os.urandom(50_000) for _ in range(120)]
    mails = tuple(item(n, raw=raw, payload=payload(raw)) for n, raw in enumerate(raws))
    Store(sqlite_engine).write([Submission(None, mails)], NOW)
    with pytest.raises(ArchiveUnavailable, match="make room"):
        snapshot(sqlite_engine, small_disk / "copy.db", NOW)
    assert list(small_disk.iterdir()) == []


def test_a_read_only_file_system_is_said_in_words(tmp_path: Path, small_disk: Path) -> None:
    """An archive on a file system without write access is unavailable, and the message names it."""
    url = f"sqlite:///{small_disk / 'archive.db'}"
    with opened(url) as engine:
        ensure_schema(engine, auto_upgrade=True)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        engine = open_engine(url)
        with pytest.raises(ArchiveUnavailable, match="small lies on a read-only file system"):
            Store(engine).write([Submission(None, (item(1),))], NOW)
        engine.dispose()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
