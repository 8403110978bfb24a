"""SMS as they are committed: each once, by whichever way they come and in whichever order they commit.

On PostgreSQL a lower id may commit later than a higher one, an hour later where its writer was stopped. So
the ids that have been passed over are remembered, and looked at again: often while they are young, then each
minute, for a day. SQLite has one writer at a time: there ids are given in the order of the commits.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, between, bindparam, func, or_, select

from ingestor.archive.columns import in_parts
from ingestor.archive.engine import one_moment, reading
from ingestor.archive.tables import WholeSecond
from ingestor.archive.views import inbound_sms

Row = Mapping[str, Any]

LOOKED_BACK = 100_000
"""At the start: of so many ids those that are missing may still be on their way."""

YOUNG_SECONDS = 60.0
OLD_EVERY_SECONDS = 60.0
KEPT_SECONDS = 86_400.0
MOST_HOLES = 50_000
_AT_ONCE = 1000
_RANGES_AT_ONCE = 100


@dataclass(slots=True)
class _Hole:
    """Ids from `first` to `last` that were passed over at `since` (monotonic)."""

    first: int
    last: int
    since: float


@dataclass(slots=True)
class Following:
    """What has been seen of one archive. `wanted` are conditions on the columns of `inbound_sms`."""

    engine: Engine
    wanted: Sequence[ColumnElement[bool]] = ()
    clock: Callable[[], float] = time.monotonic
    _last: int = 0
    _holes: list[_Hole] = field(default_factory=list)
    _old_looked_at: float = 0.0

    def begin(self, since: datetime | None) -> Iterator[Row]:
        """Stand at the archive's end of now; give what is there and was received since `since` (aware; None:
        nothing). What commits after this moment is given by `look`.
        """
        ids = inbound_sms.c.id
        with one_moment(self.engine) as connection:
            self._last = connection.execute(select(func.coalesce(func.max(ids), 0))).scalar_one()
            start = max(0, self._last - LOOKED_BACK)
            there = connection.execute(select(ids).where(ids > start).order_by(ids)).scalars()
            self._pass_over(start, there)
            if since is not None:
                here = self._query(ids <= self._last).execution_options(yield_per=_AT_ONCE)
                with connection.execute(here) as result:
                    yield from map(dict, result.mappings())

    def look(self) -> Iterator[Row]:
        """Give what has been committed since the last look, each SMS once."""
        ids = inbound_sms.c.id
        with reading(self.engine) as connection:
            yield from self._late(connection)
            more = True
            while more:
                query = select(ids).where(ids > self._last).order_by(ids).limit(_AT_ONCE)
                found = connection.execute(query).scalars().all()
                # Of these ids and no others: one between them may have been committed since they were read.
                rows = self._those(connection, [(found[0], found[-1])], set(found)) if found else []
                self._pass_over(self._last, found)
                self._last = found[-1] if found else self._last
                more = len(found) == _AT_ONCE
                yield from rows

    def _query(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        return select(inbound_sms).where(*conditions, *self.wanted).order_by(inbound_sms.c.id)

    def _late(self, connection: Connection) -> Iterator[Row]:
        """Give what has turned up in a hole."""
        now = self.clock()
        old_too = now - self._old_looked_at > OLD_EVERY_SECONDS
        if old_too:
            self._old_looked_at = now
            self._holes = [hole for hole in self._holes if now - hole.since < KEPT_SECONDS][-MOST_HOLES:]
        asked = [hole for hole in self._holes if old_too or now - hole.since < YOUNG_SECONDS]
        for some_holes in in_parts(asked, _RANGES_AT_ONCE):
            ranges = [(hole.first, hole.last) for hole in some_holes]
            ids = inbound_sms.c.id
            some = or_(*(between(ids, first, last) for first, last in ranges))
            found = set(connection.execute(select(ids).where(some)).scalars())
            if found:
                rows = self._those(connection, ranges, found)
                self._fill(found)
                yield from rows

    def _those(self, connection: Connection, ranges: Sequence[tuple[int, int]], ids: set[int]) -> list[Row]:
        some = or_(*(between(inbound_sms.c.id, first, last) for first, last in ranges))
        found = connection.execute(self._query(some)).mappings()
        return [dict(row) for row in found if row["id"] in ids]

    def _pass_over(self, before: int, ids: Any) -> None:
        """Remember what is missing between `before` and the last of `ids`, which ascend."""
        if self.engine.dialect.name == "sqlite":
            return
        now = self.clock()
        for number in ids:
            if number > before + 1:
                self._holes.append(_Hole(before + 1, number - 1, now))
            before = number

    def _fill(self, ids: set[int]) -> None:
        """Take `ids` out of the holes."""
        left: list[_Hole] = []
        for hole in self._holes:
            first = hole.first
            for number in sorted(one for one in ids if hole.first <= one <= hole.last):
                if number > first:
                    left.append(_Hole(first, number - 1, hole.since))
                first = number + 1
            if first <= hole.last:
                left.append(_Hole(first, hole.last, hole.since))
        self._holes = left


def wanted(
    originator: str | None, destination: str | None, since: datetime | None
) -> list[ColumnElement[bool]]:
    """Return the conditions for exactly this sender, this number of ours, and SMS received since (aware)."""
    columns = inbound_sms.c
    conditions: list[ColumnElement[bool]] = []
    if originator is not None:
        conditions.append(columns.originator == originator)
    if destination is not None:
        conditions.append(columns.destination == destination)
    if since is not None:
        conditions.append(and_(columns.received_at >= bindparam(None, since, WholeSecond)))
    return conditions
