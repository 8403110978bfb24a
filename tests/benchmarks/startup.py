"""How long a command takes to start: `--help` beside the interpreter alone, others on an empty archive.

Each has its time of the processor (user and system), which a busy machine shifts least, and by the clock.
`--help` is at most 3 times the interpreter's processor time; a reading command on SQLite at most 1.6 times
that of the import of SQLAlchemy, which each of them needs, and `export`, which compares the archive with what
this version makes first, 1.75 times. On PostgreSQL the driver and the connection come to it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from tests.benchmarks._postgresql import measured_postgresql

ROUNDS = 9
MOST_FOR_HELP = 3.0
MOST_FOR_READING = 1.6
MOST = {"export": 1.75}
BARE = "python -c pass"
LIBRARY = "python -c 'import sqlalchemy'"
READING = (
    "search", "search text", "show 1", "status", "quarantine list", "export", "optout check 39333",
    "optout list", "erase list", "answers list", "db current",
)  # fmt: skip
CODE = {
    BARE: ["-c", "pass"],
    LIBRARY: ["-c", "import sqlalchemy"],
    "python -c 'import click' (a peer)": ["-c", "import click"],
}
LIGHT = ("--version", "--help", "status --help")


def main() -> None:
    """Print medians of interleaved rounds, as multiples of the interpreter's start and of SQLAlchemy's
    import."""
    with tempfile.TemporaryDirectory() as folder, measured_postgresql() as server:
        urls = {"SQLite": f"sqlite:///{folder}/archive.db"}
        if server is not None:
            urls["PostgreSQL"] = server.url()
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/cache"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        calls = {**CODE, **{f"ingestor {command}": _ingestor(command) for command in LIGHT}}
        for database, url in urls.items():
            upgrade = [sys.executable, *_ingestor("db upgrade", url)]
            subprocess.run(upgrade, env=environment, capture_output=True, check=True)
            calls |= {f"ingestor {command}, {database}": _ingestor(command, url) for command in READING}
        taken, failed = _measured(calls, environment)
    for name, (processor, clock) in taken.items():
        if name in failed:
            print(f"{'not installed':>34}  {name}")
            continue
        ratios = f"{processor / taken[BARE][0]:5.1f}x {processor / taken[LIBRARY][0]:5.2f}x"
        print(f"{processor * 1000:6.1f} ms {ratios} {clock * 1000:6.1f} ms by the clock  {name}")
    ratio = taken["ingestor --help"][0] / taken[BARE][0]
    print(f"--help / {BARE} = {ratio:.2f} (at most {MOST_FOR_HELP})")
    shares = {one: taken[f"ingestor {one}, SQLite"][0] / taken[LIBRARY][0] for one in READING}
    slowest = max(shares.keys() - MOST.keys(), key=lambda one: shares[one])
    for command, most in {slowest: MOST_FOR_READING, **MOST}.items():
        print(f"{command} / {LIBRARY} = {shares[command]:.2f} (at most {most})")


def _ingestor(command: str, url: str = "") -> list[str]:
    return ["-m", "ingestor", *(("--database-url", url) if url else ()), *command.split()]


def _measured(
    calls: dict[str, list[str]], environment: dict[str, str]
) -> tuple[dict[str, tuple[float, float]], set[str]]:
    """Return each call's median of processor's seconds and of the clock's, and the calls that failed."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    failed: set[str] = set()
    for turn in range(ROUNDS + 1):
        for name, arguments in calls.items():
            began = time.perf_counter()
            processor, code = _processor_seconds([sys.executable, *arguments], environment)
            if turn:  # the first round fills the bytecode cache
                times[name].append((processor, time.perf_counter() - began))
            if code and (name in CODE or "--" in name.partition(",")[0]):
                failed.add(name)
    middle = {name: tuple(map(statistics.median, zip(*taken, strict=True))) for name, taken in times.items()}
    return {name: (processor, clock) for name, (processor, clock) in middle.items()}, failed


def _processor_seconds(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run `command` with its output thrown away; return its processor's seconds and its exit code."""
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    child = os.posix_spawn(command[0], command, environment, file_actions=nowhere)
    _, status, used = os.wait4(child, 0)
    return used.ru_utime + used.ru_stime, os.waitstatus_to_exitcode(status)
