"""What all who send for one archive must agree on: whether sending is paused, and the last known credit.

And whether the provider's clock is off by whole hours: its time zone is documented nowhere, so it may be set
wrong. Then every answer would be held back as too old, or as from the future, with nobody knowing why.
"""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from sqlalchemy import Connection, delete, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from ingestor.archive.reply_tables import answering
from ingestor.archive.tables import ANSWERABLE, arrivals, sms
from ingestor.logs import get_logger
from ingestor.replies.verdicts import Verdict

PROBE_SECONDS: Final = 60.0
CLOCK: Final = "clock agile"
"""Under this name stands by how many whole hours the provider's clock seems to be off."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Paused:
    """Why nothing is sent, and since when (aware UTC)."""

    since: datetime
    code: int | None
    words: str


@dataclass(frozen=True, slots=True)
class Credit:
    """What was left of the account, in EUR, and when that was (aware UTC)."""

    amount: Decimal
    at: datetime


def value_of(connection: Connection, name: str) -> tuple[str, datetime] | None:
    """Return what stands under `name`, and since when."""
    row = connection.execute(
        select(answering.c.value, answering.c.at).where(answering.c.name == name)
    ).first()
    return None if row is None else (row.value, row.at)


def set_once(connection: Connection, name: str, value: str, at: datetime) -> bool:
    """Write `value` where nothing stands under `name` yet; say whether this did it."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(answering).values(name=name, value=value, at=at)
    return (
        connection.execute(statement.on_conflict_do_nothing().returning(answering.c.name)).first() is not None
    )


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


def note_credit(connection: Connection, credit: Decimal, now: datetime) -> None:
    """Keep the last known credit, exactly as it was told."""
    put(connection, "credit", str(credit), now)


def credit(connection: Connection) -> Credit | None:
    """Return the last known credit, None where none is known."""
    found = value_of(connection, "credit")
    try:
        return None if found is None else Credit(Decimal(found[0]), found[1].astimezone(UTC))
    except InvalidOperation:
        return None


_LOOKED_AT: Final = 50
_LEAST: Final = 3
_MOST_OF_THEM: Final = 0.8
_SLACK: Final = timedelta(minutes=6)  # what an SMS takes to arrive at most, as a rule
_WITHIN: Final = timedelta(days=1)


def whole_hours_off(connection: Connection, provider: str, now: datetime) -> int | None:
    """Return by how many whole hours the SMS of `provider` seem to have been sent before they arrived.

    None where they do not, or too few have come within a day. Negative: they come from the future.
    """
    query = (
        select(arrivals.c.arrived_at, sms.c.received_at)
        .join(sms, sms.c.id == arrivals.c.sms_id)
        .where(text(ANSWERABLE), arrivals.c.ingested_at > now - _WITHIN, sms.c.provider == provider)
        .order_by(arrivals.c.ingested_at.desc())
        .limit(_LOOKED_AT)
    )
    gaps = [row.arrived_at - row.received_at for row in connection.execute(query)]
    hours = Counter(whole for gap in gaps if (whole := _whole_hours(gap)) is not None)
    if not hours:
        return None
    ((commonest, times),) = hours.most_common(1)
    return commonest if commonest and times >= _LEAST and times >= _MOST_OF_THEM * len(gaps) else None


def _whole_hours(gap: timedelta) -> int | None:
    """Return the whole hours of `gap` where no more than some minutes remain, None elsewhere."""
    hours, rest = divmod(gap + timedelta(minutes=1), timedelta(hours=1))
    return hours if rest <= _SLACK and abs(hours) <= 14 else None
