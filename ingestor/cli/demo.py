"""`ingestor demo`: the whole thing on a throw-away mailbox, in a minute at most."""

import argparse
import sys
from pathlib import Path

from ingestor.demo.play import Screen, play

EXAMPLES = """
ingestor demo
ingestor demo --folder /tmp/demo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, default=Path("demo"), metavar="DIR",
        help="where its archive, configuration and log go (default: ./demo)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Show the demo and return 0; an interrupted one leaves what it archived."""
    try:
        play(arguments.folder, Screen())
    except KeyboardInterrupt:
        print(f"\nStopped; what was archived until now is in {arguments.folder}/.", file=sys.stderr)
        return 130
    return 0
