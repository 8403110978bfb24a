"""Reading what was sent, for people: lists, one with all that became of it, counts, and how the answers fare
as a row among the sources that `status` shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, func, select

from ingestor.archive.engine import reading
from ingestor.archive.mailbox_state import drop_source, note_source
from ingestor.archive.reply_tables import answer_events
from ingestor.archive.reply_views import answers_sent, conversations, delivery_reports_received
from ingestor.replies import answering

UNKNOWN = ("unknown", "no_report")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its row in the view, its events, and the reports about it."""

    answer: Row[Any]
    events: Sequence[Row[Any]]
    reports: Sequence[Row[Any]]


def list_answers(
    engine: Engine, *, only_unknown: bool = False, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Return the view `answers_sent`, newest first; `only_unknown` those of which nobody knows."""
    query = select(answers_sent).order_by(answers_sent.c.id.desc()).limit(limit)
    if only_unknown:
        query = query.where(answers_sent.c.state.in_(UNKNOWN))
    with reading(engine) as connection:
        return connection.execute(query).all()


def show_answer(engine: Engine, answer_id: int) -> Answer | None:
    """Return one answer with all that became of it, None where there is none."""
    with reading(engine) as connection:
        answer = connection.execute(select(answers_sent).where(answers_sent.c.id == answer_id)).first()
        if answer is None:
            return None
        mine = answer_events.c.answer_id == answer_id
        events = connection.execute(select(answer_events).where(mine).order_by(answer_events.c.id)).all()
        about = delivery_reports_received.c.message_id == answer.message_id
        reports = connection.execute(
            select(delivery_reports_received).where(about).order_by(delivery_reports_received.c.id)
        ).all()
    return Answer(answer, events, reports)


def conversation(engine: Engine, number: str) -> Sequence[Row[Any]]:
    """Return what went both ways between a number and all of ours, oldest first."""
    query = (
        select(conversations)
        .where(conversations.c.number == number)
        .order_by(conversations.c.at, conversations.c.sms_id, conversations.c.answer_id)
    )
    with reading(engine) as connection:
        return connection.execute(query).all()


def states_since(connection: Connection, since: datetime) -> dict[str, int]:
    """Return how many answers decided since then are in each state."""
    query = (
        select(answers_sent.c.state, func.count())
        .where(answers_sent.c.decided_at >= since)
        .group_by(answers_sent.c.state)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def suppressions_since(connection: Connection, since: datetime) -> dict[str, int]:
    """Return how many answers were held back since then, by reason."""
    query = (
        select(answers_sent.c.suppressed, func.count())
        .where(answers_sent.c.decided_at >= since, answers_sent.c.suppressed.is_not(None))
        .group_by(answers_sent.c.suppressed)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


NAME: Final = "answers"
_POLL_SECONDS: Final = 60


def note_state(engine: Engine, now: datetime) -> None:
    """Write down how sending stands at `now` (aware UTC): paused, held back by a clock, or well."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with reading(engine) as connection:
        paused = answering.paused(connection)
        offset = answering.value_of(connection, answering.CLOCK)
        credit = answering.credit(connection)
        states = states_since(connection, midnight)
        held_back = suppressions_since(connection, midnight)
    told = [f"today {_counts(states)}" if states else "today none"]
    if held_back:
        told.append(f"held back: {_counts(held_back)}")
    if credit is not None:
        told.append(f"credit {credit.amount} EUR")
    state = "answering"
    if offset is not None:
        state = "clock is off"
        told.insert(0, f"SMS seem to be sent {offset[0]} h before they arrive: set agile.timezone")
    if paused is not None:
        state = "paused"
        told.insert(0, f"since {paused.since:%Y-%m-%d %H:%M} UTC: {paused.words}")
    note_source(engine, NAME, NAME, state, "; ".join(told), _POLL_SECONDS, now, success=state == "answering")


def forget_state(engine: Engine) -> None:
    """Let `status` say nothing of answers: there are no rules."""
    drop_source(engine, NAME)


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(numbers.items()))
