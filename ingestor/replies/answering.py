"""What all who send for one archive must agree on: whether sending is paused, and the last known credit."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ingestor.archive.reply_tables import answering
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
