"""What a hostile SMS sends to a terminal is shown and never obeyed; a pipe gets the exact bytes."""

import fcntl
import json
import os
import pty
import struct
import termios
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable, Unreadable
from tests.archive.samples import NOW, PARSER, item, sms
from tests.cli.calling import PROGRAM, ingestor
from tests.forked import Forked

TEXT = "set \x1b]0;title\x07 clear \x1b[2J C1 \x9b31m del \x7f back \x08"
TEXT += " turn \u202e\u2066\u200f line \u2028 end"
OBEYED = [*range(9), 11, 12, *range(14, 27), *range(28, 32), *range(127, 160), 0x61C, 0x200E, 0x200F]
OBEYED += [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
COMMANDS = (
    ("search",),
    ("search", "--json"),
    ("show", "1"),
    ("show", "1", "--json"),
    ("show", "1", "--raw"),
    ("export",),
    ("export", "--format", "csv"),
    ("export", "--format", "csv", "--spreadsheet-safe"),
    ("quarantine", "list"),
    ("quarantine", "list", "--json"),
    ("quarantine", "show", "2"),
    ("quarantine", "show", "2", "--raw"),
    ("quarantine", "export", "-"),
    ("status",),
    ("status", "--json"),
)


@pytest.fixture
def url(sqlite_engine: Engine) -> str:
    """An archive with a hostile SMS and a hostile mail in the quarantine."""
    raw = TEXT.encode()
    store = Store(sqlite_engine)
    stored = item(1, reading=Readable(sms(1, text=TEXT, originator="Evil\x1b[31m"), PARSER), raw=raw)
    refused = item(2, reading=Unreadable("no Body label", PARSER, f"<{TEXT}>", TEXT), raw=raw)
    store.write([Submission(None, (stored, refused))], NOW)
    return sqlite_engine.url.render_as_string()


def _on_a_terminal(url: str, folder: Path, *words: str) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    command = [str(PROGRAM), "--database-url", url, *words]
    process = Forked(command, cwd=folder, env=os.environ, streams=[theirs] * 3)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: the last one has closed it
            break
        seen += piece
    os.close(ours)
    process.wait(30)
    return seen.decode("utf-8", "replace")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_lets_a_terminal_obey_an_sms(url: str, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Only our own colours and line ends are commands."""
    seen = _on_a_terminal(url, tmp_path, *words)
    assert "\x1b]" not in seen
    assert "\x1b[2J" not in seen
    assert "\x1b[31m" not in seen.partition("Evil")[2][:5]
    assert [hex(ord(letter)) for letter in seen if ord(letter) in OBEYED] == []


@pytest.mark.parametrize(
    "words",
    [
        ("status", TEXT), ("search", "--since", TEXT), ("--config", f"/none/{TEXT}", "status"),
        ("--database-url", f"sqlite:////none{TEXT}", "status"), ("export", "-o", f"/none/{TEXT}"),
        ("snapshot", f"{TEXT}.db"), ("snapshot", f"/none/{TEXT}"), ("import", f"/none/{TEXT}"),
        ("explain", f"/none/{TEXT}"), (TEXT,),
    ],
)  # fmt: skip
def test_no_name_lets_a_terminal_obey(url: str, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Neither does a complaint about one: `import *` in somebody's folder takes the names that are there."""
    seen = _on_a_terminal(url, tmp_path, *words)
    assert "\x1b]" not in seen
    assert "\x1b[2J" not in seen
    assert [hex(ord(letter)) for letter in seen if ord(letter) in OBEYED] == []


def test_a_pipe_gets_every_byte(url: str, tmp_path: Path) -> None:
    """CSV and raw bytes are exact, and JSON means the same text."""
    raw = ingestor("--database-url", url, "show", "1", "--raw", folder=tmp_path)
    assert raw.raw == TEXT.encode()
    csv = ingestor("--database-url", url, "export", "--format", "csv", folder=tmp_path)
    assert TEXT in csv.raw.decode()
    for words in (("search", "--json"), ("export",)):
        listed = ingestor("--database-url", url, *words, folder=tmp_path)
        assert json.loads(listed.raw)["text"] == TEXT
