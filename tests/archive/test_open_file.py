"""An SQLite file that somebody renames, replaces or removes, or the -wal of, while it is open."""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine, reading
from ingestor.archive.items import Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.open_file import OpenFile, fault, open_file, saved_copies
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from ingestor.archive.wal_care import IDLE_SECONDS, LARGE, LONGEST_SECONDS, WalCare
from ingestor.errors import ArchiveUnavailable
from tests.archive.reading import number_of
from tests.archive.samples import NOW, item

BESIDE = ("", "-wal", "-shm")


class Desk:
    """A store on a file, with a run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.path = Path(str(engine.url.database))
        self.run = begin_run(engine, "run", {}, NOW)
        self.store = Store(engine)

    def write(self, *numbers: int) -> list[str]:
        """Write SMS in one transaction; return their outcomes."""
        return self.write_work(self.work(*numbers))

    def work(self, *numbers: int) -> list[Submission]:
        """Return SMS as one submission."""
        return [Submission(self.run, tuple(item(number) for number in numbers))]

    def write_work(self, work: list[Submission]) -> list[str]:
        """Write a submission, perhaps not for the first time; return the outcomes."""
        return [str(outcome) for outcome in self.store.write(work, NOW)[0].outcomes]

    def move(self, name: str) -> None:
        """Rename the file with all that is beside it."""
        _move(self.path, self.path.with_name(name))

    @property
    def saved(self) -> list[Path]:
        """The copies beside the file."""
        return saved_copies(self.path)


def _move(path: Path, target: Path) -> None:
    for ending in BESIDE:
        Path(f"{path}{ending}").rename(f"{target}{ending}")


def _number_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM inbound_sms").fetchone()[0])


@pytest.fixture
def desk(sqlite_engine: Engine) -> Iterator[Desk]:
    """An archive with one SMS."""
    desk = Desk(sqlite_engine)
    assert desk.write(1) == ["stored"]
    yield desk
    for path in desk.saved:
        path.unlink()


def test_a_file_that_was_renamed_is_saved_and_waited_for(desk: Desk) -> None:
    """One error line that names the copy; no receipt, nothing read, no new file; and on when it is back."""
    desk.move("old.db")
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(ArchiveUnavailable, match="removed or renamed"):
                desk.write(2)
            with pytest.raises(ArchiveUnavailable), reading(desk.engine):
                pass
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert [str(path) for path in desk.saved] == [line["saved"]]
    assert _number_in(desk.saved[0]) == 1
    assert not desk.path.exists()
    _move(desk.path.with_name("old.db"), desk.path)
    assert desk.write(2) == ["stored"]
    assert number_of(desk.engine, "inbound_sms") == 2


def test_a_file_that_was_removed_comes_back_from_its_copy(desk: Desk) -> None:
    """The open file was all there was; its copy put back, everything goes on without a restart."""
    for ending in BESIDE:
        Path(f"{desk.path}{ending}").unlink()
    with pytest.raises(ArchiveUnavailable, match="saved as"):
        desk.write(2)
    desk.saved[0].rename(desk.path)
    assert desk.write(2) == ["stored"]
    desk.engine.dispose()
    assert _number_in(desk.path) == 2


def test_the_same_archive_is_taken_and_an_older_one_is_not(desk: Desk, tmp_path: Path) -> None:
    """A copy of now goes on by itself; one of before waits for a person, and is not written to."""
    older, same = tmp_path / "older.db", tmp_path / "same.db"
    for copy in (older, same):
        with closing(sqlite3.connect(desk.path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        if copy is older:
            assert desk.write(2) == ["stored"]
    older.replace(desk.path)
    with pytest.raises(ArchiveUnavailable, match="replaced"):
        desk.write(3)
    assert _number_in(desk.path) == 1
    assert fault(desk.path) is not None
    same.replace(desk.path)
    assert desk.write(3) == ["stored"]
    assert number_of(desk.engine, "inbound_sms") == 3
    assert fault(desk.path) is None


def test_an_older_archive_copied_over_the_open_file_is_noticed(desk: Desk, tmp_path: Path) -> None:
    """`cp` leaves the inode as it is: the rows that are missing tell, and it waits for a person."""
    with closing(sqlite3.connect(desk.path)) as source, closing(sqlite3.connect(tmp_path / "old")) as target:
        source.backup(target)
    for number in range(2, 6):
        desk.write(number)
    _file(desk).checkpoint()
    shutil.copyfile(tmp_path / "old", desk.path)
    for _ in range(2):
        with pytest.raises(ArchiveUnavailable, match="overwritten with an older archive"):
            desk.write(9)
        with pytest.raises(ArchiveUnavailable, match="overwritten"), reading(desk.engine):
            pass
    desk.engine.dispose()
    assert desk.write(9) == ["stored"]


def test_another_archive_is_never_written_to(desk: Desk, tmp_path: Path) -> None:
    """One with a key of its own waits for a person, however many rows it has."""
    other = open_engine(f"sqlite:///{tmp_path / 'other.db'}")
    ensure_schema(other, auto_upgrade=True)
    Desk(other).write(*range(10))
    other.dispose()
    (tmp_path / "other.db").replace(desk.path)
    with pytest.raises(ArchiveUnavailable):
        desk.write(20)
    assert _number_in(desk.path) == 10


@pytest.mark.parametrize("gone", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_a_wal_that_was_removed_is_taken_into_the_file(desk: Desk, gone: list[str]) -> None:
    """What stood in it only is in the file before anything more is acknowledged."""
    for ending in gone:
        Path(f"{desk.path}{ending}").unlink()
    assert desk.write(2) == ["stored"]
    assert desk.write(3) == ["stored"]
    with closing(sqlite3.connect(desk.path)) as other:
        assert other.execute("SELECT count(*) FROM sms").fetchone() == (3,)
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy = desk.path.with_name("alone.db")
    desk.engine.dispose()
    shutil.copy(desk.path, copy)
    assert _number_in(copy) == 3


def test_a_folder_that_was_moved_is_waited_for(desk: Desk) -> None:
    """Nothing can be saved where there is no folder; the open file is kept, and taken again in its place."""
    folder = desk.path.parent
    folder.rename(folder.with_name("elsewhere"))
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(ArchiveUnavailable):
                desk.write(2)
    assert [line["log_level"] for line in lines] == ["error"]
    folder.with_name("elsewhere").rename(folder)
    assert desk.write(2) == ["stored"]


def test_a_commit_into_a_file_that_went_away_has_no_receipt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file goes between the first statement and the commit; put back, the commit counts once."""
    commit = desk.engine.dialect.do_commit

    def rename_and_commit(connection: object) -> None:
        desk.move("old.db")
        commit(connection)  # type: ignore[arg-type]

    work = desk.work(2)
    with monkeypatch.context() as patched:
        patched.setattr(desk.engine.dialect, "do_commit", rename_and_commit)
        with pytest.raises(ArchiveUnavailable):
            desk.write_work(work)
    with pytest.raises(ArchiveUnavailable):
        desk.write_work(work)
    _move(desk.path.with_name("old.db"), desk.path)
    assert desk.write_work(work) == ["stored"]
    counts = balance(desk.engine, desk.run)
    assert (counts.read, counts.stored) == (2, 2)


