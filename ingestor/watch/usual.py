"""How many SMS came today, against how many usually come."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, bindparam, func, select

from ingestor.archive import tables
from ingestor.archive.engine import reading
from ingestor.archive.tables import WholeSecond


@dataclass(frozen=True, slots=True)
class Today:
    """How many SMS were received today, and by this hour on a usual day; None where the archive is young."""

    sms: int
    usual: int | None


def today(engine: Engine, midnight: datetime, now: datetime) -> Today:
    """Return how many SMS were received from `midnight` to `now` (aware), and how many usually are.

    Usual is the median over the same hours of the fourteen days before; an archive whose first SMS is of the
    last seven days has no usual yet. Each stretch is counted over the index of `received_at`.
    """
    received = tables.sms.c.received_at

    def between(days: int) -> Any:
        begin, end = midnight - timedelta(days), now - timedelta(days)
        return (
            select(func.count())
            .where(
                received >= bindparam(None, begin, WholeSecond), received < bindparam(None, end, WholeSecond)
            )
            .scalar_subquery()
        )

    first = select(func.min(received, type_=received.type)).scalar_subquery()
    with reading(engine) as connection:
        begun, came, *before = connection.execute(select(first, *map(between, range(15)))).one()
    young = begun is None or begun > midnight - timedelta(days=7)
    return Today(came, None if young else sorted(before)[len(before) // 2])
