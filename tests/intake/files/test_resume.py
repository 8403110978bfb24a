"""An import that was stopped, or killed, goes on where it was: nothing lost, nothing doubled."""

import contextlib
import gzip
import io
import itertools
import mailbox
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive import words
from ingestor.archive.engine import open_engine
from ingestor.cli import main
from ingestor.intake.files import blocks, delivery, sinks, workers
from tests.intake.files.containers import zip_of
from tests.intake.files.importing import Done, Importer
from tests.intake.files.mails import broken_mail, foreign_mail, mbox_of, sms_mail
from tests.waiting import until

KILLS = [12, pytest.param(60, marks=pytest.mark.torture)]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and batches so small that even a short import commits many times."""
    monkeypatch.setattr(blocks, "MOST_MAILS", 40)
    monkeypatch.setattr(delivery, "MOST_IN_PACK", 30)
    monkeypatch.setattr(
        delivery, "MOST_AHEAD", 3
    )  # else a worker that starts late lets all be read meanwhile
    monkeypatch.setattr(sinks, "FEWEST", 20)
    monkeypatch.setattr(sinks, "MOST", 50)
    monkeypatch.setattr(sinks.ArchiveSink, "limit", 50)
    monkeypatch.setattr(sinks, "GAP", 0.0)
    monkeypatch.setattr(workers, "SLOTS_A_WORKER", 0)  # two in all


def inputs(folder: Path) -> Path:
    """Make a folder of every kind of input that has a position of its own."""
    folder.mkdir()
    numbers = iter(range(100_000))

    def mails(count: int) -> list[bytes]:
        kinds = (sms_mail, foreign_mail, sms_mail, broken_mail, sms_mail)
        return [kinds[i % 5](next(numbers)) for i in range(count)]

    (folder / "a.mbox").write_bytes(mbox_of(*mails(400)))
    box = mailbox.Maildir(str(folder / "b"), create=True)
    for number, mail in enumerate(mails(150)):
        (folder / "b" / "cur" / f"{1_700_000_000 + number}.x:2,S").write_bytes(mail)
    box.close()
    (folder / "c.gz").write_bytes(gzip.compress(mbox_of(*mails(300), sms_mail(0))))
    singles = {f"{number:03}.eml": mail for number, mail in enumerate(mails(60))}
    (folder / "d.zip").write_bytes(zip_of({**singles, "inner": mbox_of(*mails(100))}))
    for name, mail in singles.items():
        (folder / name).write_bytes(mail)
    return folder


def in_a_child(url: str, arguments: list[str], seconds: float | None) -> bool:
    """Import in a forked process and kill -9 it after `seconds`; return whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        sys.stdout = sys.stderr = io.StringIO()
        with contextlib.suppress(BaseException):
            os._exit(main(["--database-url", url, "import", "--jobs", "2", *arguments]))
        os._exit(99)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status == 0


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("kills", KILLS)
def test_kill_9_anywhere_loses_and_doubles_nothing(
    sqlite_engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], kills: int
) -> None:
    """Killed at a random moment and resumed, a run has the balance and the rows of one that never stopped."""
    folder = inputs(tmp_path / "in")
    empty = sqlite_engine.url.database or ""
    sqlite_engine.dispose()
    shutil.copy(empty, tmp_path / "whole.db")
    began = time.monotonic()
    assert in_a_child(f"sqlite:///{tmp_path}/whole.db", [str(folder)], None)
    length = time.monotonic() - began
    expected = _state(tmp_path / "whole.db", capsys)
    random_moment = random.Random(4)
    killed = 0
    for number in itertools.count():
        path = tmp_path / f"killed-{number}.db"
        shutil.copy(empty, path)
        url = f"sqlite:///{path}"
        if in_a_child(url, [str(folder)], random_moment.uniform(0.1, 1.0) * length):
            length *= 0.9  # it was over before: the machine is less busy than it was
            continue
        engine = open_engine(url)
        begun = Importer(engine, capsys).rows("SELECT id FROM runs")
        engine.dispose()
        resume = ["--resume", str(begun[0][0])] if begun else []
        assert in_a_child(url, [*resume, str(folder)], None)
        assert _state(path, capsys) == expected
        killed += 1
        if killed == kills:
            break


def _state(path: Path, capsys: pytest.CaptureFixture[str]) -> list[object]:
    engine = open_engine(f"sqlite:///{path}")
    rows = Importer(engine, capsys).rows
    state: list[object] = [
        rows("SELECT read, stored, duplicate, ignored, quarantined, failed, ended_at IS NULL FROM runs"),
        rows("SELECT input, member, byte_offset, outcome FROM arrivals_detail ORDER BY id"),
        rows("SELECT text FROM inbound_sms ORDER BY id"),
        rows("SELECT path, member, size, position, hex(sha256) FROM run_inputs ORDER BY path, member"),
    ]
    engine.dispose()
    return state


def stopped_after(
    importer: Importer, monkeypatch: pytest.MonkeyPatch, commits: int, *arguments: object
) -> Done:
    """Import until `commits` batches are written, as if Ctrl-C came then; return what was said."""
    real = sinks.ArchiveSink.write
    done = []

    def counted(self: sinks.ArchiveSink, submissions: list[object]) -> object:
        done.append(1)
        if len(done) == commits:
            os.kill(os.getpid(), signal.SIGINT)
            until(self._stopping, "the signal heard")  # by a thread, while a short import comes to its end
        return real(self, submissions)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sinks.ArchiveSink, "write", counted)
        stopped = importer(*arguments)  # type: ignore[arg-type]
    assert stopped.code == 1
    assert f"import --resume {stopped.run} " in stopped.out or "-" in arguments
    return stopped


