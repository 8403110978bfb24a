"""`ingestor backup` and `restore`: whole, for its owner alone, and never over something newer unasked."""

import os
import re
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from ingestor.archive import backup as backup_module
from ingestor.archive import tables
from ingestor.archive.backup import _target
from ingestor.archive.backup import backup as make_backup
from ingestor.archive.engine import open_engine, reading, writing
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.items import Submission
from ingestor.archive.mailbox_state import note_source
from ingestor.archive.reply_tables import answer_events
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.replies import answering
from ingestor.replies.agile import Message
from ingestor.replies.answers import Decision, Kind, claim, decide, note, settle_abandoned, waiting
from ingestor.replies.rules import first_readings_over
from ingestor.replies.verdicts import Fate, Verdict
from tests.archive.samples import NOW, item
from tests.archive.test_transfer import rows, tell
from tests.cli.calling import Called
from tests.cli.conftest import Filled
from tests.waiting import until

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(filled: Filled) -> Path:
    """A folder for backups."""
    folder = filled.folder / "backups"
    folder.mkdir()
    return folder


def made(called: Called) -> Path:
    """Return the file that a backup says it has made."""
    assert called.code == 0, called.err
    return Path(called.out.split(": ")[0])


def add(filled: Filled, number: int) -> None:
    """Let one more SMS come."""
    run = begin_run(filled.engine, "import", {}, NOW)
    Store(filled.engine).write([Submission(run, (item(number),))], NOW)


def test_a_backup_is_the_archive_with_its_key_for_its_owner_alone(filled: Filled, place: Path) -> None:
    """One file, mode 0600, that needs no other and has every row and the key; nothing else is left there."""
    file = made(filled.call("backup", place))

    assert re.fullmatch(r".+-\d{8}T\d{6}Z\.db", file.name)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(place) == [file.name]  # noqa: PTH208 - hidden ones too
    copy = open_engine(f"sqlite:///{file}", read_only=True)
    assert rows(copy) == rows(filled.engine)
    assert read_archive_key(copy) == read_archive_key(filled.engine)
    copy.dispose()


def test_only_so_many_are_kept_and_nothing_else_is_touched(filled: Filled, place: Path) -> None:
    """The oldest of this archive go once the new one is there; other files stay; keep 0 is refused."""
    name = made(filled.call("backup", place)).name
    stem = name.rsplit("-", 1)[0]
    old = [place / f"{stem}-2020010{day}T000000Z.db" for day in (1, 2, 3)]
    others = [place / f"{stem}-20200101.db", place / f"other-{stem}-20200101T000000Z.db"]
    for one in (*old, *others):
        one.touch()
    (place / name).rename(place / f"{stem}-20210101T000000Z.db")

    called = filled.call("backup", place, "--keep", "2")

    left = {one.name for one in place.iterdir()}
    assert left == {made(called).name, f"{stem}-20210101T000000Z.db", *(one.name for one in others)}
    assert called.out.count("removed: ") == 3
    assert filled.call("backup", place, "--keep", "0").code == 2


def test_the_one_just_made_stays_though_another_bears_a_later_time(filled: Filled, place: Path) -> None:
    """Made while the clock was a year ahead, it would have been the newest for a year: each new one went."""
    name = made(filled.call("backup", place)).name
    later = (place / name).rename(place / f"{name.rsplit('-', 1)[0]}-29990101T000000Z.db")

    file = made(filled.call("backup", place, "--keep", "2"))
    assert set(place.iterdir()) == {later, place / file.name}
    file.rename(place / f"{name.rsplit('-', 1)[0]}-20200101T000000Z.db")
    file = made(filled.call("backup", place, "--keep", "1"))
    assert [one.name for one in place.iterdir()] == [file.name]


