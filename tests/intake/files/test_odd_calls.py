"""Calls that ask for something odd, and inputs that are none: one line each, and counts that stay right."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive.items import InputProgress, Submission
from ingestor.archive.rows import row_of
from ingestor.archive.runs import balance, begin_input, begin_run
from ingestor.archive.store import Store
from ingestor.errors import RunTaken, TemporaryFolderFull
from ingestor.intake.files.sinks import DrySink
from tests.archive.samples import NOW, item
from tests.intake.files.importing import Importer
from tests.intake.files.mails import foreign_mail, mbox_of, sms_mail

COMMAND = (sys.executable, "-m", "ingestor", "--database-url")

HELD = """
import time
from ingestor.archive.store import Store
from ingestor.cli import main
write, written = Store.write, []
def once(self, *given):
    if written:
        time.sleep(60)
    written.append(1)
    return write(self, *given)
Store.write = once
main()
"""
"""Writes one batch, and waits to be killed."""


def box_of(folder: Path, count: int) -> Path:
    """Write a mailbox of `count` SMS."""
    box = folder / "box"
    box.write_bytes(mbox_of(*(sms_mail(number) for number in range(count))))
    return box


def killed_import(url: str, box: Path) -> None:
    """Import `box` and kill -9 that once something is committed, and something is not."""
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, "--database-url", url, "import", "--jobs", "1", "--quiet", str(box)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    path = url.removeprefix("sqlite:///")
    while process.poll() is None:
        with closing(sqlite3.connect(path)) as connection, connection:
            if connection.execute("SELECT count(*) FROM sms").fetchone()[0]:
                break
        time.sleep(0.005)
    process.kill()
    process.wait()


def test_a_step_that_another_process_took_is_refused(archive_engine: Engine) -> None:
    """Of two that go on with one input from the same place the second writes nothing and counts nothing."""
    run_id = begin_run(archive_engine, "import", {}, NOW)
    input_id = begin_input(archive_engine, run_id, "/mail/box", None)
    step = InputProgress(input_id, 400, b"h" * 32, since=0)
    store = Store(archive_engine)
    store.write([Submission(run_id, (item(1),), progress=(step,))], NOW)
    with pytest.raises(RunTaken, match="another process"):
        Store(archive_engine).write([Submission(run_id, (item(2),), progress=(step,))], NOW)
    assert balance(archive_engine, run_id).read == 1


def test_two_resumes_at_once_count_each_mail_once(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """One gives way with a line; the run comes to its end, or can be resumed again, with every mail once."""
    box = box_of(tmp_path, 12_000)
    killed_import(run_sqlite_import.url, box)
    resume = [*COMMAND, run_sqlite_import.url, "import", "--resume", "1", "--jobs", "1", "--quiet"]
    both = [
        subprocess.Popen(resume, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    assert all("Traceback" not in words for words in said)
    assert run_sqlite_import("--resume", "1").counts == (12_000, 12_000, 0, 0, 0, 0)


def test_a_resume_takes_the_paths_of_its_run_only(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Another file, or a file for what came through stdin, is refused and changes nothing."""
    box = box_of(tmp_path, 3)
    other = tmp_path / "other"
    other.write_bytes(mbox_of(sms_mail(9)))
    run_sqlite_import(box)
    run_sqlite_import.execute("UPDATE runs SET ended_at = NULL")
    refused = run_sqlite_import("--resume", "1", other)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "goes on with the same only" in refused.err
    run_sqlite_import.execute("UPDATE runs SET options = replace(options, :path, '-')", path=str(box))
    refused = run_sqlite_import("--resume", "1", box)
    assert refused.code == 2
    assert "stdin cannot be resumed" in refused.err
    assert run_sqlite_import.rows("SELECT read, stored FROM runs") == [(3, 3)]


