"""What an import says while it runs and at its end."""

import io
import os
import sys
import time
from pathlib import Path

import pytest

from ingestor.cli import import_display
from ingestor.cli.import_display import display_for
from ingestor.intake.files.books import Tally
from ingestor.record import Outcome
from tests.intake.files.importing import Importer
from tests.intake.files.mails import broken_mail, foreign_mail, mbox_of, sms_mail
from tests.waiting import until


def tally(mails: int) -> Tally:
    """Return a tally of an import under way."""
    made = Tally(mails=mails, taken=mails * 1000)
    made.outcomes.update({Outcome.STORED: mails - 1, Outcome.IGNORED: 1})
    return made


def test_lines_come_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere than on a terminal a line says bytes, mails, rate and balance, though nothing goes on."""
    monkeypatch.setattr(import_display, "INTERVAL", 0.2)
    began, said = time.monotonic(), ""

    def told(words: str) -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return words in said

    with display_for(quiet=False) as display:
        display.expect(lambda: 10_000_000)
        for mails in (1000, 2000, 3000):
            display.show(tally(mails))
        until(lambda: told(" a second; 2,999 stored, 1 ignored\n"))
    lines = said.splitlines()
    assert len(lines) <= (time.monotonic() - began) / 0.2
    assert lines[-1].startswith("3.0 MB of 10.0 MB, 3,000 mails, ")


def test_a_terminal_has_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal too there are bar, bytes and live balance, and nothing of them stays."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    with display_for(quiet=False) as display:
        display.expect(lambda: 10_000)
        display.show(tally(7))
        display.live.refresh()  # type: ignore[attr-defined]  # the bar has it
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]  # the StringIO above
    assert "6 stored, 1 ignored" in said
    assert "7.0/10.0 kB" in said


def test_quiet_is_quiet(run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet nothing but the result is said, and no walk is taken to measure."""
    monkeypatch.setattr(import_display, "INTERVAL", 0.001)
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1), foreign_mail(1)))
    assert " MB, " not in run_sqlite_import(box, "--quiet").err
    assert "MB of " in run_sqlite_import(box).err


def test_long_lists_are_cut(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound the quarantined are counted, and the command that shows all is named."""
    monkeypatch.setattr(import_display, "MOST_SHOWN", 3)
    box = tmp_path / "box"
    box.write_bytes(mbox_of(*(broken_mail(i) for i in range(9))))
    out = run_sqlite_import(box).out
    assert out.count(" at ") == 3
    assert "`ingestor quarantine list` shows all" in out


def test_what_is_no_mail_is_told_by_kind(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Many pictures are a line, and do not hide the mailbox behind rubbish, which stands before them."""
    folder = tmp_path / "home"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.PNG").write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    (folder / "notes.d").mkdir()
    (folder / "notes.d" / "README").write_bytes(b"nothing\n" * 5)
    damaged = folder / "zz.mbox"
    damaged.write_bytes(b"rubbish\n" * 20_000 + b"\n" + mbox_of(sms_mail(1), sms_mail(2)))
    done = run_sqlite_import(folder)
    out = done.out
    assert f"looks like a mailbox, but was not read:\n  {damaged} at 0: " in out
    assert "2 lines in it stand as mails begin with; --format mbox reads it" in out
    assert f"       300  .png, 240,000 bytes: {folder}/000.PNG and others\n" in out
    assert out.index("zz.mbox") < out.index(".png, ")
    assert len(out.splitlines()) < 20
    assert run_sqlite_import("--format", "mbox", damaged).counts == (2, 2, 0, 0, 0, 0)


def test_what_is_left_out_is_no_failure(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Pipes, sockets and links that lead nowhere are named, and a folder with them ends well; alone, not."""
    folder = tmp_path / "home"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("nowhere")
    alone = run_sqlite_import(folder)
    assert (alone.code, alone.counts[5]) == (1, 1)
    (folder / "box").write_bytes(mbox_of(sms_mail(1)))
    done = run_sqlite_import(folder)
    assert (done.code, done.counts) == (0, (1, 1, 0, 0, 0, 0))
    assert f"left out:\n  {folder}/link at 0: a link that leads nowhere\n" in done.out
    assert f"{folder}/pipe at 0: no regular file, but a pipe, a socket or a device\n" in done.out
    assert done.err == ""


def test_no_text_and_no_number_is_said(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Neither result nor log holds a word of a message or a whole number."""
    box = tmp_path / "box"
    box.write_bytes(
        mbox_of(sms_mail(1, "the planted secret"), broken_mail(77), sms_mail(1, "the planted secret"))
    )
    for options in ([], ["--dry-run"]):
        done = run_sqlite_import(box, *options)
        for word in ("planted", "secret", "393350000001", "393350000077"):
            assert word not in done.out + done.err


def test_odd_separators_are_told(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Mails behind separators of a form that no mail program writes are all read, and it is said."""
    odd = b"From MAILER-DAEMON Thu May 14 2026 10:23:00 GMT+0200 (Central European Summer Time)\n"
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1)) + mbox_of(sms_mail(2), sms_mail(3), separator=odd))
    done = run_sqlite_import(box)
    assert done.counts == (3, 3, 0, 0, 0, 0)
    assert "\n2 separators were of an odd form, and told by the header behind them\n" in done.out


def test_a_file_that_shrinks_is_noticed(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that loses its end between the walk and the reading is a failure, not a smaller file."""
    from ingestor.intake.files import importer

    box = tmp_path / "box"
    content = mbox_of(sms_mail(1), sms_mail(2))
    box.write_bytes(content)
    real = importer.OpenFile

    def shrunk(*arguments: object) -> object:
        box.write_bytes(content[: len(content) // 2])
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(importer, "OpenFile", shrunk)
    done = run_sqlite_import(box)
    assert (done.code, done.counts[5]) == (1, 1)
    assert "became shorter by " in done.err


def test_the_bytes_of_one_large_file_are_told_on_the_way(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar moves within a file, not only from file to file."""
    from ingestor.cli.import_display import Display
    from ingestor.intake.files import sinks

    told: list[int] = []
    monkeypatch.setattr(Display, "show", lambda _, tally: told.append(tally.taken))
    monkeypatch.setattr(sinks.ArchiveSink, "limit", 100)
    box = tmp_path / "box"
    box.write_bytes(mbox_of(*(sms_mail(number, "x" * 3000) for number in range(6000))))
    assert run_sqlite_import(box, "--quiet").code == 0
    assert len({taken for taken in told if 0 < taken < box.stat().st_size}) > 1
    assert told[-1] == box.stat().st_size
