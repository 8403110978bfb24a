"""The views that auditors and scripts depend on: they may gain columns, never lose or change one.

They stay out of the metadata that Alembic compares, and are dropped before a migration and made again
after it; on PostgreSQL the rights somebody granted on them are kept.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Boolean, Connection, LargeBinary, TableClause, Text, column, table

from ingestor.archive import reply_tables
from ingestor.archive.columns import Big, Instant
from ingestor.timestamps import iso_utc

_ERASED = """
  (SELECT done.erased_at FROM erased AS gone JOIN erasures AS done ON done.id = gone.erasure_id
    WHERE gone.kind = '{kind}' AND gone.row_id = {id}) AS erased_at,
  (SELECT done.basis FROM erased AS gone JOIN erasures AS done ON done.id = gone.erasure_id
    WHERE gone.kind = '{kind}' AND gone.row_id = {id}) AS erasure_basis"""

# Scalar subqueries and not joins: both databases leave out what a query does not ask for, so that a
# count or a page over a million rows touches only what it shows.
INBOUND_SMS = """
SELECT
  sms.id,
  sms.provider,
  (SELECT first.channel FROM arrivals AS first WHERE first.id = (
    SELECT min(every.id) FROM (
      SELECT min(a.id) AS id FROM arrivals AS a WHERE a.sms_id = sms.id
      UNION ALL SELECT min(r.arrival_id) FROM retries AS r WHERE r.sms_id = sms.id
    ) AS every
  )) AS channel,
  content.originator,
  sms.originator_kind,
  sms.destination,
  sms.date_time,
  sms.received_at,
  sms.time_quality,
  content.text,
  content.keyword,
  content.clean_text,
  sms.provider_message_id,
  sms.segments,
  (SELECT count(*) FROM arrivals AS a WHERE a.sms_id = sms.id)
    + (SELECT count(*) FROM retries AS r WHERE r.sms_id = sms.id) AS arrivals,
  (SELECT {verified} FROM (
      SELECT a.sender_verified FROM arrivals AS a WHERE a.sms_id = sms.id
      UNION ALL SELECT a.sender_verified FROM retries AS r JOIN arrivals AS a ON a.id = r.arrival_id
        WHERE r.sms_id = sms.id
    ) AS every
  ) AS sender_verified,
  sms.ingested_at,{erased}
FROM sms LEFT JOIN sms_content AS content ON content.sms_id = sms.id
"""

QUARANTINE = """
SELECT
  a.id,
  a.arrived_at,
  a.channel,
  a.source,
  coalesce((SELECT r.reason FROM retries AS r WHERE r.arrival_id = a.id ORDER BY r.id DESC LIMIT 1), a.reason)
    AS reason,
  (SELECT content.subject FROM arrival_content AS content WHERE content.arrival_id = a.id) AS subject,
  coalesce(a.size, (SELECT min(whole.size) FROM arrivals AS whole
    WHERE whole.content_key = a.content_key AND whole.number = 0 AND whole.channel = a.channel)) AS size,
  (SELECT count(*) FROM retries AS r WHERE r.arrival_id = a.id) AS retries
FROM arrivals AS a
WHERE a.outcome = 'quarantined'
  AND coalesce((SELECT r.outcome FROM retries AS r WHERE r.arrival_id = a.id ORDER BY r.id DESC LIMIT 1),
    'quarantined') = 'quarantined'
  -- Of two verdicts at once either may have the higher number; one that read it is the last.
  AND NOT EXISTS (SELECT 1 FROM retries AS r WHERE r.arrival_id = a.id AND r.sms_id IS NOT NULL)
"""

# An arrival that was read later belongs to the SMS it became then. Two halves and not one join: where
# somebody asks for one SMS, both databases look each half up in its index.
_DETAIL = """
SELECT
  a.id,
  {sms_id} AS sms_id,
  a.channel,
  a.source,
  a.outcome,
  a.reason,
  a.arrived_at,
  a.ingested_at,
  a.folder,
  a.uidvalidity,
  a.uid,
  content.input,
  content.member,
  a.byte_offset,
  a.byte_length,
  a.number,
  content.subject,
  content.message_id,
  content.peer,
  a.sender_verified,
  a.size,
  (SELECT min(p.arrival_id) FROM arrivals AS whole JOIN payloads AS p ON p.arrival_id = whole.id
    WHERE whole.content_key = a.content_key AND whole.number = 0 AND whole.channel = a.channel) AS payload_id,
  a.parser,
  a.run_id,{erased},
  checked.method AS sender_method,
  checked.finding AS sender_finding,
  checked.domain AS sender_domain,
  checked.selector AS sender_selector,
  checked.public_key AS sender_public_key
FROM {arrivals} LEFT JOIN arrival_content AS content ON content.arrival_id = a.id
  LEFT JOIN sender_checks AS checked ON checked.id = a.sender_check_id
