"""`ingestor explain`: what becomes of a mail, which rule decided, and its record; it only reads."""

import argparse
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple

from sqlalchemy import Engine

from ingestor.archive.inserts import known_mail
from ingestor.archive.items import Action
from ingestor.archive.mailbox_state import pending_work, read_cursor
from ingestor.archive.views import plain_row
from ingestor.cli.arguments import add_utc, count, localised, text, zone_of
from ingestor.cli.opening import archive_exists, configure_log, open_for_reading, settings_of
from ingestor.cli.printing import print_fields, print_json
from ingestor.errors import ConfigurationError
from ingestor.intake.files.leaves import each_mail
from ingestor.intake.mailbox.fetch import look
from ingestor.intake.mailbox.login import credential_of
from ingestor.intake.mailbox.thread import judge_of
from ingestor.intake.mailbox.trust import Judge
from ingestor.providers import mail_reader
from ingestor.providers.contract import Explanation, NotOurs, Readable, Rules
from ingestor.settings import Settings, mailbox_named, rules_for

EXAMPLES = """
ingestor explain mail.eml
ingestor explain old.mbox --json | jq .verdict
ingestor explain --mailbox main --last 20
ingestor explain --mailbox main --folder INBOX --uid 4711
"""

_PROVIDER = "agile"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="mails, mailboxes, folders or archives")
    parser.add_argument("--mailbox", metavar="NAME", type=text, help="look at this mailbox instead")
    parser.add_argument("--folder", metavar="F", type=text, help="in this folder (default: its first)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--uid", metavar="N", type=count, help="at the mail with this UID")
    which.add_argument("--last", metavar="N", type=count, default=20, help="at the last N mails (20)")
    parser.add_argument("--json", action="store_true", help="one JSON object a mail")
    add_utc(parser)


class Case(NamedTuple):
    """One mail: its place in words, its bytes (None: not fetched), and what was made of it."""

    place: dict[str, Any]
    raw: bytes | None
    whole: bool
    explanation: Explanation | None
    fault: str | None = None


def run(arguments: argparse.Namespace) -> int:
    """Print what becomes of each mail; return 1 where one could not be read."""
    if bool(arguments.files) == bool(arguments.mailbox):
        raise ConfigurationError("explain needs either FILE… or --mailbox NAME")
    if arguments.files and (arguments.uid or arguments.folder):
        raise ConfigurationError("--uid and --folder belong to --mailbox")
    settings = settings_of(arguments)
    configure_log(arguments)
    engine = open_for_reading(settings) if archive_exists(settings) else None
    rules = rules_for(settings, _PROVIDER)
    cases = (
        _in_mailbox(settings, arguments, rules) if arguments.mailbox else _in_files(arguments.files, rules)
    )
    faults = found = 0
    for case in cases:
        found += 1
        faults += case.fault is not None
        if engine is not None and arguments.mailbox and case.explanation is not None:
            case.place["reached"] = _reached(engine, case.place)
        zone = zone_of(arguments, settings)
        _print(case, _known(engine, case), as_json=arguments.json, first=found == 1, zone=zone)
    if not found and not arguments.json:
        print("no mail there")
    return 1 if faults else 0


def _in_files(files: list[str], rules: Rules) -> Iterator[Case]:
    explain = mail_reader(_PROVIDER).explain_mail
    for found in each_mail(files):
        place = {"input": str(found.place), "offset": found.offset}
        if found.fault is not None:
            yield Case({"input": str(found.place)}, None, False, None, found.fault)
        else:
            yield Case(place, found.raw, found.size is None, explain(found.raw, rules, found.size))


