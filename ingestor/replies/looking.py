"""Reading what was sent, for people: lists, one with all that became of it, and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select

from ingestor.archive.engine import reading
from ingestor.archive.reply_tables import answer_events
from ingestor.archive.reply_views import answers_sent, conversations, delivery_reports_received

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
