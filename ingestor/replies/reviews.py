"""SMS that may be an opt-out, or the undoing of one, until a person has decided; and the figures of a day."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, bindparam, text

from ingestor.archive.columns import Ordered, WholeSecond
from ingestor.archive.engine import reading, writing
from ingestor.replies.opt_outs import EVERY, Event, read_secret, write_events
from ingestor.replies.scanning import pause_scan, scan_state

# Decided is what the same SMS made later; moot is a doubt about somebody who has said it clearly since, or
# whose words were erased.
_OPEN: Final = """
FROM opt_out_events AS v JOIN consents AS c ON c.id = v.id
WHERE v.kind = 'review' AND v.number IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM consents AS d WHERE d.sms_id = v.sms_id AND d.effect <> 'none'
    OR d.sms_id = v.sms_id AND d.kind = 'dismiss')
  AND CASE WHEN EXISTS (SELECT 1 FROM opt_outs AS o WHERE o.number_hmac = v.number_hmac
    AND (o.scope = v.scope OR (o.scope = '*' AND o.reopened NOT LIKE '% ' || v.scope || ' %')))
    THEN 'nearly_start' ELSE 'review' END = c.kind
"""
_LISTED: Final = (
    "SELECT v.sms_id, v.at, v.number, v.scope, v.reason, content.text"
    + _OPEN.replace(
        "WHERE v.kind", "LEFT JOIN sms_content AS content ON content.sms_id = v.sms_id\nWHERE v.kind", 1
    )
    + " ORDER BY v.at DESC, v.sms_id DESC"
)
_STEP: Final = 500
_ONE: Final = """
SELECT sms.received_at, sms.destination, content.originator FROM sms
JOIN sms_content AS content ON content.sms_id = sms.id WHERE sms.id = :sms_id
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of opt-outs for `status`: how many were opted out and in since a moment; what waits for a person."""

    opted_out: int
    opted_in: int
    to_review: int
    scan: str | None
    """How far old SMS have been read, None where all have been."""

    @property
    def fields(self) -> dict[str, object]:
        """What `ingestor status` says of opt-outs, by name."""
        said: dict[str, object] = {"opted out today": f"{self.opted_out:,}, and {self.opted_in:,} in again"}
        if self.to_review:
            said["may be opt-outs"] = f"{self.to_review:,} SMS wait for a person (ingestor optout review)"
        if self.scan:
            said["old SMS"] = f"not all read for opt-outs yet ({self.scan}); who is out cannot be told"
        return said


def open_reviews(connection: Connection, limit: int | None = None) -> list[Mapping[str, Any]]:
    """Return the SMS that wait for a person, the newest first: sms_id, at, number, scope, reason, text."""
    statement = text(_LISTED + (f" LIMIT {limit:d}" if limit else "")).columns(at=Ordered())
    return [dict(row) for row in connection.execute(statement).mappings()]


def decide(
    connection: Connection, sms_id: int, kind: str, reason: str, now: datetime, *, every: bool
) -> bool:
    """Write down what a person says of an SMS: it was an opt-out (`add`), undid one (`remove`) or neither.

    It counts from the SMS's own time. Return whether there is such an SMS; `every`: for all our numbers.
    """
    row = connection.execute(text(_ONE).columns(received_at=Ordered()), {"sms_id": sms_id}).first()
    if row is None:
        return False
    scope = EVERY if every else row.destination
    event = Event(row.originator, scope, kind, row.received_at, sms_id, reason=reason)
    write_events(connection, read_secret(connection), [event], now)
    return True


def dismiss_before(engine: Engine, before: datetime, reason: str, now: datetime) -> int:
    """Write down that none of the SMS sent before `before` that wait for a person was an opt-out, each by an
    event of its own; return how many. In steps, beside a daemon: given again, it goes on where it was killed.
    """
    with reading(engine) as connection:
        old = [row for row in open_reviews(connection) if row["at"] < before]
    for start in range(0, len(old), _STEP):
        events = [
            Event(row["number"], row["scope"], "dismiss", row["at"], row["sms_id"], reason=reason)
            for row in old[start : start + _STEP]
        ]
        with writing(engine) as connection:
            write_events(connection, read_secret(connection), events, now)
        pause_scan()
    return len(old)


def figures(engine: Engine, since: datetime) -> Figures:
    """Return the figures since `since` (aware); events count by when they were written down."""
    counted = text(
        "SELECT (SELECT count(*) FROM opt_out_events WHERE noted_at >= :since"  # noqa: S608 - our own words
        "  AND kind IN ('stop', 'provider', 'import', 'add')),"
        " (SELECT count(*) FROM opt_out_events WHERE noted_at >= :since AND kind IN ('start', 'remove')),"
        f" (SELECT count(*) {_OPEN})"
    ).bindparams(bindparam("since", type_=WholeSecond()))
    with reading(engine) as connection:
        opted_out, opted_in, to_review = connection.execute(counted, {"since": since.astimezone(UTC)}).one()
        scan = scan_state(connection)
    return Figures(opted_out, opted_in, to_review, None if scan.done else str(scan))