def test_a_stop_saves_what_is_open(desk: Desk) -> None:
    """The file was removed and nobody wrote since: no handle is closed before its content is safe."""
    for ending in BESIDE:
        Path(f"{desk.path}{ending}").unlink()
    desk.engine.dispose()
    assert [_number_in(path) for path in desk.saved] == [1]


def test_a_new_start_beside_a_copy_does_not_begin_anew(desk: Desk) -> None:
    """After a restart the archive is missing, and its copy is there: an empty one would look healthy."""
    desk.move("old.db")
    desk.engine.dispose()
    engine = open_engine(f"sqlite:///{desk.path}")
    with pytest.raises(ArchiveUnavailable, match="is not there; its content was saved as"):
        ensure_schema(engine, auto_upgrade=True)
    assert not desk.path.exists()
    desk.saved[0].rename(desk.path.with_name("elsewhere"))  # a person decides to go on without it
    ensure_schema(engine, auto_upgrade=True)
    assert number_of(engine, "inbound_sms") == 0
    engine.dispose()


def _file(desk: Desk) -> OpenFile:
    file = open_file(desk.engine)
    assert file is not None
    return file


@pytest.mark.parametrize("seconds", [IDLE_SECONDS, LONGEST_SECONDS])
def test_a_copy_of_the_file_alone_holds_everything(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """After a minute without intake, and after an hour with it, nothing stands in the -wal only."""
    begun = time.monotonic()
    care = WalCare(desk.engine, _file(desk), lambda: begun, lambda _: None)
    copy = desk.path.with_name("alone.db")

    def copied() -> int:
        shutil.copy(desk.path, copy)
        return _number_in(copy)

    care.look()
    assert _file(desk).wal_size
    monkeypatch.setattr(time, "monotonic", lambda: begun + seconds)
    care.look()
    assert copied() == 1
    assert not _file(desk).wal_size


def test_a_clean_stop_empties_the_wal_beside_another_process(desk: Desk) -> None:
    """The last connection does so by itself; this one is not the last."""
    with closing(sqlite3.connect(desk.path)) as other:
        assert other.execute("SELECT count(*) FROM sms").fetchone() == (1,)
        desk.engine.dispose()
        assert not Path(f"{desk.path}-wal").stat().st_size


def test_a_writer_is_not_kept_waiting(desk: Desk) -> None:
    """Somebody writes, and somebody reads: the look at the -wal waits for neither."""
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        assert _file(desk).checkpoint() == 0  # all is in the file, the -wal is not emptied
        assert time.monotonic() - begun < 5
        other.execute("ROLLBACK")
    assert _file(desk).checkpoint() is None


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM sms").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_reader_that_keeps_the_wal_from_shrinking_is_named(desk: Desk) -> None:
    """Its process number and program stand in one line of the log, and in what `status` shows."""
    told: list[str | None] = []
    command = [sys.executable, "-c", READER, str(desk.path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader,
        structlog.testing.capture_logs() as lines,
    ):
        assert reader.stdout is not None
        assert reader.stdin is not None
        reader.stdout.readline()
        care = WalCare(desk.engine, _file(desk), time.monotonic, told.append)
        number = 2
        while _file(desk).wal_size <= LARGE + LARGE // 8:
            desk.write(*range(number, number + 500))
            number += 500
        care.look()
        care.look()
        reader.stdin.close()
        reader.wait()
        care.look()
        assert not _file(desk).wal_size
    assert told[0] is not None
    assert f"process {reader.pid} (python" in told[0]
    assert told[2] is None
    assert [line["event"] for line in lines] == [
        "a reader keeps the -wal from shrinking", "the -wal shrinks again"
    ]  # fmt: skip
