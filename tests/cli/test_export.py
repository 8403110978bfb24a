"""`export` for spreadsheets: a cell holds what a person sent, and a file is whole or not there."""

import csv
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.utils.escape import unescape
from sqlalchemy import Engine

from ingestor.archive import xlsx
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from tests.archive.samples import NOW, PARSER, item, sms
from tests.cli.calling import PROGRAM, Called, ingestor
from tests.conftest import missing

TEXTS = (
    "=1+1", '=HYPERLINK("http://x.example";"y")', "@SUM(1)", "-1", "+39 333 1234567", "00123", "1/2", "3 mar",
    "10:30", "1e5", "12,50", "VERO", "12345678901234567890", "perché è così 😀", "a;b,c\td", "one\ntwo",
    "=1\n+1", ' say "hi" ', "http://x.example/?a=1", "<r><t>x</t></r>", "_x0041_ \x01 \ufffe",
    "=" + "y" * 300, "{=1}", "'=1", "ciao",
)  # fmt: skip


@pytest.fixture
def url(sqlite_engine: Engine) -> str:
    """An archive with one SMS for each of TEXTS."""
    items = [item(n, reading=Readable(sms(n, text=text), PARSER)) for n, text in enumerate(TEXTS, 1)]
    Store(sqlite_engine).write([Submission(None, tuple(items))], NOW)
    return sqlite_engine.url.render_as_string()


def _sheets(path: Path) -> list[list[dict[str, Any]]]:
    """Return the rows of each sheet by column, as another library reads them."""
    book = openpyxl.load_workbook(path, read_only=True)
    sheets = []
    for sheet in book.worksheets:
        header, *rows = sheet.iter_rows()
        names = [cell.value for cell in header]
        sheets.append([dict(zip(names, row, strict=True)) for row in rows])
    return sheets


def test_every_text_is_a_text_in_a_workbook(called: Callable[..., Called], url: str) -> None:
    """No cell of a sender's is a formula, a link, a number or a date; numbers and times of ours are."""
    done = called("--database-url", url, "export", "--format", "xlsx", "--output", "out.xlsx")

    assert (done.code, done.out, done.err) == (0, "", f"{len(TEXTS)} SMS exported\n")
    [rows] = _sheets(Path("out.xlsx"))
    assert [unescape(row["text"].value) for row in rows] == list(TEXTS)
    assert {row["text"].data_type for row in rows} == {"s"}
    first = rows[0]
    assert (first["id"].value, first["originator"].value) == (1, "+393330000001")
    assert (first["date_time"].value, first["date_time"].data_type) == ("20260301130000", "s")
    assert first["received_at"].value == datetime(2026, 3, 1, 12, 0, 1)  # noqa: DTZ001 - a sheet knows no zone
    assert Path("out.xlsx").stat().st_mode & 0o777 == 0o600


