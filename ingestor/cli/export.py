"""`ingestor export`: the archive as JSON lines, CSV or a workbook."""

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from sqlalchemy import Engine

from ingestor.archive.export import Tell, export_csv, export_jsonl, leaving, quiet
from ingestor.archive.searching import Filters
from ingestor.cli import complain
from ingestor.cli.arguments import add_filters, filters_of
from ingestor.cli.opening import differs, open_for_reading, settings_of
from ingestor.cli.printing import Harmless, share_done
from ingestor.errors import ConfigurationError, IngestorError

EXAMPLES = """
ingestor export --format jsonl > sms.jsonl
ingestor export --format csv --since 2025-01-01 --until 2025-12-31 --output 2025.csv
ingestor export --format xlsx --output sms.xlsx
ingestor export --format csv --excel semicolon --output for-excel.csv
"""

SEPARATORS = {"semicolon": ";", "comma": ","}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=("jsonl", "csv", "xlsx"), default="jsonl",
        help="JSON lines (default) or CSV, both exact; or a workbook for Excel and LibreOffice",
    )  # fmt: skip
    parser.add_argument(
        "--output", "-o", metavar="FILE", type=Path,
        help="write this file, whole or not at all, readable by you alone (default: stdout)",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--excel", choices=tuple(SEPARATORS),
        help="CSV that Excel opens by a double click; semicolon where decimals have a comma, as in Italy",
    )  # fmt: skip
    form.add_argument(
        "--spreadsheet-safe", action="store_true",
        help="CSV whose texts cannot run as formulas, with the numbers again without their plus",
    )  # fmt: skip
    add_filters(parser, "UTC")


def run(arguments: argparse.Namespace) -> int:
    """Write, and say on stderr how many."""
    for option in ("spreadsheet_safe", "excel"):
        if getattr(arguments, option) and arguments.format != "csv":
            raise ConfigurationError(f"--{option.replace('_', '-')} is for --format csv")
    path, workbook = arguments.output, arguments.format == "xlsx"
    if workbook and (path is None or (path.exists() and not path.is_file())):
        raise ConfigurationError("a workbook is a file: name it with --output FILE.xlsx")
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    doubtful = differs(engine, through_views=True)
    filters = filters_of(arguments)
    with contextlib.ExitStack() as stack:
        on_screen = path is None and sys.stdout.isatty()
        tell = quiet if on_screen else stack.enter_context(share_done())
        if workbook:
            doubtful |= _workbook(engine, path, filters, tell)
            return int(doubtful)
        out = stack.enter_context(output(path))
        if arguments.format == "csv":
            safe, separator = arguments.spreadsheet_safe, SEPARATORS.get(arguments.excel)
            written = export_csv(engine, out, filters, tell, spreadsheet_safe=safe, separator=separator)
        else:
            written = export_jsonl(engine, out, filters, tell)
    print(f"{written:,} SMS exported", file=sys.stderr)
    return int(doubtful)


def _workbook(engine: Engine, path: Path, filters: Filters, tell: Tell) -> bool:
    """Write the workbook, and say what it has; return whether a text of it is cut."""
    try:
        from ingestor.archive.xlsx import LONGEST_TEXT, export_xlsx  # of an extra, and for this format alone
    except ImportError as error:
        raise IngestorError(
            f"{error.name} is not installed; install `agile-sms-ingestor[xlsx]`, or take --format csv"
        ) from error
    with whole(path) as temporary:
        written = export_xlsx(engine, temporary, filters, tell)
    sheets = f" on {written.sheets} sheets" if written.sheets > 1 else ""
    print(f"{written.sms:,} SMS exported{sheets}", file=sys.stderr)
    if written.cut:
        complain(
            f"{written.cut:,} texts are longer than a cell's {LONGEST_TEXT:,} characters and are cut; "
            "--format jsonl has them whole"
        )
    return bool(written.cut)


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
        except BrokenPipeError:
            raise
        except OSError as error:
            raise IngestorError(
                f"what went to stdout is not whole ({error.strerror}); make room, or take --output FILE"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                out.detach()
        return
    with whole_file(path) as file:
        out = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield out
        out.detach()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[io.BufferedWriter]:
    """Give a file that takes the name `path` only when everything is written and on the disk."""
    if path.exists() and not path.is_file():
        with path.open("wb") as device:  # /dev/stdout, a named pipe
            yield device
        return

    with whole(path) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a file to be written that takes the name `path` when the block ends well.

    It is readable by its owner alone, as it holds messages. Raises IngestorError where the disk is full,
    ConfigurationError where a database has that name: an archive would be gone.
    """
    if _is_database(path):
        raise ConfigurationError(f"{path} is a database, or belongs to one; name another file")
    try:
        with leaving(path, 0o600) as temporary:
            yield temporary
    except OSError as error:
        raise IngestorError(
            f"{path} could not be written ({error.strerror or type(error).__name__}) and is left as it was; "
            "make room, or name another place"
        ) from error


def _is_database(path: Path) -> bool:
    for name in (str(path), re.sub(r"-(wal|shm|journal)$", "", str(path))):
        with contextlib.suppress(OSError), Path(name).open("rb") as file:
            if file.read(16) == b"SQLite format 3\0":
                return True
    return False
