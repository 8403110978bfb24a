"""The configuration: one schema that validates the file and makes the sample file and the reference page.

`load` reads and checks; `secret` fetches a password when it is needed; `cautions` lists what is unwise;
`rules_for` says what a provider's readers need to know; `state_directory` is where files of ours may lie.
"""

import os
from pathlib import Path
from zoneinfo import ZoneInfo

from ingestor.providers.contract import Rules
from ingestor.settings.credentials import (
    cautions,
    credential,
    endpoint_passwords,
    secret,
    secret_file,
    with_password,
)
from ingestor.settings.loading import DEFAULT_FILE, load
from ingestor.settings.models import (
    Agile,
    Database,
    Endpoint,
    Infobip,
    Ip1,
    Labels,
    Mailbox,
    Settings,
    Webhook,
)  # fmt: skip
from ingestor.settings.values import hide_url_password, sqlite_path

__all__ = [
    "DEFAULT_FILE",
    "Agile",
    "Database",
    "Endpoint",
    "Infobip",
    "Ip1",
    "Labels",
    "Mailbox",
    "Settings",
    "Webhook",
    "cautions",
    "credential",
    "endpoint_passwords",
    "hide_url_password",
    "load",
    "rules_for",
    "secret",
    "secret_file",
    "sqlite_path",
    "state_directory",
    "with_password",
]


def rules_for(settings: Settings, provider: str) -> Rules:
    """Return what the readers of `provider` need to know. Raises KeyError for an unknown one."""
    if provider == "agile":
        agile = settings.agile
        labels = {field: spellings for field, spellings in agile.labels if spellings}
        senders = frozenset((agile.sender, *agile.senders))
        subjects = tuple(" ".join(one.split()).casefold() for one in agile.subjects)
        return Rules(ZoneInfo(agile.timezone), frozenset(agile.numbers), senders, subjects, labels)
    numbers = {"infobip": settings.infobip.numbers, "ip1": settings.ip1.numbers}[provider]
    return Rules(ZoneInfo("UTC"), frozenset(numbers))


def state_directory(settings: Settings) -> Path:
    """Return where files of ours may lie: $STATE_DIRECTORY, else the SQLite file's folder, else here."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates several by colons
    if given:
        return Path(given)
    file = sqlite_path(settings.database.url)
    return Path(file).absolute().parent if file else Path.cwd()
