"""How long a command takes to start: `--help` beside the interpreter alone, others on an empty archive.

Times are of the processor (user and system): a busy machine shifts them least. `--help` is at most 3 times
the interpreter; a reading command at most 1.8 times the import of SQLAlchemy, which each of them needs.
"""

import os
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 15
MOST_FOR_HELP = 3.0
MOST_FOR_READING = 1.8
BARE = "python -c pass"
LIBRARY = "python -c 'import sqlalchemy'"
READING = (
    "search", "search text", "show 1", "status", "quarantine list", "export", "optout check 39333",
    "erase list", "db current",
)  # fmt: skip
CODE = {
    BARE: ["-c", "pass"],
    LIBRARY: ["-c", "import sqlalchemy"],
    "python -c 'import click' (a peer)": ["-c", "import click"],
}
COMMANDS = ("--version", "--help", "status --help", *READING)


def main() -> None:
    """Print medians of interleaved rounds, each as a multiple of the interpreter's start and of SQLAlchemy's
    import."""
    calls = {**CODE, **{f"ingestor {command}": ["-m", "ingestor", *command.split()] for command in COMMANDS}}
    times: dict[str, list[float]] = {name: [] for name in calls}
    failed: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/cache"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["INGESTOR_DATABASE_URL"] = f"sqlite:///{folder}/archive.db"
        upgrade = [sys.executable, "-m", "ingestor", "db", "upgrade"]
        subprocess.run(upgrade, env=environment, capture_output=True, check=True)
        for turn in range(ROUNDS + 1):
            for name, arguments in calls.items():
                taken, code = _processor_seconds([sys.executable, *arguments], environment)
                if turn:  # the first round fills the bytecode cache
                    times[name].append(taken)
                if code and (name in CODE or "--" in name):
                    failed.add(name)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    for name, taken in middle.items():
        if name in failed:
            print(f"{'not installed':>23}  {name}")
            continue
        ratios = f"{taken / middle[BARE]:5.1f}x {taken / middle[LIBRARY]:5.2f}x"
        print(f"{taken * 1000:6.1f} ms {ratios}  {name}")
    print(f"--help / {BARE} = {middle['ingestor --help'] / middle[BARE]:.2f} (at most {MOST_FOR_HELP})")
    slowest = max(READING, key=lambda command: middle[f"ingestor {command}"])
    ratio = middle[f"ingestor {slowest}"] / middle[LIBRARY]
    print(f"{slowest} / {LIBRARY} = {ratio:.2f} (at most {MOST_FOR_READING})")


def _processor_seconds(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run `command` with its output thrown away; return its processor's seconds and its exit code."""
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    child = os.posix_spawn(command[0], command, environment, file_actions=nowhere)
    _, status, used = os.wait4(child, 0)
    return used.ru_utime + used.ru_stime, os.waitstatus_to_exitcode(status)