@pytest.mark.usefixtures("small_steps")
def test_ctrl_c_finishes_the_batch_and_says_how_to_go_on(
    run_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch in hand is written, the balance so far adds up, and the resumed run ends as one run."""
    folder = inputs(tmp_path / "in")
    run = stopped_after(run_import, monkeypatch, 4, folder).run
    (partly,) = run_import.rows("SELECT read, ended_at IS NULL FROM runs")
    assert 0 < partly[0] < 1000
    assert partly[1]
    done = run_import("--resume", run, folder)
    assert done.code == 0
    assert done.counts == (1071, 606, 37, 214, 214, 0)
    assert run_import.rows("SELECT count(*) FROM runs") == [(1,)]
    again = run_import("--resume", run, folder)
    assert (again.code, again.counts) == (0, done.counts)
    assert "had reached its end" in again.out


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("change", ["grown", "shorter", "different", "gone"])
def test_an_input_that_changed_is_refused_and_one_that_grew_is_not(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What had been read is hashed again: only a file that merely grew may go on."""
    box = tmp_path / "box"
    content = mbox_of(*(sms_mail(i) for i in range(2000)))
    box.write_bytes(content)
    run = stopped_after(run_sqlite_import, monkeypatch, 2, box).run
    stored = len(run_sqlite_import.texts)
    assert 0 < stored < 2000
    changed = {
        "grown": content + mbox_of(sms_mail(9000)),
        "shorter": content[:500],
        "different": content.replace(b"text 1\n", b"text x\n", 1),
        "gone": b"",
    }
    box.write_bytes(changed[change])
    done = run_sqlite_import("--resume", run, box)
    if change == "grown":
        assert (done.code, done.counts) == (0, (2001, 2001, 0, 0, 0, 0))
    else:
        assert done.code == 1
        assert done.counts[:2] == (stored + 1, stored)
        assert any(words in done.err for words in ("is shorter", "is not the same", "is not there any more"))


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("change", ["flags", "renamed", "fewer"])
def test_a_folder_is_resumed_by_its_list(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """New flags on mails of a Maildir do not matter; other files in place of those read do."""
    cur = tmp_path / "box" / "cur"
    cur.mkdir(parents=True)
    (tmp_path / "box" / "new").mkdir()
    for number in range(400):
        (cur / f"{1_700_000_000 + number}.x:2,").write_bytes(sms_mail(number))
    run = stopped_after(run_sqlite_import, monkeypatch, 2, tmp_path / "box").run
    first = cur / "1700000000.x:2,"
    if change == "flags":
        first.rename(cur / "1700000000.x:2,RS")
    elif change == "renamed":
        first.rename(cur / "1600000000.y:2,")
    else:
        for number in range(390):
            (cur / f"{1_700_000_000 + number}.x:2,").unlink()
    done = run_sqlite_import("--resume", run, tmp_path / "box")
    if change == "flags":
        assert (done.code, done.counts) == (0, (400, 400, 0, 0, 0, 0))
    else:
        assert done.code == 1
        assert "import it again without --resume" in done.err


def test_options_of_a_run_stay(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_steps: None
) -> None:
    """A resumed run keeps its filters and its source; other ones are refused."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(*(sms_mail(i) for i in range(500))))
    run = stopped_after(
        run_sqlite_import, monkeypatch, 2, box, "--source", "old", "--since", "2024-01-01"
    ).run
    other = run_sqlite_import("--resume", run, box, "--source", "new")
    assert other.code == 2
    assert "begun with --source old" in other.err
    assert run_sqlite_import("--resume", run).counts[:2] == (500, 500)
    assert run_sqlite_import.rows("SELECT DISTINCT source FROM arrivals") == [("old",)]


def test_stdin_is_read_and_not_resumed(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_steps: None
) -> None:
    """A pipe is an input like any other, except that its beginning is gone."""
    content = gzip.compress(mbox_of(*(sms_mail(i) for i in range(500))))

    class Stdin:
        buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Stdin)
    stopped = stopped_after(run_sqlite_import, monkeypatch, 2, "-")
    assert "stdin cannot be resumed" in stopped.out
    assert run_sqlite_import("--resume", stopped.run, "-").code == 2
    Stdin.buffer = io.BytesIO(content)
    done = run_sqlite_import("-")
    assert (done.code, done.counts[0]) == (0, 500)
    assert len(run_sqlite_import.texts) == 500
    assert run_sqlite_import.rows("SELECT DISTINCT input FROM arrivals_detail") == [("-",)]


@pytest.mark.usefixtures("small_steps")
def test_texts_are_indexed_while_others_are_still_read(
    run_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words are not left for the end, when the workers have nothing to do; then the rest of them follows."""
    monkeypatch.setattr(words, "STEP", 100)
    monkeypatch.setattr(words, "FEW", 1)
    (tmp_path / "old.mbox").write_bytes(mbox_of(*map(sms_mail, range(1050))))
    bring_up, indexed = words.bring_up, []

    def noted(*given: Any, **limits: Any) -> Iterator[tuple[int, int]]:
        indexed.append(run_import.rows("SELECT count(*) FROM sms")[0][0])
        return bring_up(*given, **limits)

    monkeypatch.setattr(words, "bring_up", noted)
    run_import(tmp_path / "old.mbox")
    assert indexed[0] < indexed[-1] == 1050
    assert run_import.rows("SELECT count(*) FROM sms_words") == [(1050,)]