def _in_mailbox(settings: Settings, arguments: argparse.Namespace, rules: Rules) -> Iterator[Case]:
    reader = mail_reader(_PROVIDER)
    mailbox = mailbox_named(settings, arguments.mailbox)
    judge = judge_of(mailbox, reader, rules)
    seen = look(
        mailbox,
        credential_of(mailbox),
        reader,
        rules,
        folder=arguments.folder,
        uid=arguments.uid,
        last=arguments.last,
    )
    with contextlib.closing(seen):
        for one in seen:
            place = {"mailbox": mailbox.name, "folder": one.folder, "uid": one.uid}
            if one.raw is None and reader.may_be_ours(one.lines, rules):
                yield Case(place, None, False, None, "the server sends no body for it")
            elif one.raw is None:
                made = reader.explain_mail(one.lines, rules)
                made = made._replace(rule=f"{made.rule}; so only its From and Subject were fetched")
                yield Case(place, None, False, made)
            else:
                made = reader.explain_mail(one.raw, rules, one.size)
                if judge is not None and one.size is None:
                    made, sender = _by_sender(judge, made, one.raw, one.received_at or datetime.now(UTC))
                    place |= {"sender": sender} if sender else {}
                yield Case(place, one.raw, one.size is None, made)


def _by_sender(
    judge: Judge, made: Explanation, raw: bytes, received_at: datetime
) -> tuple[Explanation, str | None]:
    """Return what becomes of a mail by its sender, too, and what is found of him now, in words."""
    if isinstance(made.reading, NotOurs):
        return made, None
    verdict = judge.verdict(raw, made.reading, received_at, datetime.now(UTC))
    if verdict is None:
        return made, None
    said = verdict.check.said(verdict.verified)
    admitted = judge.admitted(made.reading, verdict)
    if admitted is not made.reading:
        made = made._replace(reading=admitted, rule=f"{made.rule}; but the sender is {said}")
    return made, said


def _reached(engine: Engine, place: dict[str, Any]) -> str:
    """Return whether the mail at `place` was met by the daemon, in words."""
    mailbox, folder, uid = place["mailbox"], place["folder"], place["uid"]
    for entry in pending_work(engine, mailbox, folder):
        if entry.work.uid == uid and entry.work.action is Action.FETCH:
            return f"pending, to be fetched again: {entry.reason or 'not tried yet'}"
    cursor = read_cursor(engine, mailbox, folder)
    if cursor is None:
        return "not yet: this folder was never read"
    return (
        f"{'yes' if uid <= cursor.last_uid else 'not yet'}: the folder was read up to UID {cursor.last_uid}"
    )


def _known(engine: Engine | None, case: Case) -> dict[str, Any]:
    """Return what the archive has of a mail; empty where there is no archive or not the whole mail."""
    if engine is None or case.raw is None or not case.whole or case.explanation is None:
        return {}
    reading = case.explanation.reading
    return known_mail(engine, case.raw, reading.sms if isinstance(reading, Readable) else None)


def _verdict(case: Case, known: dict[str, Any]) -> str:
    if case.explanation is None:
        return "unreadable"
    reading = case.explanation.reading
    if known.get("read_as") is not None:
        return f"read before: SMS {known['read_as']}"
    if isinstance(reading, Readable):
        same = known.get("same_sms")
        return f"a duplicate of SMS {same}" if same is not None else "an SMS, to be stored"
    if isinstance(reading, NotOurs):
        return "ignored" if reading.missing is None else "ignored, a look-alike"
    stands = known.get("quarantined_as")
    return "to be quarantined" if stands is None else f"quarantined as {stands}"


def _print(case: Case, known: dict[str, Any], *, as_json: bool, first: bool, zone: tzinfo | None) -> None:
    fields: dict[str, Any] = {**case.place, "verdict": _verdict(case, known)}
    if known.get("sender"):
        fields["sender"] = f"{known['sender']} when it came"
    made, record = case.explanation, None
    fields |= {"rule": case.fault} if made is None else {"rule": made.rule, "looked_at": list(made.lines)}
    if made is not None and isinstance(made.reading, Readable):
        sms = made.reading.sms
        record = {**sms._asdict(), "details": dict(sms.details)}
    if as_json:
        print_json({**fields, "record": record and plain_row(record), "archive": known or None})
        return
    if not first:
        print()
    fields["looked_at"] = "\n".join(fields.get("looked_at", ()))
    before = known.get("read_as")
    if before is not None and record is not None and known.get("same_sms") != before:
        fields["today"] = "today's reader would make another record of it:"
    print_fields(
        {
            name: value
            for name, value in {**fields, **localised(record or {}, zone)}.items()
            if value not in (None, "")
        }
    )
