"""The SMS that wait for a decision, which rule one meets, and the words of its answer: nothing of the
incoming text is ever among them.

They are found by the row that is missing, never by the highest number seen. An SMS counts where it came
first by mailbox or webhook (not by an import, a rescan or a retry of the quarantine), and not in the first
reading of a mailbox: all that lay in it was there before us.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, exists, select, text

from ingestor.archive.reply_tables import answers
from ingestor.archive.tables import ANSWERABLE, arrivals, runs, sms, sms_content, sources
from ingestor.archive.views import opt_out_events
from ingestor.providers import REPORT_READERS
from ingestor.record import Channel
from ingestor.replies.words import Kind, Words, cleaned
from ingestor.settings import Settings
from ingestor.settings.replies import DAYS, Answer, span

_NAME = re.compile(r"\{([a-z_]+)\}")
_ON: Final = {Kind.STOP: "opt_out", Kind.START: "opt_in", Kind.HELP: "help"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An SMS that may be answered; times are aware UTC."""

    sms_id: int
    provider: str
    source: str
    originator: str = field(repr=False)
    originator_kind: str
    destination: str
    text: str = field(repr=False)
    received_at: datetime
    arrived_at: datetime
    ingested_at: datetime
    said: Kind | None
    """What it says about being written to; `start` and `review` only where there is such an event."""


def reports_wanted(settings: Settings) -> bool:
    """Say whether an endpoint takes delivery reports; without one `sent` is the last that is known."""
    return settings.webhook is not None and any(
        one.provider in REPORT_READERS for one in settings.webhook.endpoint
    )


def rule_for(rules: Sequence[Answer], candidate: Candidate) -> Answer | None:
    """Return the one rule that `candidate` meets, None where none is for it.

    Words about being written to outrank every other rule: an SMS with one is never a keyword, nor `any`.
    """
    open_now = [rule for rule in rules if _is_for(rule, candidate)]
    on = _ON.get(candidate.said) if candidate.said is not None else None
    if on is not None:
        return next((rule for rule in open_now if rule.on == on), None)
    tokens = cleaned(candidate.text)
    for rule in open_now:
        keywords = [cleaned(word) for word in rule.keywords]
        if rule.on == "keyword" and any(word and tokens[: len(word)] == word for word in keywords):
            return rule
    return next((rule for rule in open_now if rule.on == "any"), None)


def answer_text(rule: Answer, our_number: str, now: datetime) -> str:
    """Return the words of `rule` for one answer, decided at `now` (aware)."""
    local = now.astimezone(ZoneInfo(rule.timezone))
    values = {
        "our_number": our_number, "sender": rule.sender,
        "date": f"{local:%Y-%m-%d}", "time": f"{local:%H:%M}",
    }  # fmt: skip
    return _NAME.sub(lambda found: values[found[1]], rule.text)


def _is_for(rule: Answer, candidate: Candidate) -> bool:
    if rule.numbers and candidate.destination not in rule.numbers:
        return False
    came = candidate.ingested_at.astimezone(ZoneInfo(rule.timezone))
    today, yesterday = DAYS[came.weekday()], DAYS[came.weekday() - 1]
    if rule.hours is None:
        return today in rule.days
    begin, end = span(rule.hours)
    at = came.time().replace(second=0, microsecond=0)
    if end is None or begin <= end:
        return today in rule.days and begin <= at < (end or time.max)
    return (today in rule.days and at >= begin) or (yesterday in rule.days and at < end)


def undecided(connection: Connection, since: datetime) -> list[int]:
    """Return the ids of SMS that were ingested after `since` and have no decision, oldest first."""
    decided = exists().where(answers.c.sms_id == arrivals.c.sms_id)
    query = (
        select(arrivals.c.sms_id)
        .where(text(ANSWERABLE), arrivals.c.ingested_at > since, ~decided)
        .order_by(arrivals.c.ingested_at, arrivals.c.id)
    )
    return list(connection.execute(query).scalars())


def read_candidates(
    connection: Connection, sms_ids: Sequence[int], words: Words, read_since: Mapping[str, datetime]
) -> list[Candidate]:
    """Return what is known of these SMS, but for those that no answer is for, or whose content was erased.

    `read_since` says of each mailbox when its first reading was over; one that is not in it was not read yet.
    """
    rescanned = exists().where(runs.c.id == arrivals.c.run_id, runs.c.command == "rescan")
    query = (
        select(
            arrivals.c.sms_id, arrivals.c.channel, arrivals.c.source, arrivals.c.arrived_at,
            arrivals.c.ingested_at, sms.c.provider, sms.c.originator_kind, sms.c.destination,
            sms.c.received_at, sms_content.c.originator, sms_content.c.text,
        )
        .join(sms, sms.c.id == arrivals.c.sms_id)
        .join(sms_content, sms_content.c.sms_id == sms.c.id)
        .where(text(ANSWERABLE), arrivals.c.sms_id.in_(sms_ids), ~rescanned)
        .order_by(arrivals.c.ingested_at, arrivals.c.id)
    )  # fmt: skip
    found = connection.execute(query).all()
    said = _said(connection, sms_ids)
    return [
        Candidate(
            row.sms_id, row.provider, row.source, row.originator, row.originator_kind, row.destination,
            row.text, row.received_at, row.arrived_at, row.ingested_at,
            said.get(row.sms_id) or _help(words, row.text),
        )
        for row in found
        if row.channel != Channel.MAILBOX
        or (row.source in read_since and row.ingested_at > read_since[row.source])
    ]  # fmt: skip


def first_readings_over(connection: Connection, mailboxes: Iterable[str]) -> dict[str, datetime]:
    """Return of those `mailboxes` that were read whole at least once when that was, as far as is known."""
    query = select(sources.c.name, sources.c.last_success).where(
        sources.c.name.in_(list(mailboxes)), sources.c.last_success.is_not(None)
    )
    return {row.name: row.last_success for row in connection.execute(query)}


def _help(words: Words, said: str) -> Kind | None:
    verdict = words.judge(said)
    return Kind.HELP if verdict is not None and verdict.kind is Kind.HELP else None


def _said(connection: Connection, sms_ids: Sequence[int]) -> dict[int, Kind]:
    """Return what the events of these SMS say; a START that undid nothing is none."""
    query = select(opt_out_events.c.sms_id, opt_out_events.c.kind).where(opt_out_events.c.sms_id.in_(sms_ids))
    said: dict[int, Kind] = {}
    for sms_id, kind in connection.execute(query):
        if kind == Kind.REVIEW:
            said.setdefault(sms_id, Kind.REVIEW)
        elif kind in {Kind.STOP, Kind.START}:
            said[sms_id] = Kind(kind)
    return said
