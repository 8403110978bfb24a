"""Erased is erased: killed at any point, in the bytes, and by nobody guessed from what stays."""

import io
import json
import multiprocessing
import random
import sqlite3
import time
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive import erasure, tables
from ingestor.archive.engine import reading, sqlite_path
from ingestor.archive.erasure import leave_no_bytes, vacuum
from ingestor.archive.erasure_plan import Plan
from ingestor.archive.export import export_jsonl, snapshot
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.rows import unique_key
from ingestor.providers.contract import Readable
from ingestor.record import Channel
from tests.archive.erasing import (
    HER,
    HIS,
    SECRET_TEXT,
    all_bytes,
    apply_on,
    content,
    erased,
    hers,
    mail,
    planned,
    write,
)
from tests.archive.reading import one, rows
from tests.archive.samples import NOW, PARSER, item, payload
from tests.waiting import until

HALF = """SELECT count(*) FROM sms
    LEFT JOIN sms_content AS c ON c.sms_id = sms.id LEFT JOIN sms_numbers AS n ON n.sms_id = sms.id
    JOIN arrivals AS a ON a.sms_id = sms.id
    LEFT JOIN arrival_content AS w ON w.arrival_id = a.id LEFT JOIN payloads AS p ON p.arrival_id = a.id
    LEFT JOIN erased AS e ON e.kind = 'sms' AND e.row_id = sms.id
    LEFT JOIN erased AS f ON f.kind = 'arrival' AND f.row_id = a.id
    WHERE NOT ((c.sms_id IS NULL) = (e.row_id IS NOT NULL) AND (n.sms_id IS NULL) = (c.sms_id IS NULL)
      AND (w.arrival_id IS NULL) = (c.sms_id IS NULL) AND (p.arrival_id IS NULL) = (c.sms_id IS NULL)
      AND (f.row_id IS NULL) = (e.row_id IS NULL))"""
"""How many SMS are neither whole nor erased."""
ERASED = "SELECT count(*) FROM erased WHERE kind = 'sms'"


def killed_again_and_again(engine: Engine, times: int, folder: Path) -> None:
    """Erase half of an archive while somebody kills it at random points, then end it."""
    write(engine, *(mail(number, HER if number % 2 else HIS) for number in range(1, 301)))
    plan = folder / "plan.json"
    plan.write_text(planned(engine, numbers=[HER]).written())
    url = engine.url.render_as_string(hide_password=False)
    processes = multiprocessing.get_context("forkserver")  # so that a start costs no imports
    processes.set_forkserver_preload([apply_on.__module__])
    at_random = random.Random(times)
    done = [0]
    for _ in range(times):
        begun = processes.Event()
        process = processes.Process(target=apply_on, args=(url, str(plan), begun, 30))
        process.start()
        assert begun.wait(60)
        until(lambda: one(engine, ERASED) > done[-1] or done[-1] == 150)
        time.sleep(at_random.uniform(0, 3 / times))
        process.kill()
        process.join()
        assert one(engine, HALF) == 0
        done.append(one(engine, ERASED))
    assert len(set(done) - {0, 150}) > 2, "it was hardly ever killed in the middle"
    *_, _ = erasure.apply(engine, read_archive_key(engine), Plan.read(plan.read_text()), lambda: NOW)
    assert one(engine, HALF) == 0
    assert content(engine) == [150] * 4
    assert one(engine, "SELECT sms FROM erasures_done") == 150