def test_what_failed_is_tried_again_by_a_resume(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A disk that was not mounted costs nothing: the run names the command, and ends well with it later."""
    box = box_of(tmp_path, 12_000)
    killed_import(run_sqlite_import.url, box)
    away = box.rename(tmp_path / "away")
    failed = run_sqlite_import("--resume", "1")
    assert (failed.code, failed.counts[5]) == (1, 1)
    assert "what failed is tried again by:\n  ingestor" in failed.out
    away.rename(box)
    done = run_sqlite_import("--resume", "1")
    assert (done.code, done.counts) == (0, (12_000, 12_000, 0, 0, 0, 0))
    assert "bytes since it was resumed: " in done.out


def test_pipes_and_devices_are_refused_at_once(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A FIFO would be waited for without end, and /dev/zero never ends: both are named, with what to do."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        refused = run_sqlite_import(path)
        assert (refused.code, refused.counts[5]) == (1, 1)
        assert f"{path}: is a pipe or a device; give what comes out of it to stdin: -" in refused.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_silent_pipe_can_be_left(run_sqlite_import: Importer, number: int) -> None:
    """Ctrl-C and SIGTERM are heard while nothing comes through stdin, and the balance is printed."""
    process = subprocess.Popen(
        [*COMMAND, run_sqlite_import.url, "import", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not run_sqlite_import.rows("SELECT id FROM runs"):
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "run 1: 0 read" in out
    assert "stdin cannot be resumed" in out


def test_folders_linked_with_each_other_are_read_once(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """However many ways lead to a folder, its mails are read once."""
    root = tmp_path / "root"
    names = [f"d{number}" for number in range(6)]
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        (root / name / "mail.eml").write_bytes(sms_mail(number))
        for other in names:
            if other != name:
                (root / name / f"to-{other}").symlink_to(f"../{other}")
    assert run_sqlite_import(root).counts == (6, 6, 0, 0, 0, 0)


def test_wishes_that_cannot_be_are_refused(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Days in the wrong order, an empty PATH, a file as a Maildir: one line, exit 2, and no run."""
    box = box_of(tmp_path, 1)
    for arguments, words in (
        (["--since", "2024-05-02", "--until", "2024-05-01", box], "swap --since and --until"),
        ([""], "an empty PATH names nothing"),
        (["--format", "maildir", box], "is no folder"),
    ):
        refused = run_sqlite_import(*arguments)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert words in refused.err
    assert run_sqlite_import.rows("SELECT id FROM runs") == []


def test_a_mailbox_read_as_one_mail_is_named(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A forced format that swallows a whole mailbox is obeyed, and said; a mail in a Maildir may begin so."""
    box = box_of(tmp_path, 3)
    folder = tmp_path / "Maildir"
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "cur" / "1").write_bytes(mbox_of(sms_mail(7)))
    forced = run_sqlite_import("--format", "eml", box)
    assert forced.counts[0] == 1
    assert f"looks wrong:\n  {box} at 0: a mailbox, but --format eml made one mail of it" in forced.out
    for fine in (run_sqlite_import(folder), run_sqlite_import(box)):
        assert "looks wrong" not in fine.out


def test_a_dry_run_says_who_is_outside_the_days(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """The lists of a dry run add up to its balance: SMS of other days have a line of their own."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1), sms_mail(2), foreign_mail(1)))
    done = run_sqlite_import("--dry-run", "--since", "2199-01-01", box)
    assert done.counts == (3, 0, 0, 3, 0, 0)
    assert "       2  an SMS outside --since and --until" in done.out


def test_sms_of_other_days_are_counted_apart(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Ignored are other people's mails and SMS of other days: the latter have a number of their own."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1), sms_mail(2), foreign_mail(1)))
    words = "\n2 of the ignored are SMS of days outside --since and --until\n"
    assert words in run_sqlite_import("--until", "2023-12-31", box).out
    assert "outside" not in run_sqlite_import("--since", "2024-01-01", box).out


def test_a_full_temporary_folder_is_named() -> None:
    """A dry run that finds no room for its keys says which folder is full."""
    with DrySink(None) as sink:
        with sink._temporary.connect() as connection:  # the pool hands the same one out again
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
        rows = [row_of(item(number), sink.secret) for number in range(2000)]
        with pytest.raises(TemporaryFolderFull, match=r"is full.*TMPDIR"):
            sink.write([Submission(None, rows)])


def test_names_cannot_write_lines_of_their_own(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A line end or an escape sequence in a file's name comes out as text."""
    odd = tmp_path / "a\nb\x1b[31m"
    odd.write_bytes(b"\x89PNG\r\n\x1a\n" * 50)
    done = run_sqlite_import(odd)
    assert f"{tmp_path}/a\\nb\\x1b[31m is neither mail" in done.err
    assert "\x1b" not in done.out + done.err


def test_a_closed_stdin_is_no_hindrance(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Called with stdin closed, files are imported all the same, and `-` is refused in a line."""
    box = box_of(tmp_path, 2)
    for path, code, words in ((str(box), 0, ""), ("-", 1, "stdin is closed")):
        command = [*COMMAND, run_sqlite_import.url, "import", "--quiet", path]
        done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "fault" not in done.stderr
    assert run_sqlite_import.rows("SELECT stored FROM runs ORDER BY id LIMIT 1") == [(2,)]
