"""`ingestor run`: the daemon, or with --once a single pass.

Most is imported when it is used: a SIGHUP that comes before it is held back would end the process.
"""

import argparse
import gc
import logging
import os
import sys
from typing import TYPE_CHECKING

from ingestor.service.signals import hold_reload_back

if TYPE_CHECKING:
    from ingestor.settings import Settings

EXAMPLES = """
ingestor run
ingestor run --once
ingestor --config ingestor.toml run --once --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--once", action="store_true", help="read every mailbox once, then end with the balance"
    )
    parser.add_argument("--json", action="store_true", help="print the balance as the last line, in JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run and return the exit code: 0 after a clean stop, 1 when a mailbox failed in a single pass."""
    hold_reload_back()
    gc.disable()  # until all is imported, which stays: `tune_interpreter` switches it on again

    from ingestor import logs

    logs.configure(arguments.log_format, level=logging.DEBUG if arguments.debug else logging.INFO)

    from ingestor.cli.opening import settings_of

    settings = settings_of(arguments)
    _look_at(settings)
    return _once(arguments, settings) if arguments.once else _for_ever(arguments, settings)


def _look_at(settings: "Settings") -> None:
    """Warn of what is unwise; refuse to work on somebody else's archive, with the command to use instead."""
    import structlog

    from ingestor.archive.ownership import ownership_advice
    from ingestor.errors import ConfigurationError
    from ingestor.service.checks.machine import cautions
    from ingestor.settings import state_directory

    advice = ownership_advice(settings.database.url, state_directory(settings))
    if advice is not None:
        raise ConfigurationError(advice)
    root = ["running as root; a user of its own is safer (the shipped unit has one)"]
    for caution in (root if os.geteuid() == 0 else []) + cautions(settings):
        structlog.get_logger(__name__).warning("unwise configuration", what=caution)


def _for_ever(arguments: argparse.Namespace, settings: "Settings") -> int:
    from ingestor.cli.opening import settings_of
    from ingestor.cli.printing import print_balance
    from ingestor.logs import is_journal
    from ingestor.service.daemon import Daemon
    from ingestor.service.watchdog import Notifier

    ended = Daemon(settings, lambda: settings_of(arguments), Notifier()).run()
    if ended is not None:
        as_json = arguments.json or is_journal(sys.stdout)
        print_balance(ended.run, ended.balance, ended.seconds, as_json=as_json)
    return 0


def _once(arguments: argparse.Namespace, settings: "Settings") -> int:
    from ingestor.cli import complain
    from ingestor.cli.printing import exit_code, print_balance
    from ingestor.service.mailboxes import run_once

    gc.enable()
    ended = run_once(settings)
    for name, reason in ended.failures.items():
        complain(f"mailbox {name}: {reason}")
    print_balance(ended.run, ended.balance, ended.seconds, as_json=arguments.json)
    return 1 if ended.failures else exit_code(ended.balance)
