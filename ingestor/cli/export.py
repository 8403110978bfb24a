"""`ingestor export`: the archive as JSON lines or CSV."""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from ingestor.archive.export import export_csv, export_jsonl, leaving
from ingestor.cli.arguments import add_filters, filters_of
from ingestor.cli.opening import differs, open_for_reading, settings_of
from ingestor.cli.printing import Harmless
from ingestor.errors import ConfigurationError

EXAMPLES = """
ingestor export --format jsonl > sms.jsonl
ingestor export --format csv --since 2025-01-01 --until 2025-12-31 --output 2025.csv
ingestor export --format csv --spreadsheet-safe --output for-excel.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command knows."""
    parser.add_argument(
        "--format", choices=("jsonl", "csv"), default="jsonl", help="JSON lines (default) or CSV; both exact"
    )
    parser.add_argument(
        "--output", "-o", metavar="FILE", type=Path,
        help="write this file, whole or not at all, readable by you alone (default: stdout)",
    )  # fmt: skip
    parser.add_argument(
        "--spreadsheet-safe", action="store_true",
        help="CSV whose texts cannot run as formulas, with the numbers again without their plus",
    )  # fmt: skip
    add_filters(parser, "UTC")


def run(arguments: argparse.Namespace) -> int:
    """Write, and say on stderr how many."""
    if arguments.spreadsheet_safe and arguments.format != "csv":
        raise ConfigurationError("--spreadsheet-safe is for --format csv")
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    doubtful = differs(settings, through_views=True)
    filters = filters_of(arguments)
    with output(arguments.output) as out:
        if arguments.format == "csv":
            written = export_csv(engine, out, filters, spreadsheet_safe=arguments.spreadsheet_safe)
        else:
            written = export_jsonl(engine, out, filters)
    print(f"{written:,} SMS exported", file=sys.stderr)
    return int(doubtful)


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[TextIO]:
    """Give where to write UTF-8 to, its line ends untouched; on a terminal nothing of it is a command."""
    if path is None and sys.stdout.isatty():
        yield cast("TextIO", Harmless(sys.stdout))
        return
    if path is None:
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
        try:
            yield out
            out.flush()
        finally:
            out.detach()
        return
    with whole_file(path) as file:
        out = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield out
        out.detach()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[io.BufferedWriter]:
    """Give a file that takes the name `path` only when everything is written and on the disk.

    It is readable by its owner alone, as it holds messages.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as device:  # /dev/stdout, a named pipe
            yield device
        return

    with leaving(path, 0o600) as temporary, temporary.open("wb") as file:
        yield file
