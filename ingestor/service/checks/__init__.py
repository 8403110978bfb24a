"""Everything that a start needs, tried without changing anything on a server or in the database."""

from collections.abc import Iterator
from functools import partial

from ingestor.archive.ownership import as_owner
from ingestor.service.checks import archive, machine, mailboxes, webhook
from ingestor.service.checks.findings import Finding, Level, fail, together
from ingestor.settings import DEFAULT_FILE, Settings, state_directory

__all__ = ["Finding", "Level", "check_everything"]

SECONDS = 30.0
"""The longest that the database takes, and then all others together; each connection has shorter limits."""


def check_everything(settings: Settings) -> Iterator[Finding]:
    """Yield what is found, in an order that reads from the machine outward."""
    yield from machine.check(settings)
    if not settings.mailbox and settings.webhook is None:
        yield fail(
            "settings",
            "there is neither a mailbox nor a webhook, so nothing would be read",
            f"add a [[mailbox]] to {settings.source or DEFAULT_FILE} (`ingestor config example` shows one)",
        )
    with as_owner(settings.database.url, state_directory(settings)):
        yield from list(together([("database", partial(archive.check, settings))], SECONDS))
    checks = [(f"mailbox {mailbox.name}", partial(mailboxes.check, mailbox)) for mailbox in settings.mailbox]
    if settings.webhook is not None:
        checks.append(("webhook", partial(webhook.check, settings.webhook)))
    yield from together(checks, SECONDS)
