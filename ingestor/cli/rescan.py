"""`ingestor rescan`: a whole IMAP folder read again; the unique key absorbs what is known."""

import argparse
import time

from ingestor.archive.mailbox_state import one_run
from ingestor.archive.runs import balance
from ingestor.archive.writer import Writer
from ingestor.cli.arguments import day, text
from ingestor.cli.opening import configure_log, open_for_writing, settings_of
from ingestor.cli.printing import exit_code, print_balance
from ingestor.intake.mailbox.login import credential_of
from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.replies.opt_outs import hearing_store
from ingestor.service.opening import Installation
from ingestor.settings import mailbox_named, rules_for, state_directory, with_password

EXAMPLES = """
ingestor rescan main
ingestor rescan main --folder INBOX --since 2026-01-01
ingestor rescan main --json
"""

_STOP_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mailbox", metavar="MAILBOX", help="name of the mailbox in the configuration")
    parser.add_argument("--folder", metavar="F", type=text, help="only this folder (default: all of them)")
    parser.add_argument(
        "--since", metavar="D", type=day, help="only mail that arrived on this day or later (YYYY-MM-DD)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the balance as one object on the last line"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read again, print the balance, and return 0 where nothing failed."""
    settings = settings_of(arguments)
    mailbox = with_password(mailbox_named(settings, arguments.mailbox), credential_of)
    configure_log(arguments)
    engine = open_for_writing(settings)
    writer = Writer(hearing_store(engine, settings.opt_out))
    began = time.monotonic()
    options = {"mailbox": mailbox.name, "folder": arguments.folder, "since": arguments.since}
    rules = rules_for(settings, "agile")
    with one_run(engine, "rescan", options) as run_id:
        installation = Installation(state_directory(settings))
        reader = MailboxThread(mailbox, rules, writer, engine, run_id, holder=installation.id)
        writer.start()
        try:
            reader.rescan(arguments.folder, arguments.since)
        finally:
            installation.close()
            # What was committed until a fault or Ctrl-C counts, and is shown.
            writer.stop(_STOP_SECONDS)
            done = balance(engine, run_id)
            print_balance(run_id, done, time.monotonic() - began, as_json=arguments.json)
    return exit_code(done)