@pytest.mark.parametrize("times", [15, pytest.param(50, marks=pytest.mark.torture)])
def test_kill_9_leaves_nothing_half(
    archive_engine: Engine, tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at random points an SMS is either whole or erased with all that is its own, and an apply ends
    what was begun."""
    monkeypatch.setattr(erasure, "BATCH", 1)
    killed_again_and_again(archive_engine, times, tmp_path)


def test_its_bytes_are_gone_from_the_file(sqlite_engine: Engine) -> None:
    """After an erasure neither text nor number nor subject is anywhere in the file, its -wal, or beside it;
    raw bytes are compressed, and the frames that held them are gone likewise."""
    write(sqlite_engine, *(mail(number) for number in range(1, 40)), *(mail(50 + n, HIS) for n in range(40)))
    frames = [
        bytes(frame)
        for (frame,) in rows(sqlite_engine, "SELECT compressed FROM payloads WHERE arrival_id < 40")
    ]
    assert HER.encode() in all_bytes(sqlite_engine)
    assert all(frame in all_bytes(sqlite_engine) for frame in frames)
    erased(sqlite_engine, numbers=[HER])
    assert leave_no_bytes(sqlite_engine) is None
    left = all_bytes(sqlite_engine)
    for word in (
        HER,
        HER[3:],
        *(f"<{n}@her.example>" for n in range(1, 40)),
        f"{SECRET_TEXT} 1 ",
        *(f"{SECRET_TEXT} {n}" for n in range(10, 40)),
    ):
        assert word.encode() not in left
    assert not any(frame in left for frame in frames)
    assert left.count(HIS.encode()) >= 40


def test_a_file_of_an_earlier_version_needs_one_vacuum(sqlite_engine: Engine) -> None:
    """Where bytes were freed without being overwritten the erasure says so, and `vacuum` leaves none."""
    path = sqlite_path(sqlite_engine.url)
    write(sqlite_engine, *(mail(number) for number in range(1, 40)))
    sqlite_engine.dispose()
    driver = sqlite3.connect(str(path))
    driver.execute("PRAGMA secure_delete = OFF")
    driver.execute("PRAGMA user_version = 0")
    driver.execute("CREATE TABLE earlier AS SELECT * FROM sms_content")
    driver.execute("DROP TABLE earlier")
    driver.commit()
    driver.close()
    erased(sqlite_engine, numbers=[HER])
    assert "db vacuum" in (leave_no_bytes(sqlite_engine) or "")
    assert HER.encode() in all_bytes(sqlite_engine)
    vacuum(sqlite_engine)
    assert leave_no_bytes(sqlite_engine) is None
    assert HER.encode() not in all_bytes(sqlite_engine)


def test_nothing_is_left_after_a_vacuum_whatever_moved(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erased in many steps, while others come, rows move between pages: after `vacuum` no copy is left."""
    monkeypatch.setattr(erasure, "BATCH", 13)
    numbers = range(1, 600)
    write(sqlite_engine, *(mail(number, f"+39333{number:07}") for number in numbers))
    for part in range(7):
        ids = tuple(number for number in numbers if number % 7 == part and number % 5)
        erased(sqlite_engine, sms=ids)
        write(sqlite_engine, *(mail(1000 + 100 * part + n, HIS) for n in range(50)))
    vacuum(sqlite_engine)
    left = all_bytes(sqlite_engine)
    assert [n for n in numbers if n % 5 and f"+39333{n:07}".encode() in left] == []
    assert [n for n in numbers if n % 5 == 0 and f"+39333{n:07}".encode() not in left] == []


def test_postgresql_has_no_row_of_it_after_its_vacuum(postgresql_engine: Engine) -> None:
    """VACUUM leaves no dead row in the tables; VACUUM FULL writes them anew, so that no byte is left."""
    write(postgresql_engine, *(mail(number) for number in range(1, 40)))
    erased(postgresql_engine, numbers=[HER])
    leave_no_bytes(postgresql_engine)
    dead = "SELECT n_dead_tup FROM pg_stat_all_tables WHERE relname = 'sms_content'"
    assert one(postgresql_engine, dead) == 0
    vacuum(postgresql_engine)
    assert one(postgresql_engine, "SELECT pg_relation_size('sms_content')") == 0


def test_a_short_text_cannot_be_guessed_from_what_stays(archive_engine: Engine, tmp_path: Path) -> None:
    """Of a snapshot of an archive without this SMS's content, an export, and all that a role may read but the
    key, all 1,000,000 codes are tried against every hash that stays, with everything else known: without the
    archive's key none of them fits; with it one does."""
    code = hers(1, text="483920")
    write(
        archive_engine,
        item(1, reading=Readable(code, PARSER), channel=Channel.WEBHOOK, payload=payload(b"483920")),
    )
    secret = read_archive_key(archive_engine)
    erased(archive_engine, numbers=[HER])
    copy = tmp_path / "snapshot.db"
    snapshot(archive_engine, copy, NOW)
    kept = sqlite3.connect(str(copy))
    cells = {
        bytes(value) if isinstance(value, bytes) else str(value).encode()
        for (table,) in kept.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for row in kept.execute(f"SELECT * FROM {table}")
        for value in row if value is not None
    }  # fmt: skip
    kept.close()
    assert secret not in cells
    with reading(archive_engine) as connection:  # what a role sees that may read all but the key
        for table in tables.metadata.sorted_tables:
            if table is not tables.archive_key:
                for row in connection.exec_driver_sql(f"SELECT * FROM {table.name}"):
                    cells |= {bytes(one) if isinstance(one, bytes) else str(one).encode() for one in row}
    export = io.StringIO()
    assert export_jsonl(archive_engine, export) == 1
    cells |= {str(value).encode() for value in json.loads(export.getvalue()).values()}
    assert unique_key(code, secret) in cells
    guessed = [f"{n:06}" for n in range(1_000_000)]
    for hashed in (bytes, lambda raw: sha256(raw).digest(), lambda raw: sha256(raw).hexdigest().encode()):
        assert not any(hashed(guess.encode()) in cells for guess in guessed)
    wrong = bytes(32)
    assert not any(
        unique_key(code._replace(text=guess), wrong) in cells for guess in guessed[483_000:484_000]
    )
    assert [g for g in guessed[483_900:483_999] if unique_key(code._replace(text=g), secret) in cells] == [
        "483920"
    ]
