"""`ingestor check`: try everything a start needs; a line each, with the fix."""

import argparse
import sys

EXAMPLES = """
ingestor check
sudo -u ingestor ingestor check
ingestor --config new.toml check
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: all there is to say stands in the configuration."""


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; return 0 only when all is well, 1 when something needs a hand."""
    import logging

    from rich.console import Console
    from rich.text import Text

    from ingestor import logs
    from ingestor.cli.opening import settings_of
    from ingestor.redaction import redact
    from ingestor.service.checks import Level, check_everything

    # What a connection logs meanwhile would only repeat the findings.
    logs.configure(arguments.log_format, level=logging.DEBUG if arguments.debug else logging.CRITICAL)
    styles = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
    console = Console(markup=False, highlight=False)
    worst = Level.OK
    for finding in check_everything(settings_of(arguments)):
        fix = f"; {finding.fix}" if finding.fix else ""
        line = redact(f"{finding.subject}: {finding.says}{fix}")
        console.print(
            Text.assemble((f"{finding.level:<4}", styles[finding.level]), f"  {line}"), soft_wrap=True
        )
        sys.stdout.flush()
        worst = max(worst, finding.level, key=list(Level).index)
    return 1 if worst is Level.FAIL else 0
