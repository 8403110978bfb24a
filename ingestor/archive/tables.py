"""The archive's tables as the program sees them; views and triggers live in modules of their own.

Three kinds of table: append-only (no row is ever changed or removed, held by triggers), erasable (never
changed; the only places of personal content and raw bytes) and mutable book-keeping. Foreign keys point
from erasable to permanent, so that an erasure leaves the evidence standing.
"""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip

from ingestor.archive.columns import Big, Flag, Instant, Small, WholeSecond, index_of_rows, metadata
from ingestor.archive.columns import new_table as _table
from ingestor.archive.finding_tables import sms_numbers, sms_words
from ingestor.archive.reply_tables import (
    answer_content,
    answer_events,
    answering,
    answers,
    consent_content,
    consent_scans,
    consents,
    delivery_report_content,
    delivery_reports,
)

__all__ = [
    "ANSWERABLE", "ERASABLE", "PERMANENT", "Big", "Flag", "Instant", "Small", "WholeSecond",
    "answer_content", "answer_events", "answering", "answers", "archive_key", "arrival_content", "arrivals",
    "conditions", "consent_content", "consent_scans", "consents", "cursors", "delivery_report_content",
    "delivery_reports", "dictionaries", "erased", "erasures", "hold_content", "holds", "leases",
    "look_alikes", "metadata", "payloads", "pending", "retries", "run_inputs", "runs", "sender_checks", "sms",
    "sms_content", "sms_numbers", "sms_words", "sources",
]  # fmt: skip

ANSWERABLE: Final = "outcome = 'stored' AND (channel = 'mailbox' OR channel = 'webhook')"
"""Of the arrivals those that brought an SMS first, and not from a file."""

SENDER_CHECKED: Final = "sender_check_id IS NOT NULL"

archive_key = _table(
    "archive_key",
    Column("id", Small, nullable=False, autoincrement=False),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one"),
    CheckConstraint("length(secret) = 32", name="secret"),
)

dictionaries = _table(
    "dictionaries",
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
)

