"""Why an answer must not leave: each guard a question to the archive, so that several daemons agree.

Sources: medic/cht-core (own numbers, names, short codes, a deny list, equal answers), TextIt's mailroom (a
cap on equal texts), goalert (a cap for each number), Agile's inbound guide (rate-limit your responder).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select

from ingestor.archive.reply_tables import answer_content, answers
from ingestor.archive.tables import consents
from ingestor.numbers import OriginatorKind
from ingestor.replies.answering import credit
from ingestor.replies.answers import Kind as Why
from ingestor.replies.answers import text_hmac
from ingestor.replies.opt_outs import is_out
from ingestor.replies.rules import Candidate
from ingestor.replies.words import Kind
from ingestor.settings.replies import Answer, Answers

TOO_OLD: Final = "too_old"
FROM_THE_FUTURE: Final = "from_the_future"
OPTED_OUT: Final = "opted_out"

REASONS: Final = {
    "not_a_phone": "the sender is a name or a short code",
    "own_number": "the sender is a number of ours",
    "denied": "the number begins as one in answers.deny",
    FROM_THE_FUTURE: "its time lies in our future: is the provider's time zone set right?",
    TOO_OLD: "it was older than answers.max_age_seconds (of a STOP: confirmation_max_age_seconds)",
    "in_review": "it may be an opt-out: a person decides",
    OPTED_OUT: "the number is out",
    "confirmation_off": "answers.confirm does not name its provider",
    "confirmed_before": "an opt-out is confirmed once until a START",
    "quotes_us": "it repeats our last answer: a robot, or a forward",
    "equal_texts": "the number got so many equal answers already",
    "number_limit": "the number got so many answers already",
    "minute_limit": "so many answers were decided within a minute",
    "hour_limit": "so many answers were decided within an hour",
    "credit_floor": "the account has less than answers.credit_floor",
    "erased": "its content was erased",
}
"""Each reason in words."""


_OPENING: Final = ("start", "remove")
_AHEAD: Final = timedelta(minutes=5)  # clocks of phones and networks are off by that much
_QUOTED_WITHIN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Question:
    """What the guards are asked: may `rule` answer `candidate` with `text` at `now`, by these `limits`?"""

    candidate: Candidate
    rule: Answer
    text: str
    number_hmac: bytes
    limits: Answers
    own_numbers: frozenset[str]
    secret: bytes
    now: datetime

    @property
    def confirms(self) -> bool:
        """Whether it is the confirmation of an opt-out."""
        return self.rule.on == "opt_out"


def why_not(connection: Connection, asked: Question) -> str | None:
    """Return the first reason of REASONS against the answer, None where there is none."""
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
    if candidate.originator in asked.own_numbers:
        yield "own_number"
    if candidate.originator.startswith(asked.limits.deny):
        yield "denied"
    if candidate.received_at > asked.now + _AHEAD:
        yield FROM_THE_FUTURE
    oldest = min(candidate.received_at, candidate.arrived_at, candidate.ingested_at)
    if too_old(oldest, asked.limits, asked.now, confirms=asked.confirms):
        yield TOO_OLD
    if candidate.said is Kind.REVIEW:
        yield "in_review"


def _confirmation(connection: Connection, asked: Question) -> Iterator[str]:
    """Once a cycle: from a STOP to the START that undoes it. That the number is out is no reason here."""
    candidate = asked.candidate
    if candidate.provider not in asked.limits.confirm:
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
    candidate, limits = asked.candidate, asked.limits
    if is_out(connection, asked.secret, candidate.originator, candidate.destination):
        yield OPTED_OUT
    mine = answers.c.number_hmac == asked.number_hmac
    quoted = (
        select(answers.c.id)
        .join(answer_content)
        .where(mine, *_leaving(asked.now - _QUOTED_WITHIN), _contains(connection)(candidate.text))
        .limit(1)
    )
    if connection.execute(quoted).first() is not None:
        yield "quotes_us"
    equal = answers.c.text_hmac == text_hmac(asked.secret, asked.text)
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
    limits = asked.limits
    for reason, seconds, most in (
        ("minute_limit", 60, limits.per_minute),
        ("hour_limit", 3600, limits.per_hour),
    ):
        since = asked.now - timedelta(seconds=seconds)
        if _count(connection, *_leaving(since)) >= most:
            yield reason
    known = credit(connection)
    if known is not None and known.amount < limits.credit_floor:
        yield "credit_floor"


def _leaving(since: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of answers by rule that left, or may have, since then."""
    return answers.c.kind == Why.ANSWER, answers.c.suppressed.is_(None), answers.c.decided_at > since


def _contains(connection: Connection) -> Callable[[str], ColumnElement[bool]]:
    """Return what asks whether a text contains an answer of ours, in any case."""
    find = func.strpos if connection.dialect.name == "postgresql" else func.instr
    return lambda incoming: or_(
        find(func.lower(incoming), func.lower(answer_content.c.text)) > 0, answer_content.c.text == incoming
    )


def _count(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(answers).where(*conditions)).scalar_one()
