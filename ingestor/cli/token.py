"""`ingestor token`: the helper process that owns a mailbox's login, and gives the daemon access tokens."""

import argparse
import json
import os
import signal
import sys
import time

from ingestor.cli import settings_of
from ingestor.errors import IngestorError, LoginFault
from ingestor.logins import AccessToken, access_token
from ingestor.settings import Settings, mailbox_named, state_directory

EXAMPLES = """
ingestor token main
ingestor token main --fresh | jq .expires_at
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mailbox", metavar="MAILBOX", help="name of the mailbox in the configuration")
    parser.add_argument("--fresh", action="store_true", help="a new token, however good the kept one is")


def run(arguments: argparse.Namespace) -> int:
    """Print a token as JSON, or what is wrong; on a terminal in words, without the token."""
    try:
        given = _given(settings_of(arguments), arguments)
    except IngestorError as fault:
        if sys.stdout.isatty():
            raise
        state = fault.state if isinstance(fault, LoginFault) else "misconfigured"
        pause = fault.pause if isinstance(fault, LoginFault) else None
        print(json.dumps({"fault": str(fault), "state": state, "pause": pause, "said": fault.said}))
        return fault.exit_code
    if sys.stdout.isatty():
        print(
            f"there is a token for {arguments.mailbox}, good for {given.expires_at - time.time():.0f} s more"
        )
    else:
        print(json.dumps(given._asdict()))
    return 0


def _given(settings: Settings, arguments: argparse.Namespace) -> AccessToken:
    mailbox = mailbox_named(settings, arguments.mailbox)
    directory = state_directory(settings)
    if os.geteuid() == 0:
        # Here, as SQLAlchemy would double the time that the daemon waits for this process.
        from ingestor.archive.ownership import become_owner

        # What root alone may read stays readable; what is kept belongs to the service's user.
        become_owner(settings.database.url, directory)
    # A refresh token that was spent must be followed by its successor on the disk, also when the unit stops.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return access_token(mailbox, directory, fresh=arguments.fresh)
