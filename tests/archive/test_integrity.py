"""A full read finds damaged pages and kept bytes that are not what arrived."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive import words
from ingestor.archive.engine import sqlite_path, writing
from ingestor.archive.integrity import damage
from ingestor.archive.items import Position, Submission
from ingestor.archive.store import Store
from ingestor.record import Channel
from tests.archive.erasing import HER, HIS, erased, mail, post, write
from tests.archive.reading import one
from tests.archive.samples import NOW, broken, item


def _filled(engine: Engine, number: int) -> None:
    Store(engine).write([Submission(None, tuple(item(one) for one in range(number)))], NOW)


def _found(engine: Engine) -> list[str]:
    return list(damage(engine, lambda _done, _whole: None))


def test_a_sound_archive_has_no_damage(archive_engine: Engine) -> None:
    """Every payload is compared, and the progress says so."""
    _filled(archive_engine, 30)
    seen: list[tuple[int, int]] = []
    assert list(damage(archive_engine, lambda done, whole: seen.append((done, whole)))) == []
    assert seen[-1] == (30, 30)


@pytest.mark.parametrize("column", ["compressed", "sha256"])
def test_a_payload_that_is_not_what_arrived_is_named(archive_engine: Engine, column: str) -> None:
    """Whoever changes kept bytes past the triggers is found by their SHA-256."""
    _filled(archive_engine, 3)
    with writing(archive_engine) as connection:
        if archive_engine.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER payloads_no_update")
            connection.exec_driver_sql(f"UPDATE payloads SET {column} = x'00ff' WHERE arrival_id = 2")
        else:
            connection.exec_driver_sql("ALTER TABLE payloads DISABLE TRIGGER USER")
            connection.exec_driver_sql(f"UPDATE payloads SET {column} = '\\x00ff' WHERE arrival_id = 2")
    [sentence] = _found(archive_engine)
    assert sentence.startswith("arrival 2: ")


@pytest.mark.parametrize(
    ("table", "column", "called"),
    [
        ("sms_content", "sms_id", "SMS"),
        ("sms_numbers", "sms_id", "SMS"),
        ("sms_words", "sms_id", "SMS"),
        ("arrival_content", "arrival_id", "arrival"),
        ("payloads", "arrival_id", "arrival"),
    ],
)
def test_content_that_no_erasure_took_is_named(
    archive_engine: Engine, table: str, column: str, called: str
) -> None:
    """Whoever deletes content past the guards is found, and so is what an erasure took and somebody put back;
    what was erased, and what arrived again after that, is no damage."""
    write(archive_engine, mail(1), mail(2), mail(3, HIS), post(4, 5), post(5, 5, HIS, at=1), broken(6))
    write(archive_engine, mail(3, HIS, channel=Channel.IMPORT, position=Position(input="a", copy=1)))
    erased(archive_engine, numbers=[HER])
    write(archive_engine, mail(1, channel=Channel.IMPORT), post(4, 6), post(5, 6, HIS, at=1))
    assert _found(archive_engine) == []
    assert list(words.bring_up(archive_engine))
    assert _found(archive_engine) == []
    his = one(
        archive_engine, f"SELECT id FROM inbound_sms WHERE originator = '{HIS}' AND channel = 'mailbox'"
    )
    number = (
        his if called == "SMS" else one(archive_engine, f"SELECT min(id) FROM arrivals WHERE sms_id = {his}")
    )
    with writing(archive_engine) as connection:
        sqlite = archive_engine.dialect.name == "sqlite"
        off = f"DROP TRIGGER {table}_no_delete" if sqlite else f"ALTER TABLE {table} DISABLE TRIGGER USER"
        connection.exec_driver_sql(off)
        connection.exec_driver_sql(f"CREATE TABLE aside AS SELECT * FROM {table} WHERE {column} = {number}")
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} = {number}")
    [sentence] = _found(archive_engine)
    assert sentence.startswith(f"what {table} has of {called} {number} is missing, and no erasure took it")
    erased(archive_engine, sms=(his,))
    assert _found(archive_engine) == []
    with writing(archive_engine) as connection:
        connection.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM aside")
    [sentence] = _found(archive_engine)
    assert sentence.startswith(f"what {table} has of {called} {number} is there, though it was erased")


def _leaf_of(path: Path, name: str) -> tuple[int, int]:
    """Return the place and size of the first leaf page of a table or index (file format, 1.6)."""
    data = path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        [number] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    while data[(number - 1) * page] in (2, 5):
        start = (number - 1) * page
        cell = start + int.from_bytes(data[start + 12 : start + 14], "big")
        number = int.from_bytes(data[cell : cell + 4], "big")
    return (number - 1) * page, page


@pytest.mark.parametrize("name", ["sms", "arrivals", "sms_content", "payloads", "uq_sms_fingerprint"])
@pytest.mark.parametrize("noise", [True, False])
def test_a_damaged_page_is_found(sqlite_engine: Engine, name: str, noise: bool) -> None:
    """Zeroed by a crash or overwritten: whichever table or index it belonged to."""
    _filled(sqlite_engine, 400)
    path = sqlite_path(sqlite_engine.url)
    assert path is not None
    with writing(sqlite_engine) as connection:
        connection.exec_driver_sql("SELECT 1")
    sqlite_engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        indexed = [row[0] for row in plain.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")]
    place, size = _leaf_of(
        path, name if name in indexed or not name.startswith("uq") else "sqlite_autoindex_sms_1"
    )
    with path.open("r+b") as file:
        file.seek(place)
        file.write(os.urandom(size) if noise else bytes(size))
    assert _found(sqlite_engine) != []
