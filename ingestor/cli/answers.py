"""`ingestor answers`: what was sent or held back, and what may have been sent."""

import argparse
from typing import Any

from sqlalchemy import Row

from ingestor.cli import verbs_of
from ingestor.cli.arguments import (
    add_listing,
    add_utc,
    asked_for,
    count,
    localised,
    print_rows,
    reason,
    standard_input,
    zone_of,
)
from ingestor.cli.opening import configure_log, open_for_reading, open_for_writing, settings_of
from ingestor.cli.printing import print_fields
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.replies.answering import REASONS, list_answers, show_answer

EXAMPLES = """
ingestor answers list
ingestor answers list --unknown
ingestor answers show 17
ingestor answers resend 17
"""

COLUMNS = ("id", "decided_at", "rule", "number", "state", "detail", "text")
RESENDABLE = ("unknown", "not_sent", "refused", "no_report", "failed")
"""States in which a message may not have arrived, and nobody is going to send it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verb = verbs_of(parser, EXAMPLES)
    listed = add_verb("list", "list messages and decisions, newest first", _list)
    listed.add_argument("--unknown", action="store_true", help="only those that may have been sent, or not")
    add_listing(listed, limit=50)
    show = add_verb("show", "show one with all its attempts and reports", _show)
    show.add_argument("id", metavar="ID", type=count)
    add_utc(show)
    resend = add_verb("resend", "send one again that may not have been sent, under a new id", _resend)
    resend.add_argument("id", metavar="ID", type=count)
    resend.add_argument("--yes", action="store_true", help="do not ask")
    resend.add_argument("--force", type=reason, metavar="REASON", help="although the number is out")


def _list(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    rows = list_answers(engine, only_unknown=arguments.unknown, limit=asked_for(arguments))
    told = [row._asdict() if arguments.json else {**row._mapping, "detail": _why(row)} for row in rows]
    print_rows(arguments, settings, COLUMNS, told)
    return 0


def _why(row: Row[Any]) -> Any:
    if row.suppressed is not None:
        return REASONS.get(row.suppressed, row.suppressed)
    return row.delivery if row.state in {"delivered", "failed"} else row.detail


def _show(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    found = show_answer(engine, arguments.id)
    if found is None:
        raise IngestorError(f"there is no answer {arguments.id}; `ingestor answers list` shows them")
    zone = zone_of(arguments, settings)
    print_fields(localised({**found.answer._mapping, "detail": _why(found.answer)}, zone))
    for event in found.events:
        print(f"\nattempt {event.attempt}: {event.event}")
        told = localised(dict(event._mapping), zone)
        in_title = ("id", "answer_id", "attempt", "event")
        print_fields({name: value for name, value in told.items() if name not in in_title})
    for report in found.reports:
        print(f"\nreport {report.id}: {report.status}")
        print_fields(
            localised({name: value for name, value in report._mapping.items() if name != "id"}, zone)
        )
    return 0


def _resend(arguments: argparse.Namespace) -> int:
    from ingestor.replies.agile import client_of  # `list` needs nothing that sends
    from ingestor.replies.answers import again, send_now
    from ingestor.replies.verdicts import Fate

    settings = settings_of(arguments)
    client = client_of(settings)  # before the archive's owner is taken on: root may read the credential
    configure_log(arguments)
    engine = open_for_writing(settings)
    found = show_answer(engine, arguments.id)
    if found is not None and found.answer.state not in RESENDABLE:
        raise ConfigurationError(
            f"answer {arguments.id} is {found.answer.state}; nothing is to be sent again"
        )
    if found is not None and not arguments.yes:
        _ask(found.answer)
    answer_id, message = again(engine, arguments.id, arguments.force)
    verdict = send_now(engine, client, answer_id)
    print(f"answer {answer_id} (again for {arguments.id}): {verdict.words}; id {message.id}")
    return 0 if verdict.fate is Fate.ACCEPTED else 1


def _ask(answer: Row[Any]) -> None:
    """Let a person say yes. Raises ConfigurationError where nobody can, or does not."""
    if not standard_input().isatty():
        raise ConfigurationError("it may arrive twice; say --yes where nobody can be asked")
    said = input(f"Answer {answer.id} is {answer.state}: it may arrive twice. Send it again? [y/N] ")
    if said.strip().lower() not in {"y", "yes"}:
        raise ConfigurationError("nothing was sent")