def test_a_failed_backup_leaves_nothing_and_removes_nothing(
    filled: Filled, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing folder is said in one line; a fault half-way leaves the older backups and no piece."""
    called = filled.call("backup", place / "missing")
    assert (called.code, len(called.faults)) == (2, 1)
    older = made(filled.call("backup", place))
    older = older.rename(place / older.name.replace("Z.db", "Z.db").replace("-20", "-19", 1))
    monkeypatch.setattr(
        "ingestor.archive.backup.copy_archive", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )

    called = filled.call("backup", place, "--keep", "1")

    assert (called.code, len(called.faults)) == (1, 1)
    assert "make room" in called.err
    assert list(place.iterdir()) == [older]


@pytest.fixture
def gone(filled: Filled, place: Path) -> tuple[Filled, Path]:
    """An archive with a backup of it, whose engine is closed as by a stopped daemon."""
    file = made(filled.call("backup", place))
    filled.engine.dispose()
    return filled, file


@pytest.mark.parametrize("archive_engine", ["sqlite"], indirect=True)
def test_a_lost_archive_comes_back(gone: tuple[Filled, Path]) -> None:
    """In its place, 0640, without what lay in a -wal; then mails that were known are known."""
    filled, file = gone
    archive = Path(str(filled.engine.url.database))
    before = rows(filled.engine)
    filled.engine.dispose()
    archive.unlink()
    Path(f"{archive}-wal").write_bytes(b"of the archive that is lost")

    called = filled.call("restore", file)

    assert called.code == 0, called.err
    assert "ingestor check" in called.out
    assert stat.S_IMODE(archive.stat().st_mode) == 0o640
    looked_at = open_engine(filled.url, read_only=True)
    assert rows(looked_at) == before
    looked_at.dispose()
    add(filled, 1)
    with reading(filled.engine) as connection:
        assert connection.execute(select(func.count()).select_from(tables.sms)).scalar() == 5


@pytest.mark.parametrize("archive_engine", ["sqlite"], indirect=True)
def test_a_newer_archive_is_replaced_only_when_asked_and_kept(gone: tuple[Filled, Path]) -> None:
    """Unasked it is refused and untouched; asked, it lies beside, whole; an equal one needs no asking."""
    filled, file = gone
    add(filled, 99)
    newer = rows(filled.engine)
    filled.engine.dispose()

    refused = filled.call("restore", file)

    assert refused.code == 2
    assert "--replace" in refused.err
    assert rows(filled.engine) == newer
    filled.engine.dispose()
    called = filled.call("restore", file, "--replace")
    assert called.code == 0, called.err
    [kept] = Path(filled.engine.url.database or "").parent.glob("*.replaced-*Z")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM sms").fetchone() == (6,)
    assert filled.call("restore", file).code == 0


@pytest.mark.parametrize("archive_engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("moved", [("",), ("", "-wal"), ("", "-wal", "-shm")])
def test_a_restore_that_was_killed_half_way_is_called_again(
    gone: tuple[Filled, Path], moved: tuple[str, ...]
) -> None:
    """Nobody begins an empty archive in its place meanwhile, and what was erased since stays erased."""
    filled, file = gone
    plan = filled.folder / "plan.json"
    assert filled.call("erase", "plan", "--sms", "1", "--basis", "x", "--output", plan).code == 0
    assert filled.call("erase", "apply", plan).code == 0
    archive = Path(str(filled.engine.url.database))
    for ending in ("-wal", "-shm"):
        Path(f"{archive}{ending}").touch()
    for ending in moved:
        Path(f"{archive}{ending}").rename(f"{archive}.replaced-20260301T120000Z{ending}")

    for words in (("status",), ("import", "/dev/null"), ("check",)):
        called = filled.call(*words)
        assert called.code != 0, words
        assert "restore was killed" in called.out + called.err, words
    assert not archive.exists()
    assert filled.call("restore", file, "--replace").code == 0
    with closing(sqlite3.connect(archive)) as connection:
        assert connection.execute("SELECT count(text), count(*) FROM inbound_sms").fetchone() == (4, 5)


@pytest.mark.parametrize("archive_engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "fault",
    [
        (Path, "replace", OSError(5, "Input/output error")),
        (backup_module, "erase_again", sqlite3.OperationalError("database or disk is full")),
    ],
)
def test_a_restore_that_fails_puts_back_what_was_there(
    gone: tuple[Filled, Path], monkeypatch: pytest.MonkeyPatch, fault: tuple[Any, str, Exception]
) -> None:
    """It cannot take the name, or finds no room: the archive is where it was, and a line says so."""
    filled, file = gone
    add(filled, 99)
    newer = rows(filled.engine)
    filled.engine.dispose()
    monkeypatch.setattr(fault[0], fault[1], lambda *_: (_ for _ in ()).throw(fault[2]))
    called = filled.call("restore", file, "--replace")
    assert (called.code, len(called.faults)) == (1, 1)
    assert f"could not be written ({fault[2].args[-1]}); make room" in called.err
    assert rows(filled.engine) == newer


@pytest.mark.postgresql
@pytest.mark.parametrize("archive_engine", ["sqlite"], indirect=True)
def test_a_restore_into_postgresql_is_whole_or_no_archive(
    filled: Filled, place: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No daemon may open it before what keeps it from answering twice is written."""
    file = made(filled.call("backup", place))
    monkeypatch.setattr("ingestor.archive.backup._NOTHING_IS_ANSWERED_TWICE", [("", "SELECT 1 / 0")])
    assert filled.call("--database-url", postgresql_url, "restore", file).code == 1
    assert "not whole yet" in filled.call("--database-url", postgresql_url, "status").err


@pytest.mark.parametrize("archive_engine", ["sqlite"], indirect=True)
def test_an_archive_that_is_open_or_a_file_that_is_no_backup_is_refused(
    gone: tuple[Filled, Path], called: Callable[..., Called]
) -> None:
    """Somebody who has it open is named; snapshots, other files and damaged ones are named as such."""
    filled, file = gone
    archive = str(filled.engine.url.database)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        held = os.open(archive, os.O_RDONLY)
        os.read(reader, 1)
        os.close(held)
        os._exit(0)
    until(lambda: archive in map(_target, Path(f"/proc/{child}/fd").iterdir()), "the archive is open")
    said = filled.call("restore", file)
    os.close(writer)
    os.waitpid(child, 0)
    assert said.code == 2
    assert f"process {child} (" in said.err

    filled.call("snapshot", filled.folder / "auditor.db")
    assert "is a snapshot" in filled.call("restore", filled.folder / "auditor.db").err
    (filled.folder / "text").write_text("no archive " * 100)
    assert filled.call("restore", filled.folder / "text").code in {1, 2}
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert filled.call("restore", file).code in {1, 2}
    assert rows(filled.engine)["sms"]


@pytest.mark.parametrize("archive_engine", ["postgresql"], indirect=True)
def test_a_backup_goes_into_an_empty_postgresql(filled: Filled, place: Path, postgresql_url: str) -> None:
    """The same file comes back into a new database, and is refused where another archive is."""
    file = make_backup(filled.engine, place, NOW, tell).path

    called = filled.spawn("--database-url", postgresql_url, "restore", file)

    assert called.code == 0, called.err
    engine = open_engine(postgresql_url)
    assert rows(engine) == rows(filled.engine)
    engine.dispose()


@pytest.mark.postgresql
@pytest.mark.parametrize("archive_engine", ["sqlite"], indirect=True)
def test_nothing_is_answered_that_the_archive_that_is_gone_may_have_answered(
    filled: Filled, place: Path, postgresql_url: str
) -> None:
    """After a restore a mailbox is as before its first reading, rules are for what comes from now on, and an
    answer that had not left in the backup is for a person to look at."""
    note_source(filled.engine, "main", "mailbox", "watching", None, 60, NOW, success=True)
    with writing(filled.engine) as connection:
        answering.set_once(connection, "mailbox:main", "", NOW)
        answering.set_once(connection, "rule:thanks", "", NOW)
        assert first_readings_over(connection, ["main"])
        for sms_id, attempts in enumerate((0, 1, 2, 1), 1):
            message = Message(f"m-{sms_id}", "+393351234567", "MyShop", "Grazie")
            decision = Decision(Kind.ANSWER, message, sms_id=sms_id, rule="thanks")
            answer = decide(connection, bytes(32), bytes(32), decision, NOW)
            assert answer == sms_id
            for attempt in range(1, attempts + 1):
                assert claim(connection, answer, attempt, NOW)
                if sms_id == 3:
                    note(connection, answer, attempt, Verdict(Fate.LATER, "busy", retry_after=0), NOW)
        note(connection, 4, 1, Verdict(Fate.ACCEPTED, "taken"), NOW)
        assert {one.answer_id: one.attempt for one in waiting(connection, LONG_AGO)} == {1: 1, 3: 3}
    file = made(filled.call("backup", place))
    filled.engine.dispose()

    for url in (filled.url, postgresql_url):
        called = filled.call("--database-url", url, "restore", file)
        assert called.code == 0, called.err
        engine = open_engine(url)
        with writing(engine) as connection:
            assert first_readings_over(connection, ["main"]) == {}
            assert answering.value_of(connection, "mailbox:main") is None
            found = answering.value_of(connection, "rule:thanks")
            assert found is not None
            assert found[1] > NOW
            assert waiting(connection, LONG_AGO) == []
            events = connection.execute(
                select(answer_events.c.answer_id, answer_events.c.attempt).where(
                    answer_events.c.event == "unknown"
                )
            ).all()
            assert sorted(events) == [(1, 1), (2, 1), (3, 3)]
            assert settle_abandoned(connection, 0, datetime.now(UTC)) == 0
        engine.dispose()
