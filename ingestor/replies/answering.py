"""What all who send for one archive must agree on: whether sending is paused, and the last known credit.

And whether the provider's clock is off by whole hours: its time zone is documented nowhere, so it may be set
wrong. Then every answer would be held back as too old, or as from the future, with nobody knowing why.
And what people read of all that: lists, one answer with all that became of it, and a row for `status`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, Row, delete, func, select, update

from ingestor.archive.columns import insert_once
from ingestor.archive.engine import reading
from ingestor.archive.mailbox_state import note_source
from ingestor.archive.reply_tables import answer_events, answering
from ingestor.archive.views import answers_sent, conversations, delivery_reports_received
from ingestor.logs import get_logger
from ingestor.replies.verdicts import Verdict

PROBE_SECONDS: Final = 60.0
CLOCK: Final = "clock agile"
"""Under this name stands by how many whole hours the provider's clock seems to be off."""

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

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Paused:
    """Why nothing is sent, and since when (aware UTC)."""

    since: datetime
    code: int | None
    words: str


def value_of(connection: Connection, name: str) -> tuple[str, datetime] | None:
    """Return what stands under `name`, and since when."""
    row = connection.execute(
        select(answering.c.value, answering.c.at).where(answering.c.name == name)
    ).first()
    return None if row is None else (row.value, row.at)


def set_once(connection: Connection, name: str, value: str, at: datetime) -> bool:
    """Write `value` where nothing stands under `name` yet; say whether this did it."""
    return insert_once(connection, answering, {"name": name, "value": value, "at": at}) is not None


def put(connection: Connection, name: str, value: str, at: datetime) -> None:
    """Write `value` whatever stands there."""
    if not set_once(connection, name, value, at):
        connection.execute(update(answering).where(answering.c.name == name).values(value=value, at=at))


def take_turn(connection: Connection, name: str, seconds: float, now: datetime) -> bool:
    """Say whether nobody had this turn within the last `seconds`; then it is ours."""
    if set_once(connection, name, "", now):
        return True
    due = answering.c.at <= now - timedelta(seconds=seconds)
    statement = update(answering).where(answering.c.name == name, due).values(at=now)
    return connection.execute(statement.returning(answering.c.name)).first() is not None


def set_back(connection: Connection, now: datetime) -> None:
    """Let nothing stand as of later than `now`: noted under a clock that was wrong, no rule would count
    before that day, and nobody had a turn."""
    connection.execute(update(answering).where(answering.c.at > now).values(at=now))


def forget(connection: Connection, name: str) -> None:
    """Let nothing stand under `name`."""
    connection.execute(delete(answering).where(answering.c.name == name))


def pause(connection: Connection, verdict: Verdict, now: datetime) -> None:
    """Let nobody send any more; only who begins the pause says so in the log."""
    if set_once(connection, "paused", json.dumps({"code": verdict.code, "words": verdict.words}), now):
        put(connection, "probe", "", now)
        log.error(
            "sending is paused", why=verdict.words,
            consequence="answers wait until they are too old; one simulated message a minute tries again",
        )  # fmt: skip


def resume(connection: Connection) -> None:
    """Let everybody send again."""
    gone = delete(answering).where(answering.c.name == "paused").returning(answering.c.at)
    row = connection.execute(gone).first()
    if row is not None:
        log.info("sending goes on", paused_since=row.at)


def paused(connection: Connection) -> Paused | None:
    """Return since when and why nothing is sent, None where it is."""
    found = value_of(connection, "paused")
    if found is None:
        return None
    told = json.loads(found[0])
    return Paused(found[1], told["code"], told["words"])


def credit(connection: Connection) -> Decimal | None:
    """Return what was last known to be left of the account, in EUR, None where nothing is known."""
    found = value_of(connection, "credit")
    return None if found is None else Decimal(found[0])


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


def states_since(
    connection: Connection, since: datetime, by: ColumnElement[Any] = answers_sent.c.state
) -> dict[str, int]:
    """Return how many answers decided since then are in each state, or have each value of another column."""
    query = select(by, func.count()).where(answers_sent.c.decided_at >= since).group_by(by)
    return {value: number for value, number in connection.execute(query) if value is not None}


NAME: Final = "answers"
_POLL_SECONDS: Final = 60


def note_state(engine: Engine, now: datetime) -> None:
    """Write down how sending stands at `now` (aware UTC): paused, held back by a clock, or well."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with reading(engine) as connection:
        held = paused(connection)
        offset = value_of(connection, CLOCK)
        left = credit(connection)
        states = states_since(connection, midnight)
        held_back = states_since(connection, midnight, answers_sent.c.suppressed)
    told = [f"today {_counts(states)}" if states else "today none"]
    if held_back:
        told.append(f"held back: {_counts(held_back)}")
    if left is not None:
        told.append(f"credit {left} EUR")
    state = "answering"
    if offset is not None:
        state = "clock is off"
        told.insert(0, f"SMS seem to be sent {offset[0]} h before they arrive: set agile.timezone")
    if held is not None:
        state = "paused"
        told.insert(0, f"since {held.since:%Y-%m-%d %H:%M} UTC: {held.words}")
    note_source(engine, NAME, NAME, state, "; ".join(told), _POLL_SECONDS, now, success=state == "answering")


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(numbers.items()))
