"""`ingestor config`: the sample file, the effective settings, and a strong path for an endpoint."""

import argparse
import secrets
import sys

from ingestor.cli import verbs_of
from ingestor.cli.opening import settings_of
from ingestor.errors import ConfigurationError
from ingestor.providers import ENDPOINTS
from ingestor.settings import require_work
from ingestor.settings.sample import reference, sample, shown

EXAMPLES = """
ingestor config example > /etc/ingestor/ingestor.toml
ingestor config example --markdown
ingestor config show
ingestor config check
ingestor config new-endpoint agile
"""

_RANDOM_BYTES = 24  # 32 characters of the URL-safe alphabet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verb = verbs_of(parser, EXAMPLES)
    example = add_verb("example", "print the commented sample file", run)
    example.add_argument("--markdown", action="store_true", help="print the reference of all keys instead")
    add_verb("show", "print the effective settings, secrets hidden", run)
    add_verb("check", "say whether a start or reload would take the configuration; try nothing of it", run)
    endpoint = add_verb("new-endpoint", "print an endpoint with a path that nobody can guess", run)
    endpoint.add_argument("provider", choices=ENDPOINTS)


def run(arguments: argparse.Namespace) -> int:
    """Print what the verb asks for."""
    if arguments.verb == "example":
        sys.stdout.write(reference() if arguments.markdown else sample())
    elif arguments.verb == "show":
        settings = settings_of(arguments)
        origin = ", ".join(map(str, settings.sources)) or "no configuration file: these are the defaults"
        sys.stdout.write(f"# {origin}\n{shown(settings)}")
    elif arguments.verb == "check":
        require_work(settings_of(arguments))
    else:
        _print_endpoint(arguments)
    return 0


def _print_endpoint(arguments: argparse.Namespace) -> None:
    path = f"/{arguments.provider}/{secrets.token_urlsafe(_RANDOM_BYTES)}"
    origin, has_listener = _origin(arguments)
    print("# Add this to the configuration and restart the daemon.")
    if not has_listener:
        print('[webhook]\nlisten = "127.0.0.1:8080"\n')
    print(f'[[webhook.endpoint]]\npath = "{path}"\nprovider = "{arguments.provider}"')
    print(f"\n# Paste this URL into the provider's portal; whoever knows it can post:\n# {origin}{path}")


def _origin(arguments: argparse.Namespace) -> tuple[str, bool]:
    """Return how the provider reaches us, and whether a listener is configured (not where that fails)."""
    try:
        webhook = settings_of(arguments).webhook
    except ConfigurationError:
        webhook = None  # the new endpoint may be what is missing
    direct = webhook is not None and webhook.tls_certificate is not None and webhook.port != 443
    port = f":{webhook.port}" if direct and webhook is not None else ""
    return f"https://YOUR-HOST{port}", webhook is not None