def test_a_workbook_goes_on_on_the_next_sheet(
    called: Callable[..., Called], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sheet has no room for follows on further ones, each with its header; none is empty."""
    monkeypatch.setattr(xlsx, "ROWS_OF_A_SHEET", 6)  # the header and five SMS

    done = called("--database-url", url, "export", "--format", "xlsx", "-o", "out.xlsx")

    sheets = _sheets(Path("out.xlsx"))
    assert [len(rows) for rows in sheets] == [5, 5, 5, 5, 5]
    assert [row["id"].value for rows in sheets for row in rows] == list(range(1, len(TEXTS) + 1))
    assert done.err == f"{len(TEXTS)} SMS exported on 5 sheets\n"


def test_a_text_that_a_cell_cannot_hold_is_said(called: Callable[..., Called], sqlite_engine: Engine) -> None:
    """It is cut at Excel's limit, one line says so, and the exit code is 1."""
    reading = Readable(sms(1, text="x" * 40_000), PARSER)
    Store(sqlite_engine).write([Submission(None, (item(1, reading=reading),))], NOW)

    done = called("--database-url", str(sqlite_engine.url), "export", "--format", "xlsx", "-o", "out.xlsx")

    assert done.code == 1
    assert "1 texts are longer than a cell's 32,767 characters and are cut" in done.faults[0]
    [[row]] = _sheets(Path("out.xlsx"))
    assert len(row["text"].value) == 32_767


def test_a_workbook_of_an_empty_archive_opens(called: Callable[..., Called], sqlite_engine: Engine) -> None:
    """It has the header, as the CSV has."""
    done = called("--database-url", str(sqlite_engine.url), "export", "--format", "xlsx", "-o", "out.xlsx")

    assert done.code == 0
    assert _sheets(Path("out.xlsx")) == [[]]


def test_a_workbook_wants_a_file(
    called: Callable[..., Called], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name, into a device or without the library it is one line, and nothing is written."""
    export = ("--database-url", url, "export", "--format", "xlsx")
    assert called(*export).code == called(*export, "-o", "/dev/null").code == 2
    assert called("--database-url", url, "export", "--excel", "comma").code == 2
    monkeypatch.delitem(sys.modules, "ingestor.archive.xlsx", raising=False)
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    without = called(*export, "-o", "out.xlsx")
    assert without.code == 1
    assert without.faults[0].startswith("ingestor: xlsxwriter is not installed; install ")
    assert not Path("out.xlsx").exists()


def test_csv_for_excel_keeps_what_excel_would_change(called: Callable[..., Called], url: str) -> None:
    """A mark of UTF-8, the separator asked for, and what may be a number, a date or a formula as `="…"`."""
    done = called("--database-url", url, "export", "--format", "csv", "--excel", "semicolon")

    assert done.raw.startswith(b'\xef\xbb\xbf"id";"provider";')
    rows = list(csv.DictReader(done.raw.decode("utf-8-sig").splitlines(keepends=True), delimiter=";"))
    shown = {row["id"]: row["text"] for row in rows}
    assert [shown[str(TEXTS.index(text) + 1)] for text in ("00123", "3 mar", "VERO", "ciao", "=1+1")] == [
        '="00123"', '="3 mar"', '="VERO"', "ciao", '="=1+1"',
    ]  # fmt: skip
    assert rows[0]["originator"] == '="+393330000001"'
    assert shown["2"] == '="=HYPERLINK(""http://x.example"";""y"")"'
    for text in shown.values():  # a formula is one constant, or there is none
        assert not text.startswith(("=", "+", "-", "@")) or text[2:-1].replace('""', "").count('"') == 0


@pytest.mark.parametrize("form", ["jsonl", "csv", "xlsx"])
def test_a_full_disk_leaves_the_old_file(url: str, form: str, small_disk: Path) -> None:
    """One line says what is full, exit 1; what stood under the name stands, and nothing lies beside it."""
    old = small_disk / "out"
    old.write_text("old")
    (small_disk / "ballast").write_bytes(b"")
    free = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_bsize))

    done = ingestor("--database-url", url, "export", "--format", form, "-o", old, folder=small_disk)

    assert (done.code, len(done.faults)) == (1, 1), done.err
    assert f"{old} could not be written (No space left on device)" in done.err
    assert old.read_text() == "old"
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "out"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "xlsx"])
def test_no_export_takes_the_place_of_an_archive(called: Callable[..., Called], url: str, form: str) -> None:
    """Nor of what lies beside it, nor by another name of it: one slip of the hand, and all was gone."""
    archive = Path(url.removeprefix("sqlite:///"))
    link = archive.with_name("link")
    link.symlink_to(archive)
    before = archive.read_bytes()
    for target in (archive, Path(f"{archive}-wal"), link):
        done = called("--database-url", url, "export", "--format", form, "-o", target)
        assert (done.code, len(done.faults)) == (2, 1), target
        assert "name another file" in done.err
    assert archive.read_bytes() == before
    assert link.is_symlink()


def test_a_full_disk_behind_stdout_is_said(url: str, tmp_path: Path) -> None:
    """What the shell's file got cannot be taken back: the line says that it is not whole."""
    command = [PROGRAM, "--database-url", url, "export", "--format", "csv"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)

    assert done.returncode == 1
    assert done.stderr.startswith("ingestor: what went to stdout is not whole (No space left on device); ")
    assert len(done.stderr.splitlines()) == 1


SLOW = """
import sys, time
from ingestor.archive import xlsx
from ingestor.cli import main
given = xlsx.rows_of
def slowly(*arguments):
    for row in given(*arguments):
        yield row
        print("begun", flush=True)
        time.sleep(60)
xlsx.rows_of = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("end", "left"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, 2)])
def test_a_workbook_that_was_ended_is_not_there(url: str, tmp_path: Path, end: int, left: int) -> None:
    """Nothing stands under its name; what only a kill leaves beside it goes with the next export."""
    folder = tmp_path / "out"
    folder.mkdir()
    export = ["--database-url", url, "export", "--format", "xlsx", "-o", str(folder / "out.xlsx")]
    with subprocess.Popen([sys.executable, "-c", SLOW, *export], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(end)
        assert process.wait(20) != 0
    assert len(list(folder.iterdir())) == left

    assert ingestor(*export, folder=tmp_path).code == 0
    assert [path.name for path in folder.iterdir()] == ["out.xlsx"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("export -o out.jsonl", ""), ("snapshot copy.db", "SMS, "), ("optout scan", "wait for a person"),
        ("check --deep", "every kept byte is as it was written"),
    ],
)  # fmt: skip
def test_a_terminal_shows_how_far_it_is(url: str, command: str, told: str, tmp_path: Path) -> None:
    """With stderr on a terminal and stdout in a file there is a bar, and what is found goes into the file."""
    ours, theirs = pty.openpty()
    words = [PROGRAM, "--database-url", url, *command.split()]
    with (tmp_path / "stdout").open("wb") as stdout:
        process = subprocess.Popen(
            words, cwd=tmp_path, stdout=stdout, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
    os.close(theirs)
    seen = b""
    while piece := _read(ours):
        seen += piece
    os.close(ours)
    assert process.wait(20) == (2 if command.startswith("check") else 0)  # no mailbox is configured
    assert b"%" in seen
    assert told in (tmp_path / "stdout").read_text()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the last one has closed it
        return b""


@pytest.mark.torture
def test_libreoffice_shows_every_text_as_it_was_sent(url: str, tmp_path: Path) -> None:
    """An Italian LibreOffice reads the workbook, and writes the same texts as its cells show them."""
    program = shutil.which("soffice")
    if program is None:
        missing("LibreOffice is not installed; apt-get install --no-install-recommends libreoffice-calc")
        raise AssertionError
    ingestor("--database-url", url, "export", "--format", "xlsx", "-o", "out.xlsx", folder=tmp_path)
    # Comma, double quote, UTF-8, from line 1, no column formats, Italian, text quoted, cells as shown.
    convert = "csv:Text - txt - csv (StarCalc):44,34,76,1,,1040,true,true"
    command = [
        program,
        f"-env:UserInstallation=file://{tmp_path}/profile",
        "--headless",
        "--convert-to",
        convert,
    ]

    done = subprocess.run([*command, "out.xlsx"], cwd=tmp_path, capture_output=True, timeout=200)

    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == list(TEXTS)
    assert {row["originator"][:6] for row in rows} == {"+39333"}
    assert {row["date_time"] for row in rows} == {"20260301130000"}
    assert rows[0]["received_at"] == "2026-03-01 12:00:01"
