"""`ingestor credit`: what is left of the account at Agile."""

import argparse

from ingestor.cli.opening import settings_of
from ingestor.cli.printing import print_json
from ingestor.replies.agile import client_of

EXAMPLES = """
ingestor credit
ingestor credit --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one object; the amount is text, exactly")


def run(arguments: argparse.Namespace) -> int:
    """Ask Agile and print the answer; the archive is neither read nor written."""
    amount = client_of(settings_of(arguments)).credit()
    if arguments.json:
        print_json({"credit": str(amount), "currency": "EUR"})
    else:
        print(f"{amount} EUR")
    return 0
