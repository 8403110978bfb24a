"""How opt-outs stand, in numbers: how far old SMS have been read for them, and what waits for a person.

It knows no words and writes nothing, so that `status` starts with little.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, bindparam, select, text

from ingestor.archive.columns import WholeSecond
from ingestor.archive.engine import reading
from ingestor.archive.tables import consent_scans


class Scan(NamedTuple):
    """How far the SMS have been read, by the words of which mark; `until` None: it has not begun."""

    words: bytes
    after: int
    until: int | None
    finished_at: datetime | None

    @property
    def done(self) -> bool:
        """Whether who is out can be told."""
        return self.finished_at is not None

    def __str__(self) -> str:
        far = "not begun" if self.until is None else f"at SMS {self.after:,} of {self.until:,}"
        return "finished" if self.done else far


def scan_state(connection: Connection) -> Scan:
    """Return how far the SMS have been read for opt-outs."""
    c = consent_scans.c
    row = connection.execute(select(c.words, c.after_id, c.until_id, c.finished_at)).one()
    return Scan(bytes(row.words), row.after_id, row.until_id, row.finished_at)


# Decided is what the same SMS made later; moot is a doubt about somebody who has said it clearly since, or
# whose words were erased.
OPEN: Final = """
FROM opt_out_events AS v JOIN consents AS c ON c.id = v.id
WHERE v.kind = 'review' AND v.number IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM consents AS d WHERE d.sms_id = v.sms_id AND d.effect <> 'none'
    OR d.sms_id = v.sms_id AND d.kind = 'dismiss')
  AND CASE WHEN EXISTS (SELECT 1 FROM opt_outs AS o WHERE o.number_hmac = v.number_hmac
    AND (o.scope = v.scope OR (o.scope = '*' AND o.reopened NOT LIKE '% ' || v.scope || ' %')))
    THEN 'nearly_start' ELSE 'review' END = c.kind
"""


class Figures(NamedTuple):
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


def figures(engine: Engine, since: datetime) -> Figures:
    """Return the figures since `since` (aware); events count by when they were written down."""
    counted = text(
        "SELECT (SELECT count(*) FROM opt_out_events WHERE noted_at >= :since"  # noqa: S608 - our own words
        "  AND kind IN ('stop', 'provider', 'import', 'add')),"
        " (SELECT count(*) FROM opt_out_events WHERE noted_at >= :since AND kind IN ('start', 'remove')),"
        f" (SELECT count(*) {OPEN})"
    ).bindparams(bindparam("since", type_=WholeSecond()))
    with reading(engine) as connection:
        opted_out, opted_in, to_review = connection.execute(counted, {"since": since.astimezone(UTC)}).one()
        scan = scan_state(connection)
    return Figures(opted_out, opted_in, to_review, None if scan.done else str(scan))
