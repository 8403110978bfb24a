"""`ingestor login`: the login that a person makes once for a mailbox, from a server without a browser."""

import argparse
import os
from functools import partial

from ingestor.archive.ownership import OF_THE_UNIT, become_owner, ownership_advice
from ingestor.cli import settings_of
from ingestor.errors import ConfigurationError
from ingestor.logins import access_token, log_in
from ingestor.logins.grants import oauth_of
from ingestor.logins.state import file_of
from ingestor.settings import mailbox_named, state_directory

EXAMPLES = """
ingestor login main
ingestor login main && systemctl reload ingestor
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mailbox", metavar="MAILBOX", help="name of the mailbox in the configuration")


def run(arguments: argparse.Namespace) -> int:
    """Lead through the login, try what came of it, and return 0."""
    settings = settings_of(arguments)
    mailbox = mailbox_named(settings, arguments.mailbox)
    oauth = oauth_of(mailbox)
    if settings.database.file is None and "STATE_DIRECTORY" not in os.environ:
        raise ConfigurationError(
            "with the archive in PostgreSQL say where the daemon keeps its files: "
            f"sudo STATE_DIRECTORY={OF_THE_UNIT} ingestor login {mailbox.name}"
        )
    directory = state_directory(settings)
    become_owner(settings.database.url, directory)
    if (advice := ownership_advice(settings.database.url, directory)) is not None:
        raise ConfigurationError(advice)
    if oauth.needs_person:
        log_in(mailbox, directory, partial(print, flush=True), input)
    access_token(mailbox, directory, fresh=True)
    person = (
        f"is kept in {file_of(directory, mailbox.name)}"
        if oauth.needs_person
        else f"needs no person ({oauth.flow})"
    )
    print(f"the login of {mailbox.name} {person}, and gives access tokens; now run: ingestor check")
    print("a running daemon takes it at once after: systemctl reload ingestor")
    return 0
