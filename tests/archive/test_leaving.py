"""Files that leave: whole or not at all, for their owner alone, and nothing stays of one that was ended."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.archive.export import leaving

SLOW = """
import sys
import time
from pathlib import Path
from ingestor.archive.export import leaving
with leaving(Path(sys.argv[1]), 0o600) as temporary:
    temporary.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def _begun(target: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", SLOW, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_mode_is_there_from_the_start(tmp_path: Path, umask: int, mode: int) -> None:
    """Whatever the umask, nobody else can open it while it is written."""
    before = os.umask(umask)
    try:
        with leaving(tmp_path / "out", mode) as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == mode
            temporary.write_bytes(b"all")
    finally:
        os.umask(before)
    assert (tmp_path / "out").read_bytes() == b"all"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """In a folder that others may write, a link overwrites nobody's file."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "out").symlink_to(precious)
    with leaving(tmp_path / "out", 0o600) as temporary:
        temporary.write_bytes(b"new")
    assert precious.read_text() == "precious"
    assert not (tmp_path / "out").is_symlink()


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """What could not be written whole was never there."""
    (tmp_path / "out").write_text("old")
    with pytest.raises(OSError, match="full"), leaving(tmp_path / "out", 0o600):
        raise OSError("full")
    assert (tmp_path / "out").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_sigterm_removes_what_was_begun(tmp_path: Path) -> None:
    """systemd's and an admin's way to end a command leaves nothing behind."""
    with _begun(tmp_path / "out") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) != 0
    assert list(tmp_path.iterdir()) == []


def test_the_next_file_sweeps_what_a_kill_left_and_no_more(tmp_path: Path) -> None:
    """One that is still being written, and files of others, stay."""
    with _begun(tmp_path / "killed") as killed, _begun(tmp_path / "alive"):
        killed.kill()
        killed.wait()
        (tmp_path / ".others.part").write_text("theirs")
        assert len(list(tmp_path.glob(".*.part"))) == 3
        with leaving(tmp_path / "out", 0o600) as temporary:
            temporary.write_bytes(b"x")
        left = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
        assert left == [".alive.ingestor", ".others.part", "out"]
