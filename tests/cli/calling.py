"""The real command, called as a user calls it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import forked

PROGRAM = Path(sys.executable).with_name("ingestor")


@dataclass(frozen=True)
class Called:
    """What a call of the command left: exit code, both streams as text, and stdout's bytes."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def faults(self) -> list[str]:
        """The lines that tell the user what is wrong."""
        return [line for line in self.err.splitlines() if line.startswith("ingestor: ")]


def ingestor(
    *arguments: str | Path,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    before: tuple[str, ...] = (),
) -> Called:
    """Run the command in `folder`, as a process that is forked, which is faster than to start the program.

    The installed one is started where `before` is put in front of it (`setpriv …`), or the variables need it.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INGESTOR_")}
    for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "COLUMNS"):
        clean.pop(name, None)
    clean.update(environment or {})
    command = [str(PROGRAM), *map(str, arguments)]
    if not before and forked.serves(environment or {}):
        code, out, err = forked.run(command, cwd=folder, env=clean, stdin=stdin, timeout=120)
        return Called(code, out.decode(errors="replace"), err.decode(), out)
    done = subprocess.run(
        [*before, *command], cwd=folder, env=clean, input=stdin, capture_output=True, timeout=120
    )
    return Called(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(), done.stdout)


def as_nobody() -> tuple[str, ...] | None:
    """Return what to put before a command so that `nobody` runs it, or None where that cannot be done."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return None
    before = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    able = subprocess.run([*before, str(PROGRAM), "--version"], capture_output=True)
    return before if able.returncode == 0 else None
