"""What may not be erased though somebody asks for it: a number, an SMS, or a quarantined arrival."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, insert, or_, select

from ingestor.archive import tables
from ingestor.archive.engine import reading, writing
from ingestor.errors import IngestorError

_SALT_BYTES = 32
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that stands; of `number_key`, `sms_id` and `arrival_id` one is set. `noted_at` is aware UTC."""

    id: int
    number_key: int | None
    sms_id: int | None
    arrival_id: int | None
    noted_at: datetime
    number: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """All holds that stand, to be asked for each row."""

    numbers: frozenset[int]
    sms: frozenset[int]
    arrivals: frozenset[int]

    def among(self, connection: Connection, ids: Sequence[int]) -> set[int]:
        """Return which of these SMS are held, by their id or by a number of theirs."""
        found = self.sms.intersection(ids)
        n = tables.sms_numbers.c
        if not self.numbers or not ids:
            return set(found)
        held = or_(n.originator.in_(self.numbers), n.destination.in_(self.numbers))
        query = select(n.sms_id).where(n.sms_id.in_(bindparam("ids", expanding=True)), held)
        by_number: set[int] = set()
        for start in range(0, len(ids), _CHUNK):
            by_number.update(connection.execute(query, {"ids": ids[start : start + _CHUNK]}).scalars())
        return by_number | found

    def quarantined(self, ids: Iterable[int]) -> set[int]:
        """Return which of these arrivals are held."""
        return set(self.arrivals.intersection(ids))


def standing(connection: Connection) -> Standing:
    """Return the holds that stand now."""
    rows = connection.execute(_standing()).all()
    return Standing(
        frozenset(row.number_key for row in rows if row.number_key is not None),
        frozenset(row.sms_id for row in rows if row.sms_id is not None),
        frozenset(row.arrival_id for row in rows if row.arrival_id is not None),
    )


def ended_for(connection: Connection, numbers: Collection[int]) -> list[int]:
    """Return the holds on these numbers that stand no more and say still whom they meant."""
    h, content = tables.holds.c, tables.hold_content.c
    over = tables.holds.alias("over")
    query = (
        select(h.id)
        .join_from(tables.holds, tables.hold_content, content.hold_id == h.id)
        .where(h.number_key.in_(list(numbers)), select(over.c.id).where(over.c.ends == h.id).exists())
        .order_by(h.id)
    )
    return list(connection.execute(query).scalars()) if numbers else []


def add(engine: Engine, what: dict[str, int], number: str | None, reason: str, now: datetime) -> int:
    """Begin a hold on `what`: {"number_key" or "sms_id" or "arrival_id": id}; return its id.

    Raises IngestorError where there is no such row.
    """
    known: dict[str, Any] = {"sms_id": tables.sms.c.id, "arrival_id": tables.arrivals.c.id}
    with writing(engine) as connection:
        for name, value in what.items():
            if (
                name in known
                and connection.execute(select(known[name]).where(known[name] == value)).first() is None
            ):
                raise IngestorError(f"there is nothing with id {value} to hold")
        row = insert(tables.holds).values(**what, noted_at=now).returning(tables.holds.c.id)
        hold = int(connection.execute(row).scalar_one())
        content = {"hold_id": hold, "number": number, "reason": reason, "salt": os.urandom(_SALT_BYTES)}
        connection.execute(insert(tables.hold_content).values(content))
    return hold


def remove(engine: Engine, hold: int, now: datetime) -> None:
    """End a hold. Raises IngestorError where none stands with that id."""
    with writing(engine) as connection:
        if hold not in connection.execute(_standing()).scalars().all():
            raise IngestorError(f"no hold {hold} stands; `ingestor erase hold list` shows those that do")
        connection.execute(insert(tables.holds).values(ends=hold, noted_at=now))


def listed(engine: Engine) -> list[Hold]:
    """Return the holds that stand, oldest first."""
    content = tables.hold_content.c
    found = _standing().subquery()
    query = select(found, content.number, content.reason).outerjoin(
        tables.hold_content, content.hold_id == found.c.id
    )
    with reading(engine) as connection:
        return [Hold(*row) for row in connection.execute(query.order_by(found.c.id))]


def _standing() -> Any:
    h, over = tables.holds.c, tables.holds.alias("over")
    return select(h.id, h.number_key, h.sms_id, h.arrival_id, h.noted_at).where(
        h.ends.is_(None), ~select(over.c.id).where(over.c.ends == h.id).exists()
    )
