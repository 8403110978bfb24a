"""How long `--help` takes against the interpreter alone: at most 3 times."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 15
LIMIT = 3.0
COMMANDS = {
    "python -c pass (the limit)": ["-c", "pass"],
    "ingestor --version": ["-m", "ingestor", "--version"],
    "ingestor --help": ["-m", "ingestor", "--help"],
    "ingestor status --help": ["-m", "ingestor", "status", "--help"],
    "python -c 'import click' (a peer)": ["-c", "import click"],
    "python -c 'import sqlalchemy, alembic' (what is not loaded)": ["-c", "import sqlalchemy, alembic"],
}


def main() -> None:
    """Print medians of interleaved rounds, and each as a multiple of the interpreter's start."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    failed: set[str] = set()
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(ROUNDS + 1):
            for name, arguments in COMMANDS.items():
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, *arguments], env=environment, capture_output=True, check=False
                )
                if turn:  # the first round fills the bytecode cache
                    times[name].append(time.perf_counter() - began)
                if done.returncode:
                    failed.add(name)
    floor = statistics.median(times["python -c pass (the limit)"])
    for name, taken in times.items():
        if name in failed:
            print(f"{'not installed':>14}  {name}")
            continue
        middle = statistics.median(taken)
        print(f"{middle * 1000:6.1f} ms {middle / floor:4.1f}x  {name}")
    ratio = statistics.median(times["ingestor --help"]) / floor
    print(f"--help / python -c pass = {ratio:.2f} (at most {LIMIT})")
