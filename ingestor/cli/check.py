"""`ingestor check`: try everything a start needs; a line each, with the fix."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from rich.console import Console
from rich.text import Text

from ingestor import logs
from ingestor.cli.opening import settings_of
from ingestor.cli.printing import share_done
from ingestor.errors import ConfigurationError
from ingestor.redaction import redact
from ingestor.service.checks import Finding, Level, sending, together, unit
from ingestor.service.checks.archive import deep
from ingestor.service.checks.machine import SECONDS, check_everything
from ingestor.settings import DEFAULT_FILE

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}

EXAMPLES = """
ingestor check
ingestor check --deep
ingestor check --notify
sudo -u ingestor ingestor check
ingestor --config new.toml check
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deep", action="store_true",
        help="read the whole archive too: the database's own check, and the SHA-256 of all that is kept",
    )  # fmt: skip
    parser.add_argument(
        "--notify", action="store_true", help="send a test notice to everybody whom [watch] tells, too"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; return 0 only when all is well, 2 when the settings would end a start, else 1."""
    # What a connection logs meanwhile would only repeat the findings.
    logs.configure(arguments.log_format, level=logging.DEBUG if arguments.debug else logging.CRITICAL)
    console = Console(markup=False, highlight=False)
    code = 0
    with ExitStack() as stack:
        for finding in _findings(arguments, stack):
            fix = f"; {finding.fix}" if finding.fix else ""
            line = redact(f"{finding.subject}: {finding.says}{fix}")
            level = (f"{finding.level:<4}", _STYLES[finding.level])
            console.print(Text.assemble(level, f"  {line}"), soft_wrap=True)
            sys.stdout.flush()
            if finding.level is Level.FAIL:
                code = max(code, 2 if finding.subject == "settings" else 1)
    return code


def _findings(arguments: argparse.Namespace, stack: ExitStack) -> Iterator[Finding]:
    settings = settings_of(arguments)
    if not (
        arguments.database_url or os.environ.get("INGESTOR_DATABASE_URL")
    ):  # else it is no unit's archive
        yield from unit.become(settings, settings.source or DEFAULT_FILE, stack)
        with suppress(ConfigurationError):  # which of its files are closed to the unit's user has been said
            settings = settings_of(arguments)
    yield from check_everything(settings)
    if arguments.notify:
        yield from together(list(sending.notify(settings)), SECONDS)
    if arguments.deep:
        with share_done() as tell:
            yield from deep(settings, tell)
