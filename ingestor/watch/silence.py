"""What nothing says by itself: a source from which SMS should have come, and a clock that is hours off."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from sqlalchemy import Engine, bindparam, func, select

from ingestor.archive import tables
from ingestor.archive.engine import reading
from ingestor.archive.tables import WholeSecond
from ingestor.numbers import last_four
from ingestor.record import Channel
from ingestor.settings.watch import Expect
from ingestor.watch.troubles import Trouble

_STEP: Final = timedelta(minutes=15)
_FARTHEST: Final = timedelta(days=62)
_LATELY: Final = 20_000
"""How many of the newest arrivals are looked through: an import of millions may be the newest."""
_JUDGED: Final = 5
_NEAR: Final = 300.0
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def quiet(expect: Expect, moment: datetime) -> bool:
    """Say whether nothing is expected at `moment` (local): a quiet day, or between the quiet hours."""
    if _DAYS[moment.weekday()] in expect.quiet_days:
        return True
    if expect.quiet_hours is None:
        return False
    begin, end = expect.quiet_span
    now = moment.strftime("%H:%M")
    return begin <= now < end if begin <= end else now >= begin or now < end


def expected_since(expect: Expect, now: datetime, zone: tzinfo | None) -> datetime:
    """Return since when (aware UTC) an SMS should have come: so many hours ago that were not quiet."""
    left, moment = timedelta(hours=expect.hours), now
    while left > timedelta(0) and now - moment < _FARTHEST:
        moment -= _STEP
        if not quiet(expect, moment.astimezone(zone)):
            left -= _STEP
    return moment.astimezone(UTC)


def silent(engine: Engine, expected: Sequence[Expect], now: datetime, zone: tzinfo | None) -> list[Trouble]:
    """Return a trouble for each of `expected` from which nothing came in its time. Raises IngestorError."""
    found = []
    for expect in expected:
        since = expected_since(expect, now, zone)
        if quiet(expect, now.astimezone(zone)) or _came(engine, expect, since):
            continue
        # Only its last four digits are named: the line goes into mails and logs.
        who = f"mailbox {expect.mailbox}" if expect.mailbox else f"number {last_four(expect.number or '')}"
        found.append(
            Trouble(
                "source silent", who, f"no SMS in {expect.hours} hours in which some are expected",
                "send one to the number, and look whether the provider has sent it", since=since,
            )
        )  # fmt: skip
    return found


def _came(engine: Engine, expect: Expect, since: datetime) -> bool:
    sms, arrivals = tables.sms, tables.arrivals
    query = select(sms.c.id).where(sms.c.received_at >= bindparam(None, since, WholeSecond)).limit(1)
    if expect.number is not None:
        query = query.where(sms.c.destination == expect.number)
    else:
        query = query.join(arrivals, arrivals.c.sms_id == sms.c.id).where(
            arrivals.c.source == expect.mailbox, arrivals.c.channel == Channel.MAILBOX.value
        )
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def clock_off(engine: Engine, now: datetime) -> list[Trouble]:
    """Return that the newest SMS of the last day all seem to have come whole hours late, or before they were
    sent: then `[agile] timezone` or this machine's clock is wrong. Raises IngestorError.
    """
    sms, arrivals = tables.sms.c, tables.arrivals.c
    newest = select(func.max(arrivals.id)).scalar_subquery()
    query = (
        select(sms.received_at, arrivals.arrived_at)
        .join_from(tables.arrivals, tables.sms, arrivals.sms_id == sms.id)
        .where(
            arrivals.id > newest - _LATELY, arrivals.outcome == "stored",
            arrivals.channel.in_((Channel.MAILBOX.value, Channel.WEBHOOK.value)),
            arrivals.arrived_at >= bindparam(None, now - timedelta(days=1), WholeSecond),
        )
        .order_by(arrivals.id.desc())
        .limit(2 * _JUDGED)
    )  # fmt: skip
    with reading(engine) as connection:
        late = [(arrived - received).total_seconds() for received, arrived in connection.execute(query)]
    hours = {round(seconds / 3600) for seconds in late}
    if len(late) < _JUDGED or len(hours) > 1 or not (off := hours.pop()):
        return []
    if any(abs(seconds - off * 3600) > _NEAR for seconds in late):
        return []
    count = f"{abs(off)} hour{'s' if abs(off) != 1 else ''}"
    says = f"the newest {len(late)} SMS came {count} {'after' if off > 0 else 'before'} they were sent"
    return [Trouble("clock", "clock or zone", says, "look at [agile] timezone, and at the machine's clock")]
