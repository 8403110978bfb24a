"""The configuration: one schema that validates the file and makes the sample file and the reference page.

`load` reads and checks; `secret` fetches a password when it is needed; `rules_for` says what a
provider's readers need to know; `state_directory` is where files of ours may lie.
"""

import os
from pathlib import Path

from ingestor.providers import PROVIDERS
from ingestor.providers.contract import ProviderSection, Rules, Section
from ingestor.settings.credentials import (
    credential,
    endpoint_passwords,
    kept_secret,
    secret,
    secret_file,
    with_password,
)
from ingestor.settings.loading import DEFAULT_FILE, load
from ingestor.settings.models import Database, Endpoint, Mailbox, Settings, Webhook
from ingestor.settings.opt_out import OptOut
from ingestor.settings.values import hide_url_password

__all__ = [
    "DEFAULT_FILE",
    "Database",
    "Endpoint",
    "Mailbox",
    "OptOut",
    "Section",
    "Settings",
    "Webhook",
    "credential",
    "endpoint_passwords",
    "hide_url_password",
    "kept_secret",
    "load",
    "rules_for",
    "secret",
    "secret_file",
    "state_directory",
    "with_password",
]


def rules_for(settings: Settings, provider: str) -> Rules:
    """Return what the readers of `provider` need to know. Raises KeyError for an unknown one."""
    section: ProviderSection = getattr(settings, PROVIDERS[provider].folder)
    return section.rules()


def state_directory(settings: Settings) -> Path:
    """Return where files of ours may lie: $STATE_DIRECTORY, else the SQLite file's folder, else here."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates several by colons
    if given:
        return Path(given)
    file = settings.database.file
    return file.absolute().parent if file else Path.cwd()
