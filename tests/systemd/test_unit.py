"""The unit, the user and the folders as systemd's own tools read them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import missing

SYSTEMD = Path(__file__).parents[2] / "systemd"
INSTALLED = "/opt/ingestor/bin/ingestor"

pytestmark = pytest.mark.systemd


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is missing; install it with: apt-get install systemd")
    return str(found)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The shipped unit, naming a program that exists here: `verify` looks for it."""
    program = tmp_path / "ingestor"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / "ingestor.service"
    copy.write_text((SYSTEMD / "ingestor.service").read_text().replace(INSTALLED, str(program)))
    return copy


def _verify(unit: Path) -> str:
    # `verify` exits 0 even for unknown keys and bad values: whatever it says is a failure.
    done = subprocess.run([_tool("systemd-analyze"), "verify", unit], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_verify_has_nothing_to_say(unit: Path) -> None:
    """No directive is unknown, misplaced or badly written."""
    assert _verify(unit) == ""


def test_verify_has_nothing_to_say_of_the_nightly_backup(unit: Path) -> None:
    """The timer finds its service, and both are written as systemd reads them."""
    for name in ("ingestor-backup.service", "ingestor-backup.timer"):
        text = (SYSTEMD / name).read_text()
        (unit.parent / name).write_text(text.replace(INSTALLED, str(unit.parent / "ingestor")))

    assert _verify(unit.parent / "ingestor-backup.timer") == ""


def test_verify_has_nothing_to_say_of_the_socket(unit: Path) -> None:
    """The socket finds the service of its name, and is written as systemd reads it."""
    (unit.parent / "ingestor.socket").write_text((SYSTEMD / "ingestor.socket").read_text())

    assert _verify(unit.parent / "ingestor.socket") == ""


def test_verify_would_say_it(unit: Path) -> None:
    """The test above sees an unknown directive."""
    unit.write_text(unit.read_text().replace("[Install]", "RestartSleeps=3\n[Install]"))

    assert "RestartSleeps" in _verify(unit)


def test_the_sandbox_rates_1_6_or_better(unit: Path) -> None:
    """The unit stays ahead of every mail daemon that was measured (2.9 was the best of them)."""
    rated = subprocess.run(
        [_tool("systemd-analyze"), "security", "--offline=true", "--threshold=16", "--no-pager", unit],
        capture_output=True, text=True,
    )  # fmt: skip

    assert rated.returncode == 0, rated.stdout.splitlines()[-1]


def test_the_unit_asks_only_for_what_systemd_252_knows() -> None:
    """Directives of later versions are left out even where the systemd here would take them."""
    text = (SYSTEMD / "ingestor.service").read_text()
    later = "notify-reload|RestartSteps|RestartMaxDelaySec|RestartMode|ImportCredential|MemoryZSwap"

    assert not re.search(rf"^(Type=)?({later})", text, re.MULTILINE)


def test_a_wrong_configuration_is_not_restarted() -> None:
    """The exit code 2 of the command line and the unit agree, and everything else is started again."""
    lines = (SYSTEMD / "ingestor.service").read_text().splitlines()

    assert "RestartPreventExitStatus=2" in lines
    assert "Restart=always" in lines
    assert "RestartSec=10" in lines
    assert "StartLimitIntervalSec=0" in lines


def test_sysusers_makes_the_user(tmp_path: Path) -> None:
    """systemd-sysusers reads our file and would make a locked system user without a shell."""
    (tmp_path / "etc").mkdir()
    done = subprocess.run(
        [_tool("systemd-sysusers"), f"--root={tmp_path}", SYSTEMD / "ingestor.sysusers.conf"],
        capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    made = (tmp_path / "etc/passwd").read_text()
    assert re.search(r"^ingestor:.*:/var/lib/ingestor:/usr/sbin/nologin$", made, re.MULTILINE)


def test_tmpfiles_makes_the_folders(tmp_path: Path) -> None:
    """The daemon may read its configuration and write its state; the secrets are root's."""
    if os.geteuid() != 0:
        pytest.skip("only root may give folders away")
    (tmp_path / "etc/ingestor").mkdir(parents=True)
    (tmp_path / "etc/ingestor/ingestor.toml").write_text("")
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0:::\ningestor:x:123:123::/var/lib/ingestor:/usr/sbin/nologin\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\ningestor:x:123:\n")
    done = subprocess.run(
        [_tool("systemd-tmpfiles"), "--create", f"--root={tmp_path}", SYSTEMD / "ingestor.tmpfiles.conf"],
        capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert _mode(tmp_path / "etc/ingestor/ingestor.toml") == ("640", 0, 123)
    assert _mode(tmp_path / "etc/credstore") == ("700", 0, 0)
    assert _mode(tmp_path / "var/lib/ingestor") == ("750", 123, 123)


def _mode(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return f"{state.st_mode & 0o777:o}", state.st_uid, state.st_gid