WHERE {condition}
"""
_READ_AT_ONCE = {
    "sms_id": "a.sms_id",
    "arrivals": "arrivals AS a",
    "condition": "NOT EXISTS (SELECT 1 FROM retries AS r WHERE r.arrival_id = a.id AND r.sms_id IS NOT NULL)",
}
_READ_LATER = {
    "sms_id": "r.sms_id",
    "arrivals": "retries AS r JOIN arrivals AS a ON a.id = r.arrival_id",
    "condition": "r.sms_id IS NOT NULL",
}
ARRIVALS_DETAIL = "UNION ALL".join(
    _DETAIL.format(**half, erased=_ERASED.format(kind="arrival", id="a.id"))
    for half in (_READ_AT_ONCE, _READ_LATER)
)

ERASURES_DONE = """
SELECT
  plan_id,
  min(basis) AS basis,
  count(*) AS batches,
  sum(sms) AS sms,
  sum(arrivals) AS arrivals,
  sum(payloads) AS payloads,
  sum(others) AS others,
  min(erased_at) AS began_at,
  max(erased_at) AS ended_at
FROM erasures GROUP BY plan_id
"""

_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(
        ("received_at", "ingested_at", "erased_at", "arrived_at", "began_at", "ended_at", "since", "at",
         "noted_at", "decided_at", "state_at", "done_at"),
        Instant,
    ),
    **dict.fromkeys(
        ("id", "sms_id", "event_id", "resend_of", "answer_id", "segments", "arrivals", "size", "retries",
         "batches", "sms", "payloads", "others", "parts", "part", "code", "attempts", "times"),
        Big,
    ),
    **dict.fromkeys(("sender_verified", "delivered_late"), Boolean),
    "number_hmac": LargeBinary,
}  # fmt: skip
"""Of the columns of views that are no text."""


def _view(name: str, columns: str) -> TableClause[Any]:
    return table(name, *(column(one, _TYPES.get(one, Text)) for one in columns.split()))


inbound_sms: Final = _view(
    "inbound_sms",
    "id provider channel originator originator_kind destination date_time received_at time_quality text"
    " keyword clean_text provider_message_id segments arrivals sender_verified ingested_at erased_at"
    " erasure_basis",
)
quarantine: Final = _view("quarantine", "id arrived_at channel source reason subject size retries")
erasures_done: Final = _view(
    "erasures_done", "plan_id basis batches sms arrivals payloads others began_at ended_at"
)
opt_outs: Final = _view("opt_outs", "number scope since kind sms_id reason reopened event_id number_hmac")
opt_out_events: Final = _view("opt_out_events", "id at kind number scope sms_id reason noted_at number_hmac")
answers_sent: Final = _view(
    "answers_sent",
    "id kind sms_id rule resend_of message_id number our_number sender text encoding parts options decided_at"
    " state delivery delivered_late suppressed reason state_at code detail attempts done_at operator",
)
delivery_reports_received: Final = _view(
    "delivery_reports_received",
    "id message_id answer_id destination status status_raw shape part parts operator price done_at"
    " arrived_at source times",
)
conversations: Final = _view("conversations", "number our_number at direction text state sms_id answer_id")


def definitions(dialect: str) -> dict[str, str]:
    """Return the SELECT of each view, as `dialect` writes it."""
    verified = "bool_or(every.sender_verified)" if dialect == "postgresql" else "max(every.sender_verified)"
    return {
        "inbound_sms": INBOUND_SMS.format(verified=verified, erased=_ERASED.format(kind="sms", id="sms.id")),
        "quarantine": QUARANTINE,
        "arrivals_detail": ARRIVALS_DETAIL,
        **reply_tables.definitions(dialect),
        "erasures_done": ERASURES_DONE,
    }


NAMES: Final = tuple(reversed(definitions("sqlite")))
"""In the order in which they can be dropped: a view may read others that were made before it."""


def create(connection: Connection, rights: list[tuple[str, str, str]] | None = None) -> None:
    """Make all views, and give back the `rights` that `drop` returned."""
    from ingestor.archive.comments import statements  # for those alone who make an archive

    for name, select in definitions(connection.dialect.name).items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {select}")
        for comment in statements("VIEW", name) if connection.dialect.name == "postgresql" else ():
            connection.exec_driver_sql(comment)
    for view, grantee, privilege in rights or ():
        connection.exec_driver_sql(f"GRANT {privilege} ON {view} TO {grantee}")


def drop(connection: Connection) -> list[tuple[str, str, str]]:
    """Drop the views that exist; return (view, quoted grantee, privilege) of all rights granted on them."""
    rights: list[tuple[str, str, str]] = []
    if connection.dialect.name == "postgresql":
        found = connection.exec_driver_sql(
            "SELECT c.relname, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,"
            " a.privilege_type FROM pg_class c, aclexplode(c.relacl) a"
            " WHERE c.relkind = 'v' AND pg_table_is_visible(c.oid) AND a.grantee <> c.relowner"
            " AND c.relname = ANY(%s)",
            (list(NAMES),),
        )
        rights = [(view, grantee, privilege) for view, grantee, privilege in found]
    for name in NAMES:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
    return rights


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: times as ISO 8601 text in UTC with Z, bytes as hexadecimal."""
    if isinstance(value, datetime):
        return iso_utc(value)
    if isinstance(value, bytes):
        return value.hex()
    return value


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole row as JSON can hold it."""
    return {name: plain(value) for name, value in row.items()}
