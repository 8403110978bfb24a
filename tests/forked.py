"""Processes of the program that are forked from one which has imported its libraries, once a worker.

Each has its own streams, folder, environment, signals and end, as if a shell had started it, and the
program's modules are its own: only what interpreter and libraries do before is left out, half of a start.
Tests of that, of a process as others see it (its command line, its memory), or of what is imported when
start the program itself.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from pathlib import Path

from ingestor.cli import main

# Libraries alone: each process imports the program's own modules by itself, as they draw numbers and note the
# time when they are imported. Two daemons would give their POSTs the same identities otherwise.
_LIBRARIES = [
    "alembic.command", "apscheduler.schedulers.background", "asyncio", "cryptography.x509", "email.policy",
    "imapclient", "mailparser", "psycopg", "pydantic", "rich.live", "rich.progress", "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "structlog", "urllib3",
    "urllib.request", "uvicorn.protocols.http.httptools_impl", "uvloop", "zstandard",
]  # fmt: skip


def serves(environment: Mapping[str, str]) -> bool:
    """Say whether a fork can be given these variables: not those that an interpreter reads when it starts."""
    return not any(name.startswith(("PYTHON", "LC_", "LANG", "LD_")) for name in environment)


class Forked:
    """A process of the program, with what the tests use of `subprocess.Popen`."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], streams: Sequence[int]
    ) -> None:
        """Start it; `streams` are the descriptors of its stdin, stdout and stderr."""
        given = (list(command), str(cwd), dict(env), _Streams(streams))
        self._process = _context().Process(target=_run, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return how that was."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("ingestor", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """Return the exit code of a process, and what it wrote into the pipes that stdout and stderr are."""
    (his_in, into), (out, his_out), (err, his_err) = os.pipe(), os.pipe(), os.pipe()
    process = Forked(command, cwd=cwd, env=env, streams=[his_in, his_out, his_err])
    for one in (his_in, his_out, his_err):
        os.close(one)
    with ThreadPoolExecutor(3) as threads:
        threads.submit(_feed, into, stdin)
        said = [threads.submit(_read, one) for one in (out, err)]
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return code, said[0].result(), said[1].result()


def _feed(stream: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(stream, "wb") as pipe:
        pipe.write(data)


def _read(stream: int) -> bytes:
    with open(stream, "rb") as pipe:
        return pipe.read()


class _Streams:
    """Descriptors on their way to another process."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)

    def __getstate__(self) -> list[object]:
        return [DupFd(one) for one in self.numbers]

    def __setstate__(self, given: list[DupFd]) -> None:
        self.numbers = [one.detach() for one in given]


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    return context


def _run(command: list[str], folder: str, environment: dict[str, str], streams: _Streams) -> None:
    """Become the process that `command` starts."""
    assert not {"ingestor.intake", "ingestor.service"} & sys.modules.keys(), "somebody else's preload"
    for number, given in enumerate(streams.numbers):
        os.dup2(given, number)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    # New ones: what was opened on a file believes that it can seek.
    kind = {"encoding": sys.stdout.encoding, "closefd": False}
    sys.stdin = os.fdopen(0, errors=sys.stdout.errors, **kind)
    sys.stdout = os.fdopen(1, "w", errors=sys.stdout.errors, **kind)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", **kind)
    sys.argv = command
    sys.exit(main())
