"""What is older than it may be, and what may not be erased though somebody asks for it.

A hold is on a number, an SMS, or a quarantined arrival.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    bindparam,
    false,
    func,
    insert,
    not_,
    or_,
    select,
    true,
)  # fmt: skip
from sqlalchemy.exc import IntegrityError

from ingestor.archive import tables
from ingestor.archive.columns import for_ids
from ingestor.archive.engine import reading, writing
from ingestor.archive.queries import is_erased, unread
from ingestor.archive.tables import WholeSecond
from ingestor.errors import IngestorError


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
        found = set(self.sms.intersection(ids))
        n = tables.sms_numbers.c
        if not self.numbers:
            return found
        held = or_(n.originator.in_(self.numbers), n.destination.in_(self.numbers))
        query = select(n.sms_id).where(held)
        return found | {number for (number,) in for_ids(connection, query, n.sms_id, ids)}


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
    """Begin a hold on `what`, a column of `holds` and its value. Raises IngestorError without such a row."""
    row = insert(tables.holds).values(**what, noted_at=now).returning(tables.holds.c.id)
    with writing(engine) as connection:
        try:
            hold = int(connection.execute(row).scalar_one())
        except IntegrityError:
            [value] = what.values()
            raise IngestorError(f"there is nothing with id {value} to hold") from None
        content = {"hold_id": hold, "number": number, "reason": reason, "salt": secrets.token_bytes(32)}
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


@dataclass(frozen=True, slots=True)
class Keep:
    """SMS received before `before` (aware) are due: those of a `destination` or `provider`, None is any."""

    before: datetime
    destination: str | None = None
    provider: str | None = None

    @property
    def fits(self) -> ColumnElement[bool]:
        """Whether it is for an SMS at all."""
        wanted = {"destination": self.destination, "provider": self.provider}
        fits = (tables.sms.c[name] == value for name, value in wanted.items() if value is not None)
        return and_(true(), *fits)


def due(
    engine: Engine, keeps: Sequence[Keep], quarantined_before: datetime | None, most: int
) -> tuple[list[int], list[int]]:
    """Return the SMS and quarantined arrivals that are due by the first of `keeps` that fits, not held."""
    with reading(engine) as connection:
        old, stale = _due(connection, keeps, quarantined_before, most)
        return list(connection.execute(old).scalars()), list(connection.execute(stale).scalars())


def count_due(
    engine: Engine, keeps: Sequence[Keep], quarantined_before: datetime | None, most: int
) -> tuple[int, int]:
    """Return how many `due` returns."""
    with reading(engine) as connection:
        old, stale = (
            connection.execute(select(func.count()).select_from(one.subquery())).scalar_one()
            for one in _due(connection, keeps, quarantined_before, most)
        )
        return old, stale


def _due(
    connection: Connection, keeps: Sequence[Keep], quarantined_before: datetime | None, most: int
) -> tuple[Select[Any], Select[Any]]:
    sms, a, n = tables.sms.c, tables.arrivals.c, tables.sms_numbers.c
    held = standing(connection)
    is_old = [
        and_(keep.fits, sms.received_at < bindparam(None, keep.before, WholeSecond),
             *(not_(earlier.fits) for earlier in keeps[:at]))
        for at, keep in enumerate(keeps)
    ]  # fmt: skip
    numbers = or_(n.originator.in_(held.numbers), n.destination.in_(held.numbers))
    held_number = select(n.sms_id).where(n.sms_id == sms.id, numbers).exists()
    old = select(sms.id).where(
        ~is_erased("sms", sms.id),
        or_(false(), *is_old),
        sms.id.not_in(held.sms),
        *([~held_number] if held.numbers else ()),
    )
    before = bindparam(None, quarantined_before, WholeSecond)
    stale = unread().where(
        a.id.not_in(held.arrivals), a.arrived_at < before if quarantined_before is not None else false()
    )
    return old.order_by(sms.id).limit(most), stale.order_by(a.id).limit(most)
