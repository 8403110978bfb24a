"""What is older than it may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Engine, and_, bindparam, not_, or_, select, true

from ingestor.archive import holds, tables
from ingestor.archive.engine import reading
from ingestor.archive.tables import WholeSecond


@dataclass(frozen=True, slots=True)
class Keep:
    """SMS received before `before` (aware) are due: those of a `destination` or `provider`, None is any."""

    before: datetime
    destination: str | None = None
    provider: str | None = None

    @property
    def fits(self) -> ColumnElement[bool]:
        """Whether it is for an SMS at all."""
        sms = tables.sms.c
        return and_(
            true() if self.destination is None else sms.destination == self.destination,
            true() if self.provider is None else sms.provider == self.provider,
        )


def due(
    engine: Engine, keeps: Sequence[Keep], quarantined_before: datetime | None, most: int
) -> tuple[list[int], list[int]]:
    """Return the ids of SMS and of arrivals in the quarantine that are due, oldest ids first, `most` of each.

    Of `keeps` the first that fits an SMS counts. What is under a hold is left out.
    """
    sms, a, e = tables.sms.c, tables.arrivals.c, tables.erased.alias("gone").c
    is_old = [
        and_(keep.fits, sms.received_at < bindparam(None, keep.before, WholeSecond),
             *(not_(earlier.fits) for earlier in keeps[:at]))
        for at, keep in enumerate(keeps)
    ]  # fmt: skip
    erased = select(e.row_id).where(e.kind == "sms", e.row_id == sms.id).exists()
    old = select(sms.id).where(~erased, or_(*is_old)).order_by(sms.id).limit(most)
    gone = select(e.row_id).where(e.kind == "arrival", e.row_id == a.id).exists()
    r = tables.retries.c
    read = select(r.id).where(r.arrival_id == a.id, r.sms_id.is_not(None)).exists()
    stale = select(a.id).where(
        a.outcome == "quarantined", ~gone, ~read,
        a.arrived_at < bindparam(None, quarantined_before, WholeSecond),
    ).order_by(a.id).limit(most)  # fmt: skip
    with reading(engine) as connection:
        standing = holds.standing(connection)
        found = list(connection.execute(old).scalars()) if keeps else []
        held = standing.among(connection, found)
        waiting = list(connection.execute(stale).scalars()) if quarantined_before is not None else []
    return [one for one in found if one not in held], sorted(set(waiting) - standing.arrivals)
