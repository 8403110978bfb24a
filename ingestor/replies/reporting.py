"""How the answers fare, as a row among the sources that `status` shows."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Engine

from ingestor.archive.engine import reading
from ingestor.archive.mailbox_state import drop_source, note_source
from ingestor.replies import answering
from ingestor.replies.looking import states_since, suppressions_since

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