runs = _table(
    "runs",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("command", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    *(
        Column(counter, Big, nullable=False, server_default=text("0"))
        for counter in ("read", "stored", "duplicate", "ignored", "quarantined", "failed")
    ),
    Column("mark", LargeBinary),
    PrimaryKeyConstraint("id"),
    CheckConstraint("read = stored + duplicate + ignored + quarantined + failed", name="balance"),
)

run_inputs = _table(
    "run_inputs",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("run_id", Big, nullable=False),
    Column("path", Text, nullable=False),
    Column("member", Text, nullable=False, server_default=text("''")),
    Column("size", Big),
    Column("position", Big, nullable=False, server_default=text("0")),
    Column("sha256", LargeBinary),
    Column("updated_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("run_id", "path", "member"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
)

sms = _table(
    "sms",
    Column("id", Big, nullable=False, autoincrement=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("fingerprint_version", Small, nullable=False),
    Column("provider", Text, nullable=False),
    Column("originator_kind", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("date_time", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("time_quality", Text, nullable=False),
    Column("provider_message_id", Text),
    Column("segments", Integer),
    Column("ingested_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("fingerprint"),
    # OR and not IN: SQLite builds a temporary index for a list of values, for each row anew.
    CheckConstraint("length(fingerprint) = 38", name="fingerprint"),
    CheckConstraint(
        "originator_kind = 'msisdn' OR originator_kind = 'short'"
        " OR originator_kind = 'alpha' OR originator_kind = 'unknown'",
        name="originator_kind",
    ),
    CheckConstraint(
        "time_quality = 'ok' OR time_quality = 'ambiguous' OR time_quality = 'nonexistent'",
        name="time_quality",
    ),
    Index(None, "received_at"),
    Index(None, "date_time"),
    Index("ix_sms_destination", "destination", "received_at"),
)

sms_content = _table(
    "sms_content",
    Column("sms_id", Big, nullable=False, autoincrement=False),
    *(Column(n, Text, nullable=False) for n in ("originator", "originator_raw", "destination_raw", "text")),
    *(Column(name, Text) for name in ("keyword", "clean_text")),
    Column("details", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("sms_id"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    Index(None, "originator"),
)

sender_checks = _table(
    "sender_checks",
    Column("id", Big, nullable=False, autoincrement=False),
    *(Column(name, Text, nullable=False) for name in ("method", "finding")),
    *(Column(name, Text) for name in ("domain", "selector", "public_key")),
    PrimaryKeyConstraint("id"),
)
"""What checks of the sender found, a row a finding: the same of many mails is kept once."""

arrivals = _table(
    "arrivals",
    Column("id", Big, nullable=False, autoincrement=False),
    Column("content_key", LargeBinary, nullable=False),
    Column("channel", Text, nullable=False),
    Column("number", Small, nullable=False),
    Column("place", LargeBinary, nullable=False),
    Column("source", Text, nullable=False),
    Column("folder", Text),
    Column("uidvalidity", Big),
    Column("uid", Big),
    Column("byte_offset", Big),
    Column("byte_length", Big),
    Column("sender_verified", Flag),
    Column("size", Big),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("sms_id", Big),
    Column("parser", Text, nullable=False),
    Column("run_id", Big),
    Column("arrived_at", Instant, nullable=False),
    Column("ingested_at", Instant, nullable=False),
    Column("sender_check_id", Big),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("content_key", "number", "channel", "place"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    ForeignKeyConstraint(["sender_check_id"], ["sender_checks.id"]),
    CheckConstraint("channel = 'mailbox' OR channel = 'webhook' OR channel = 'import'", name="channel"),
    CheckConstraint(
        "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR (outcome = 'quarantined' AND sms_id IS NULL AND reason IS NOT NULL)",
        name="outcome",
    ),
    Index("ix_arrivals_sms_id", "sms_id"),
    index_of_rows("ix_arrivals_quarantined", "id", where="outcome = 'quarantined'"),
    # What may be answered; imports, the bulk of an archive, pay nothing for it.
    index_of_rows("ix_arrivals_answerable", "ingested_at", where=ANSWERABLE),
    # Of those whose sender was checked; all others pay nothing for it.
    index_of_rows(
        "ix_arrivals_sender_checked", "source", "ingested_at", "sender_verified", where=SENDER_CHECKED
    ),
)  # fmt: skip

arrival_content = _table(
    "arrival_content",
    Column("arrival_id", Big, nullable=False, autoincrement=False),
    *(Column(name, Text) for name in ("subject", "message_id", "input", "member", "peer")),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("arrival_id"),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
)
"""What may name a person in an arrival, apart from it, so that it can go and the arrival stands."""

retries = _table(
    "retries",
    Column("id", Big, nullable=False, autoincrement=False),
    Column("arrival_id", Big, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("sms_id", Big),
    Column("parser", Text),
    Column("run_id", Big),
    Column("retried_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    CheckConstraint(
        "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR ((outcome = 'quarantined' OR outcome = 'discarded') AND sms_id IS NULL AND reason IS NOT NULL)",
        name="outcome",
    ),
    Index("ix_retries_arrival_id", "arrival_id"),
    Index("ix_retries_sms_id", "sms_id"),
    # However many processes read the same quarantined arrival again, it becomes an SMS once.
    index_of_rows("uq_retries_read_once", "arrival_id", unique=True, where="sms_id IS NOT NULL"),
)  # fmt: skip

payloads = _table(
    "payloads",
    Column("arrival_id", Big, nullable=False, autoincrement=False),
    Column("content_type", Text),
    Column("size", Big, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("dictionary_id", Integer),
    Column("compressed", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("arrival_id"),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
    ForeignKeyConstraint(["dictionary_id"], ["dictionaries.id"]),
)

cursors = _table(
    "cursors",
    *(Column(name, Text, nullable=False) for name in ("mailbox", "folder")),
    *(Column(name, Big, nullable=False) for name in ("uidvalidity", "last_uid")),
    Column("updated_at", Instant, nullable=False),
    Column("accounts", Text),
    Column("uids", Text),
    Column("marks", LargeBinary),
    PrimaryKeyConstraint("mailbox", "folder"),
)

pending = _table(
    "pending",
    *(Column(name, Text, nullable=False) for name in ("mailbox", "folder")),
    *(Column(name, Big, nullable=False) for name in ("uidvalidity", "uid")),
    Column("action", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("reason", Text),
    Column("noted_at", Instant, nullable=False),
    Column("tried_at", Instant),
    Column("content_key", LargeBinary),
    PrimaryKeyConstraint("mailbox", "folder", "uidvalidity", "uid", "action"),
)

leases = _table(
    "leases",
    Column("name", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
    PrimaryKeyConstraint("name"),
)

sources = _table(
    "sources",
    *(Column(name, Text, nullable=False) for name in ("name", "kind", "state")),
    Column("detail", Text),
    Column("poll_seconds", Integer),
    Column("last_success", Instant),
    Column("updated_at", Instant, nullable=False),
    PrimaryKeyConstraint("name"),
)

conditions = _table(
    "conditions",
    *(
        Column(name, Text, nullable=False)
        for name in ("condition", "subject", "host", "state", "says", "fix")
    ),
    Column("grave", Small, nullable=False),
    Column("began_at", Instant, nullable=False),
    Column("gone_at", Instant),
    Column("owed", Text, nullable=False),
    PrimaryKeyConstraint("condition", "subject", "host"),
    CheckConstraint("state IN ('open', 'told', 'over')", name="state"),
)

look_alikes = _table(
    "look_alikes",
    Column("run_id", Big, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("source", "missing")),
    Column("number", Big, nullable=False),
    Column("last_at", Instant, nullable=False),
    PrimaryKeyConstraint("run_id", "source", "missing"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
)
"""Ignored mails that have something of ours: `missing` says what they lack beside the sender."""

erasures = _table(
    "erasures",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("plan_id", Text, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("basis", Text, nullable=False),
    *(Column(counter, Integer, nullable=False) for counter in ("sms", "arrivals", "payloads", "others")),
    Column("erased_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("plan_id", "batch"),
)
"""One row a batch of an erasure: codes and counts, no word and no number of anybody."""

erased = _table(
    "erased",
    Column("kind", Text, nullable=False),
    Column("row_id", Big, nullable=False),
    Column("erasure_id", Big, nullable=False),
    PrimaryKeyConstraint("kind", "row_id"),
    ForeignKeyConstraint(["erasure_id"], ["erasures.id"]),
    sqlite_with_rowid=False,
)
"""What an erasure took: a trigger removes the content of each row that is named here, and of no other."""

holds = _table(
    "holds",
    Column("id", Big, nullable=False, autoincrement=True),
    *(Column(name, Big) for name in ("number_key", "sms_id", "arrival_id", "ends")),
    Column("noted_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("ends"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
    ForeignKeyConstraint(["ends"], ["holds.id"]),
)
"""What may not be erased: a row opens a hold, or `ends` one."""

hold_content = _table(
    "hold_content",
    Column("hold_id", Big, nullable=False, autoincrement=False),
    Column("number", Text),
    Column("reason", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("hold_id"),
    ForeignKeyConstraint(["hold_id"], ["holds.id"]),
)

PERMANENT: Final = (
    "archive_key", "dictionaries", "sms", "sender_checks", "arrivals", "retries", "consents", "answers",
    "answer_events", "delivery_reports", "erasures", "erased", "holds",
)  # fmt: skip
"""Append-only for ever."""

CONTENT_OF: Final[dict[str, dict[str, str]]] = {
    "sms": {"sms_content": "sms_id", "sms_numbers": "sms_id", "sms_words": "sms_id"},
    "arrival": {"arrival_content": "arrival_id", "payloads": "arrival_id"},
    "consent": {"consent_content": "consent_id"},
    "answer": {"answer_content": "answer_id"},
    "report": {"delivery_report_content": "report_id"},
    "hold": {"hold_content": "hold_id"},
}
"""By the kind of row that `erased` names: the tables that hold its content, and their column with its id."""

ERASABLE: Final = tuple(name for tables in CONTENT_OF.values() for name in tables)
"""Never changed, and removed only together with a row in `erased`."""
