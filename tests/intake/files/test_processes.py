"""The processes of an import: they end with their parent, stay small, and leave room for a daemon."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.files.parse import Window
from ingestor.intake.files.workers import Pool, WorkersGone
from tests.archive.samples import item
from tests.intake.files.importing import Importer
from tests.intake.files.mails import foreign_mail, mbox_of, sms_mail
from tests.waiting import until

IMPORT = (sys.executable, "-m", "ingestor", "--database-url")


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in listing.read_text().split()] if listing.exists() else []


def memory_of(pids: list[int]) -> int:
    """Return the bytes that processes take, what they share counted once (PSS)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10
    return total


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Killed with -9 in the middle of its work, an import leaves no process behind."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*IMPORT, f"sqlite:///{tmp_path}/a.db", "import", "-", "--jobs", "2"], stdin=reader,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(reader)
    try:
        os.write(writer, mbox_of(sms_mail(1)))
        until(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    finally:
        os.close(writer)
        process.kill()
        process.wait()


def test_workers_load_no_database() -> None:
    """They are forked before it is there, so that each costs little memory."""
    script = "import sys, ingestor.intake.files.workers; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_workers_give_way_to_their_parent() -> None:
    """Whoever reads and writes for all of them is not kept waiting by them."""
    with Pool(1) as pool:
        [worker] = pool._pids
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        until(lambda: os.getpriority(os.PRIO_PROCESS, worker) == ours + 5)


def test_a_worker_that_dies_ends_the_import_with_a_sentence() -> None:
    """A worker that was killed is noticed, and named for what happened to it."""
    with Pool(1) as pool:
        pool.start([], Window(), b"key", None, False)
        os.kill(pool._pids[0], signal.SIGKILL)
        with pytest.raises(WorkersGone, match="SIGKILL"):  # noqa: PT012 -- noticed at one or the other
            pool.submit(0, b"", ("mbox", (0, "mbox")))
            pool.collect(block=True)


def test_memory_stays_small_however_large_the_input(tmp_path: Path) -> None:
    """500 MB through a pipe, one mail of 120 MB and one of ours of 25 MB among them, fit in 200 MB of PSS."""
    process = subprocess.Popen(
        [*IMPORT, f"sqlite:///{tmp_path}/a.db", "import", "-", "--jobs", "2", "--json", "--quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    highest = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.05):
            highest = max(highest, memory_of([process.pid, *children(process.pid)]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    line = bytes(range(33, 105)) + b"\n"
    try:
        small = mbox_of(
            *(sms_mail(i, "x" * 1500) if i % 2 else foreign_mail(i, line * 30) for i in range(2000))
        )
        large = mbox_of(foreign_mail(1, line * 12_000))
        for part in range(4):
            process.stdin.write(small)
            for _ in range(100):
                process.stdin.write(large)
            if part == 1:
                process.stdin.write(mbox_of(foreign_mail(2, line * (120_000_000 // len(line)))))
            if part == 2:
                process.stdin.write(mbox_of(sms_mail(9, os.urandom(12_500_000).hex())))
        process.stdin.close()
        output = process.stdout.read()
    finally:
        done.set()
        watcher.join()
        process.kill()
        process.wait()
        process.stdout.close()
    assert b'"read": 8402, "stored": 1000, "duplicate": 3000, "ignored": 4401, "quarantined": 1' in output
    assert highest < 200 << 20


def test_an_import_beside_a_daemon(
    sqlite_engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a daemon writes to the same archive, both come to their end, and each SMS is there once."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(*(sms_mail(i, "y" * 800 + str(i)) for i in range(12_000))))
    url = sqlite_engine.url.render_as_string()
    process = subprocess.Popen(
        [*IMPORT, url, "import", str(box), "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    writer = Writer(Store(sqlite_engine))
    writer.start()
    sent = 0
    try:
        while process.poll() is None or sent < 20:
            writer.submit(Submission(None, (item(sent + 1),))).result(timeout=30)
            sent += 1
            time.sleep(0.01)
        output = process.communicate()[0].decode()
    finally:
        process.kill()
        process.wait()
        assert writer.stop(30)
    assert process.returncode == 0, output
    rows = Importer(sqlite_engine, capsys).rows
    assert rows("SELECT count(*), count(DISTINCT text) FROM inbound_sms") == [(12_000 + sent,) * 2]
    assert rows("SELECT read, stored FROM runs") == [(12_000, 12_000)]


def test_a_database_that_is_away_for_a_moment_is_waited_for(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails because the archive is locked is tried again; for good, it ends with the command."""

    from ingestor.errors import ArchiveUnavailable
    from ingestor.intake.files import sinks

    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1)))
    real, failures = Store.write, [2]

    def sometimes(self: Store, submissions: object, now: datetime) -> object:
        if failures[0]:
            failures[0] -= 1
            raise ArchiveUnavailable("the archive is locked")
        return real(self, submissions, now)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "write", sometimes)
    assert run_sqlite_import(box).counts[:2] == (1, 1)
    failures[0] = 1000
    monkeypatch.setattr(sinks, "PATIENCE", 0.1)
    done = run_sqlite_import(box)
    assert done.code == 1
    assert "the archive is locked" in done.err
    assert "import --resume 2 " in done.out
    failures[0] = 0
    assert run_sqlite_import("--resume", "2", box).counts == (1, 0, 1, 0, 0, 0)


@pytest.mark.parametrize("refused", [False, True])
def test_a_commit_that_broke_off_is_counted_once(
    postgresql_engine: Engine, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, refused: bool,
) -> None:  # fmt: skip
    """PostgreSQL committed and then the connection died: the import goes on, and its balance adds up.

    So it does where an item was refused, and the batch was replayed item by item.
    """
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    if refused:
        with writing(postgresql_engine) as connection:
            connection.exec_driver_sql("ALTER TABLE sms_content ADD CHECK (originator <> '+393350000002')")
    armed: list[int] = []
    write, commit = Store.write, PGDialect_psycopg.do_commit

    def write_and_arm(self: Store, *arguments: Any) -> Any:
        armed.append(threading.get_ident())
        return write(self, *arguments)

    def commit_and_break(self: PGDialect_psycopg, connection: object) -> None:
        commit(self, connection)  # type: ignore[arg-type]
        if armed == [threading.get_ident()]:  # what looks after the texts commits, too
            armed.append(0)
            connection.driver_connection.close()  # type: ignore[attr-defined]
            connection.driver_connection.execute("SELECT 1")  # type: ignore[attr-defined]

    monkeypatch.setattr(Store, "write", write_and_arm)
    monkeypatch.setattr(PGDialect_psycopg, "do_commit", commit_and_break)
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1), sms_mail(2), foreign_mail(3)))
    done = Importer(postgresql_engine, capsys)(box)
    assert len(armed) >= 3
    assert done.code == 0
    assert done.counts == ((3, 1, 0, 1, 1, 0) if refused else (3, 2, 0, 1, 0, 0))
