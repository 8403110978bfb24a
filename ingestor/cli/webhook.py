"""`ingestor webhook test`: post a sample to the running listener and say what becomes of it."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestor.settings import Endpoint, Settings, Webhook

EXAMPLES = """
ingestor webhook test
ingestor webhook test agile-1
sudo -u ingestor ingestor webhook test
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the one verb."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")
    test = verbs.add_parser("test", help="post a sample for a number nobody has; it ends in the quarantine")
    test.add_argument(
        "endpoint", nargs="?", metavar="ENDPOINT",
        help="a provider, or one of its endpoints by place (agile-1); default: every endpoint",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Try the endpoints asked for; return 0 when each sample arrived, else 1."""
    import structlog

    from ingestor.cli.opening import settings_of
    from ingestor.errors import ConfigurationError

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    settings = settings_of(arguments)
    if settings.webhook is None:
        raise ConfigurationError(
            "there is no [webhook] in the configuration; `ingestor config new-endpoint PROVIDER` prints one"
        )
    results = [
        _try(settings, settings.webhook, name, endpoint)
        for name, endpoint in _wanted(settings.webhook, arguments.endpoint)
    ]
    return 0 if all(results) else 1


def _wanted(webhook: "Webhook", asked: str | None) -> "list[tuple[str, Endpoint]]":
    from ingestor.errors import ConfigurationError
    from ingestor.intake.listener.gate import named

    known = named(webhook)
    wanted = [(name, one) for name, one in known if asked in {None, name, one.provider}]
    if not wanted:
        names = ", ".join(name for name, _ in known)
        raise ConfigurationError(f"there is no endpoint called {asked!r}; there are: {names}")
    return wanted


def _try(settings: "Settings", webhook: "Webhook", name: str, endpoint: "Endpoint") -> bool:
    from ingestor.intake.listener.trial import try_endpoint
    from ingestor.settings import endpoint_passwords

    print(f"{name} (listening on {webhook.listen})")
    began = datetime.now(UTC)
    delivered = True
    for step in try_endpoint(webhook, endpoint, endpoint_passwords):
        print(f"  {'ok  ' if step.well else 'FAIL'}  {step.says}", flush=True)
        if not step.well:
            return False
        delivered = step.delivered
    if delivered:
        print(f"  {_whereabouts(settings, name, began)}")
    return True


def _whereabouts(settings: "Settings", name: str, began: datetime) -> str:
    """Say where the sample is now: in the quarantine, in the spool, or where we may not look."""
    from ingestor.archive.queries import quarantine_list
    from ingestor.cli.opening import open_for_reading
    from ingestor.errors import IngestorError
    from ingestor.intake.listener.spool import depth
    from ingestor.providers.posts import A_TEST
    from ingestor.settings import state_directory

    waiting = "note  it waits in the spool, and goes to the quarantine when the database is back"
    try:
        newest = quarantine_list(open_for_reading(settings), limit=100)
    except IngestorError as fault:
        if depth(state_directory(settings) / "spool"):
            return waiting
        return f"note  it was made durable, but the archive cannot be looked into: {fault}"
    for row in newest:
        if row["source"] == name and row["reason"] == A_TEST and row["arrived_at"] >= began:
            number = row["id"]
            return (
                f"ok    it is number {number} of the quarantine, marked as a test; take it out with: "
                f'ingestor quarantine discard {number} --reason "webhook test"'
            )
    if depth(state_directory(settings) / "spool"):
        return waiting
    return "note  it was made durable, but is not in this archive: does the daemon use another database?"
