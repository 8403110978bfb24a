"""A provider's clock that is off by whole hours: its time zone is documented nowhere, so it may be set wrong.

Then every answer would be held back as too old, or as from the future, with nobody knowing why.
"""

from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, select, text

from ingestor.archive.tables import ANSWERABLE, arrivals, sms

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
