"""The demo as somebody sees it who has just cloned the project."""

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from ingestor.demo.folder import MARK, Agile, prepare
from ingestor.demo.imap import NUMBERS, PEOPLE, ZONE, live_mails, waiting_mails
from ingestor.demo.play import Screen, shortened
from ingestor.errors import ConfigurationError
from ingestor.providers.agile.mail import read_mail
from ingestor.providers.contract import Readable, Rules
from tests.waiting import until

NOW = datetime(2026, 11, 3, 14, 5, tzinfo=UTC)
SCRIPT = Path(sys.executable).with_name("ingestor")


def _demo(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {key: value for key, value in os.environ.items() if not key.startswith("INGESTOR_")}
    return subprocess.run(
        [SCRIPT, "demo"],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A demo that has been shown, and the folder it was called in."""
    folder = tmp_path_factory.mktemp("fresh")
    return folder, _demo(folder)


def test_the_mails_are_what_the_demo_promises() -> None:
    """Every form, repeats, a broken one and mail of others, all of the last hours; the same on every call."""
    waiting = waiting_mails(NOW)
    texts = [mail.text for mail in waiting if mail.text is not None]
    rules = Rules(ZONE, frozenset(NUMBERS))
    readings = [read_mail(mail.raw, rules) for mail in waiting]
    sms = [reading.sms for reading in readings if isinstance(reading, Readable)]

    assert [one.text for one in sms] == texts
    assert (len(waiting), len(sms), len(set(texts))) == (31, 26, 24)
    assert len({mail.raw for mail in waiting}) == 30
    assert [type(reading).__name__ for reading in readings if not isinstance(reading, Readable)].count(
        "NotOurs"
    ) == 4
    assert all(NOW - timedelta(hours=9) < one.received_at <= NOW for one in sms)
    assert [mail.raw for mail in waiting] == [mail.raw for mail in waiting_mails(NOW)]
    assert [mail.text is not None for _, mail in live_mails(NOW)] == [True, True, True, False, True]


def test_it_ends_well(shown: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Exit 0 by itself, nothing on stderr, and the balance on the screen."""
    _, done = shown

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (
        "37 read, the report among them = 28 stored + 3 duplicate + 5 ignored + 1 quarantined + 0 failed"
        in done.stdout
    )
    assert "No flag was changed" in done.stdout
    assert done.stdout.count("stored after") == 3
    assert done.stdout.count("duplicate after") == 1
    assert done.stdout.count("ignored after") == 1


def test_it_leaves_one_whole_archive(shown: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Exactly one database file, complete without its WAL, with at least 20 SMS."""
    folder, _ = shown
    left = sorted(path.name for path in (folder / "demo").iterdir())
    with closing(sqlite3.connect(f"file:{folder}/demo/archive.db?immutable=1", uri=True)) as connection:
        [count] = connection.execute("SELECT count(*) FROM inbound_sms").fetchone()

    assert left == [
        "agile-api-key", "archive.db", "daemon.log", "imap-password", "ingestor.toml", "installation",
        "spool",
    ]  # fmt: skip
    assert count == 27


def test_a_stop_is_answered_once(shown: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Its confirmation leaves one time, is reported as delivered, and the views say who is out."""
    folder, done = shown
    with closing(sqlite3.connect(f"file:{folder}/demo/archive.db?immutable=1", uri=True)) as connection:
        answers = connection.execute("SELECT number, state FROM answers_sent").fetchall()
        out = connection.execute("SELECT number, scope FROM opt_outs").fetchall()

    assert answers == [(PEOPLE[0], "delivered")]
    assert out == [(PEOPLE[0], NUMBERS[0])]
    assert "delivered; Agile was asked 1 time\n" in done.stdout
    assert f"{PEOPLE[0]} gets no more messages from {NUMBERS[0]}" in done.stdout


def test_the_commands_work_when_pasted(shown: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Each command line that the demo prints exits 0 and says something, from the same folder."""
    folder, done = shown
    _, _, after = done.stdout.partition("Go on with SQL")
    pasted = [line.strip() for line in after.splitlines() if line.startswith("  ")]
    ours = [line for line in pasted if not {"config", "check"} & set(shlex.split(line))]
    assert len(ours) >= 7

    for line in ours:
        ran = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True)
        assert ran.returncode == 0, (line, ran.stderr)
        assert ran.stdout or ">" in line, line
    assert (folder / "demo/sms.csv").read_text().count("\n") > 20


def test_the_log_is_the_daemons(shown: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """The daemon watched by IDLE, stopped in order, and put no text into its log."""
    folder, _ = shown
    log = (folder / "demo/daemon.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]

    assert any(line.get("state") == "watching" for line in lines)
    assert "daemon stops" in [line["event"] for line in lines]
    for mail in [*(mail for _, mail in live_mails(NOW)), *waiting_mails(NOW)]:
        if mail.text is not None and len(mail.text) > 4:
            assert mail.text not in log
    assert not any(number in log for number in PEOPLE if number.startswith("+"))


def test_a_second_demo_starts_afresh(shown: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """It says so, and shows the same again; an environment of somebody's real archive changes nothing."""
    folder, _ = shown
    kept = folder / "demo" / "notes.txt"
    kept.write_text("mine")
    real = folder / "real.db"
    again = _demo(folder, INGESTOR_DATABASE_URL=f"sqlite:///{real}")

    assert again.returncode == 0, again.stderr
    assert "starting afresh" in again.stdout
    assert "37 read, the report among them = 28 stored" in again.stdout
    assert "env -u INGESTOR_DATABASE_URL" in again.stdout
    assert not real.exists()
    assert kept.read_text() == "mine"
    assert [path.name for path in (folder / "demo").glob("*.db")] == ["archive.db"]


def test_ctrl_c_is_clean(tmp_path: Path) -> None:
    """An interrupt ends demo and daemon with a sentence and no traceback."""
    demo = subprocess.Popen(
        [SCRIPT, "demo"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "demo/daemon.log"
    until(lambda: log.exists() and "daemon started" in log.read_text(), "the daemon")
    demo.send_signal(signal.SIGINT)
    _, complaint = demo.communicate(timeout=30)

    assert demo.returncode == 130
    assert "Traceback" not in complaint
    assert complaint.strip().startswith("Stopped")
    assert "daemon stops" in [json.loads(line)["event"] for line in log.read_text().splitlines()]


def test_foreign_files_are_not_touched(tmp_path: Path) -> None:
    """An archive or a configuration that no demo wrote is left alone, with a sentence."""
    (tmp_path / "archive.db").write_text("precious")
    with pytest.raises(ConfigurationError, match="not made by a demo"):
        prepare(tmp_path)
    (tmp_path / "ingestor.toml").write_text("[database]\n")
    with pytest.raises(ConfigurationError, match="not made by a demo"):
        prepare(tmp_path)

    assert (tmp_path / "archive.db").read_text() == "precious"
    (tmp_path / "ingestor.toml").write_text(MARK)
    assert prepare(tmp_path).afresh


def test_the_configuration_it_writes_is_valid_anywhere(tmp_path: Path) -> None:
    """Blanks, quotes and percent signs in the folder's name end up whole in the configuration."""
    from ingestor.demo.folder import write
    from ingestor.settings import load

    odd = tmp_path / 'a "b" %20 ü'
    odd.mkdir()
    folder = prepare(odd / "demo")
    write(
        folder,
        Agile("http://127.0.0.1:1/services/", 1180, "/reports/x" * 3),
        port=1143,
        username="u",
        password="p",
    )
    settings = load(folder.configuration, None)

    assert tomllib.loads(folder.configuration.read_text())["mailbox"][0]["port"] == 1143
    assert settings.database.file == folder.archive
    assert folder.password.stat().st_mode & 0o777 == 0o600


def test_a_message_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape codes, markup and marks that turn the line are shown as harmless characters."""
    console = Console(force_terminal=True, width=120, markup=False, highlight=False, color_system="standard")
    Screen(console).sms(
        1, "2026-01-12T07:29:52Z", "+39", "\x1b[2J[bold]hi[/bold]\r\u202eevil\x07\nnext 👨‍👩‍👧"
    )

    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed
    assert "\u202e" not in printed
    assert "\x07" not in printed
    assert "[bold]hi[/bold]" in printed
    assert "👨‍👩‍👧" in printed
    assert shortened("x" * 90, 20) == "x" * 19 + "…"


def test_it_is_what_make_run_calls() -> None:
    """The first of the two commands that a stranger needs runs the demo from the checkout's environment."""
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()

    assert "run: server\n\t$(BIN)/ingestor demo" in makefile
    assert shutil.which("make") is None or "demo" in makefile
