"""`ingestor webhook test`: post a sample to the running listener and say what becomes of it."""

import argparse
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
    from ingestor.intake.listener.spool import depth
    from ingestor.intake.listener.trial import try_endpoint
    from ingestor.settings import endpoint_passwords, state_directory

    print(f"{name} (listening on {webhook.listen})")
    delivered = True
    for step in try_endpoint(webhook, endpoint, endpoint_passwords):
        print(f"  {'ok  ' if step.well else 'FAIL'}  {step.says}", flush=True)
        if not step.well:
            return False
        delivered = step.delivered
    if delivered:
        waits = depth(state_directory(settings) / "spool")
        print(
            "  note  it waits in the spool like every POST now: the database takes none" if waits
            else "  ok    it was counted as ignored, and left nothing else behind"
        )  # fmt: skip
    return True
