"""`ingestor check`: try everything a start needs; a line each, with the fix."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain

from rich.console import Console
from rich.text import Text

from ingestor import logs
from ingestor.cli.opening import settings_of
from ingestor.redaction import redact
from ingestor.service.checks import Finding, Level
from ingestor.service.checks.archive import deep
from ingestor.service.checks.machine import check_everything

EXAMPLES = """
ingestor check
ingestor check --deep
sudo -u ingestor ingestor check
ingestor --config new.toml check
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command knows."""
    parser.add_argument(
        "--deep", action="store_true",
        help="read the whole archive too: the database's own check, and the SHA-256 of all that is kept",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; return 0 only when all is well, 1 when something needs a hand."""

    # What a connection logs meanwhile would only repeat the findings.
    logs.configure(arguments.log_format, level=logging.DEBUG if arguments.debug else logging.CRITICAL)
    styles = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
    console = Console(markup=False, highlight=False)
    worst = Level.OK
    settings = settings_of(arguments)
    findings: Iterator[Finding] = check_everything(settings)
    if arguments.deep:
        findings = chain(findings, deep(settings, _progress()))
    for finding in findings:
        fix = f"; {finding.fix}" if finding.fix else ""
        line = redact(f"{finding.subject}: {finding.says}{fix}")
        console.print(
            Text.assemble((f"{finding.level:<4}", styles[finding.level]), f"  {line}"), soft_wrap=True
        )
        sys.stdout.flush()
        worst = max(worst, finding.level, key=list(Level).index)
    return 1 if worst is Level.FAIL else 0


def _progress() -> Callable[[int, int], None]:
    """Return what shows on a terminal how many payloads have been compared, and elsewhere shows nothing."""
    last = 0.0

    def show(done: int, whole: int) -> None:
        nonlocal last
        if sys.stderr.isatty() and (done == whole or time.monotonic() - last > 0.2):
            last = time.monotonic()
            end = "\n" if done == whole else ""
            print(f"\r{done:,} of {whole:,} payloads compared", end=end, file=sys.stderr, flush=True)

    return show
