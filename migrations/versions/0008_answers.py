"""What leaves: decisions, what became of each, delivery reports, and what all daemons must agree on."""

from typing import Any

from alembic import op
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip

revision = "0008"
down_revision = "0007"

Instant = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
Big = BigInteger().with_variant(Integer(), "sqlite")
Small = SmallInteger().with_variant(Integer(), "sqlite")
Flag = Boolean(create_constraint=False).with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)
for earlier in ("sms", "runs"):
    Table(earlier, metadata, Column("id", Big, primary_key=True))


def _table(name: str, *parts: Any) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


answers = _table(
    "answers",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("sms_id", Big),
    Column("rule", Text),
    Column("resend_of", Big),
    Column("message_id", Text, nullable=False),
    Column("number_hmac", LargeBinary, nullable=False),
    Column("our_number", Text),
    Column("sender", Text, nullable=False),
    Column("text_hmac", LargeBinary, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("parts", Small, nullable=False),
    Column("options", Text, nullable=False),
    Column("expects_report", Flag, nullable=False),
    Column("suppressed", Text),
    Column("reason", Text),
    Column("decided_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("sms_id", "rule"),
    UniqueConstraint("message_id"),
    UniqueConstraint("resend_of"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["resend_of"], ["answers.id"]),
    CheckConstraint("length(number_hmac) = 32", name="number_hmac"),
    CheckConstraint("length(text_hmac) = 32", name="text_hmac"),
    CheckConstraint(
        "(kind = 'answer' AND sms_id IS NOT NULL AND rule IS NOT NULL AND resend_of IS NULL)"
        " OR ((kind = 'command' OR kind = 'simulation')"
        " AND sms_id IS NULL AND rule IS NULL AND resend_of IS NULL)"
        " OR (kind = 'resend' AND rule IS NULL AND resend_of IS NOT NULL)",
        name="kind",
    ),
    Index("ix_answers_decided_at", "decided_at"),
    Index("ix_answers_number_hmac", "number_hmac", "decided_at"),
)

answer_content = _table(
    "answer_content",
    Column("answer_id", Big, nullable=False, autoincrement=False),
    Column("number", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("answer_id"),
    ForeignKeyConstraint(["answer_id"], ["answers.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
)

answer_events = _table(
    "answer_events",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("answer_id", Big, nullable=False),
    Column("attempt", Small, nullable=False),
    Column("event", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("code", Small),
    Column("detail", Text),
    Column("again_at", Instant),
    Column("credit", Text),
    PrimaryKeyConstraint("id"),
    # A claim is an insert: of all who try to send an answer one wins.
    UniqueConstraint("answer_id", "attempt", "event"),
    ForeignKeyConstraint(["answer_id"], ["answers.id"]),
    CheckConstraint(
        "event = 'sending' OR event = 'sent' OR event = 'later' OR event = 'refused' OR event = 'not_sent'"
        " OR event = 'unknown' OR event = 'suppressed'",
        name="event",
    ),
)

delivery_reports = _table(
    "delivery_reports",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("post", LargeBinary, nullable=False),
    Column("number", Small, nullable=False),
    Column("report_hmac", LargeBinary, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_raw", Text, nullable=False),
    Column("part", Small, nullable=False),
    Column("parts", Small, nullable=False),
    Column("operator", Text),
    Column("price", Text),
    Column("done_at", Instant),
    Column("source", Text, nullable=False),
    Column("run_id", Big),
    Column("arrived_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("post", "number"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    CheckConstraint("length(report_hmac) = 32", name="report_hmac"),
    Index("ix_delivery_reports_message_id", "message_id"),
)

delivery_report_content = _table(
    "delivery_report_content",
    Column("report_id", Big, nullable=False, autoincrement=False),
    Column("destination", Text),
    Column("content_type", Text),
    Column("payload", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("report_id"),
    ForeignKeyConstraint(["report_id"], ["delivery_reports.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
)

answering = _table(
    "answering",
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("at", Instant, nullable=False),
    PrimaryKeyConstraint("name"),
)

_ANSWERABLE = "outcome = 'stored' AND (channel = 'mailbox' OR channel = 'webhook')"


def upgrade() -> None:
    """Make the tables, and the index that finds what may be answered."""
    made = [answers, answer_content, answer_events, delivery_reports, delivery_report_content, answering]
    metadata.create_all(op.get_bind(), tables=made)
    op.create_index(
        "ix_arrivals_answerable", "arrivals", ["ingested_at"],
        sqlite_where=text(_ANSWERABLE), postgresql_where=text(_ANSWERABLE),
    )  # fmt: skip
