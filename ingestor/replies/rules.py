"""The SMS that wait for a decision, which rule one meets, and the words of its answer: nothing of the
incoming text is ever among them.

They are found by the row that is missing, never by the highest number seen. An SMS counts where it came
first by mailbox or webhook (not by an import, a rescan or a retry of the quarantine), and not in the first
reading of a mailbox: all that lay in it was there before us.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select, text

from ingestor.archive.reply_tables import answer_content, answers
from ingestor.archive.tables import ANSWERABLE, arrivals, consents, runs, sms, sms_content, sources
from ingestor.archive.views import opt_out_events
from ingestor.numbers import OriginatorKind
from ingestor.providers import REPORT_READERS
from ingestor.record import Channel
from ingestor.replies.answering import FROM_THE_FUTURE, OPTED_OUT, TOO_OLD, credit
from ingestor.replies.answers import Kind as Why
from ingestor.replies.answers import text_hmac
from ingestor.replies.opt_outs import is_out
from ingestor.replies.words import Kind, Words, cleaned
from ingestor.settings import Settings
from ingestor.settings.replies import DAYS, Answer, Answers

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
    """Return the one rule that `candidate` meets, None where none is for it: an SMS with words about being
    written to is never a keyword, nor `any`.
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
    begin, end = rule.hours.split("-")
    at = f"{came:%H:%M}"
    if begin <= end:
        return today in rule.days and begin <= at < end
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


_OPENING: Final = ("start", "remove")
_AHEAD: Final = timedelta(minutes=5)  # clocks of phones and networks are off by that much
_QUOTED_WITHIN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides: the settings, the words, the archive's key, and the numbers that are ours."""

    settings: Settings
    words: Words
    secret: bytes
    own_numbers: frozenset[str]


def policy_of(settings: Settings, words: Words, secret: bytes) -> Policy:
    """Return the policy that follows from `settings`."""
    numbers = (number for _, table in settings for number in getattr(table, "numbers", ()))
    return Policy(settings, words, secret, frozenset((*numbers, *(rule.sender for rule in settings.answer))))


@dataclass(frozen=True, slots=True)
class Question:
    """What the guards are asked: may `rule` answer `candidate` with `text` at `now`, by this `policy`?"""

    candidate: Candidate
    rule: Answer
    text: str
    number_hmac: bytes
    policy: Policy
    now: datetime

    @property
    def confirms(self) -> bool:
        """Whether it is the confirmation of an opt-out."""
        return self.rule.on == "opt_out"


def why_not(connection: Connection, asked: Question) -> str | None:
    """Return the first reason of `answering.REASONS` against the answer, None where there is none."""
    guards = (_plain, _confirmation if asked.confirms else _ordinary, _totals)
    return next((reason for guard in guards for reason in guard(connection, asked)), None)


def too_old(candidate_time: datetime, limits: Answers, now: datetime, *, confirms: bool) -> bool:
    """Say whether what was sent or came at that time is not answered any more at `now`."""
    seconds = limits.confirmation_max_age_seconds if confirms else limits.max_age_seconds
    return now - candidate_time > timedelta(seconds=seconds)


def _plain(_: Connection, asked: Question) -> Iterator[str]:
    """What the SMS alone tells."""
    candidate = asked.candidate
    if candidate.originator_kind != OriginatorKind.MSISDN:
        yield "not_a_phone"
    if candidate.originator in asked.policy.own_numbers:
        yield "own_number"
    if candidate.originator.startswith(asked.policy.settings.answers.deny):
        yield "denied"
    if candidate.received_at > asked.now + _AHEAD:
        yield FROM_THE_FUTURE
    oldest = min(candidate.received_at, candidate.arrived_at, candidate.ingested_at)
    if too_old(oldest, asked.policy.settings.answers, asked.now, confirms=asked.confirms):
        yield TOO_OLD
    if candidate.said is Kind.REVIEW:
        yield "in_review"


def _confirmation(connection: Connection, asked: Question) -> Iterator[str]:
    """Once a cycle: from a STOP to the START that undoes it. That the number is out is no reason here."""
    candidate = asked.candidate
    if candidate.provider not in asked.policy.settings.answers.confirm:
        yield "confirmation_off"
    stops, opened = consents.alias("stops"), consents.alias("opened")
    undone = exists().where(
        opened.c.number_hmac == asked.number_hmac, opened.c.kind.in_(_OPENING),
        opened.c.at >= stops.c.at, opened.c.at <= candidate.received_at,
    )  # fmt: skip
    earlier = (
        select(answers.c.id)
        .join(stops, stops.c.sms_id == answers.c.sms_id)
        .where(
            answers.c.number_hmac == asked.number_hmac, answers.c.our_number == candidate.destination,
            answers.c.kind == Why.ANSWER, answers.c.suppressed.is_(None), stops.c.kind == Kind.STOP, ~undone,
        )
        .limit(1)
    )  # fmt: skip
    if connection.execute(earlier).first() is not None:
        yield "confirmed_before"


def _ordinary(connection: Connection, asked: Question) -> Iterator[str]:
    candidate, limits = asked.candidate, asked.policy.settings.answers
    if is_out(connection, asked.policy.secret, candidate.originator, candidate.destination):
        yield OPTED_OUT
    mine = answers.c.number_hmac == asked.number_hmac
    quoted = (
        select(answers.c.id)
        .join(answer_content)
        .where(mine, *_leaving(asked.now - _QUOTED_WITHIN), _contains(connection, candidate.text))
        .limit(1)
    )
    if connection.execute(quoted).first() is not None:
        yield "quotes_us"
    equal = answers.c.text_hmac == text_hmac(asked.policy.secret, asked.text)
    since = asked.now - timedelta(seconds=limits.equal_texts_seconds)
    if _count(connection, mine, equal, *_leaving(since)) >= limits.equal_texts:
        yield "equal_texts"
    confirmations = select(consents.c.id).where(
        consents.c.sms_id == answers.c.sms_id, consents.c.kind == Kind.STOP
    )
    since = asked.now - timedelta(seconds=limits.per_number_seconds)
    if _count(connection, mine, *_leaving(since), ~confirmations.exists()) >= limits.per_number:
        yield "number_limit"


def _totals(connection: Connection, asked: Question) -> Iterator[str]:
    """What holds for all numbers together, confirmations among them: whoever floods us must cost little."""
    limits = asked.policy.settings.answers
    for reason, seconds, most in (
        ("minute_limit", 60, limits.per_minute),
        ("hour_limit", 3600, limits.per_hour),
    ):
        since = asked.now - timedelta(seconds=seconds)
        if _count(connection, *_leaving(since)) >= most:
            yield reason
    known = credit(connection)
    if known is not None and known < limits.credit_floor:
        yield "credit_floor"


def _leaving(since: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of answers by rule that left, or may have, since then."""
    return answers.c.kind == Why.ANSWER, answers.c.suppressed.is_(None), answers.c.decided_at > since


def _contains(connection: Connection, incoming: str) -> ColumnElement[bool]:
    """Return what asks whether `incoming` contains an answer of ours, in any case."""
    find = func.strpos if connection.dialect.name == "postgresql" else func.instr
    ours = answer_content.c.text
    return or_(find(func.lower(incoming), func.lower(ours)) > 0, ours == incoming)


def _count(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(answers).where(*conditions)).scalar_one()
