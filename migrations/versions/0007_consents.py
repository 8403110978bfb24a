"""Opt-outs: dated events, and how far the SMS that lie here already have been read for them."""

from typing import Any

from alembic import op
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
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

revision = "0007"
down_revision = "0006"

Instant = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
Big = BigInteger().with_variant(Integer(), "sqlite")
Small = SmallInteger().with_variant(Integer(), "sqlite")

KINDS = {
    "stop": "out", "provider": "out", "import": "out", "add": "out", "start": "in", "remove": "in",
    "review": "none", "nearly_start": "none", "dismiss": "none",
}  # fmt: skip

BY_HAND = text("sms_id IS NULL")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
Table("sms", metadata, Column("id", Big, primary_key=True))


def _table(name: str, *parts: Any) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


consents = _table(
    "consents",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("number_hmac", LargeBinary, nullable=False),
    Column("scope", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("sms_id", Big),
    Column("rule", Text),
    Column("noted_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("sms_id", "kind", "scope"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    CheckConstraint("length(number_hmac) = 32", name="number_hmac"),
    CheckConstraint(
        " OR ".join(f"(kind = '{kind}' AND effect = '{effect}')" for kind, effect in KINDS.items()),
        name="kind",
    ),
    Index("ix_consents_number_hmac", "number_hmac", "effect", "at"),
    Index(
        "uq_consents_by_hand", "number_hmac", "kind", "scope", "at", unique=True,
        sqlite_where=BY_HAND, postgresql_where=BY_HAND,
    ),
)  # fmt: skip
consent_content = _table(
    "consent_content",
    Column("consent_id", Big, nullable=False, autoincrement=False),
    Column("number", Text, nullable=False),
    Column("reason", Text),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("consent_id"),
    ForeignKeyConstraint(["consent_id"], ["consents.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
    Index("ix_consent_content_number", "number"),
)
consent_scans = _table(
    "consent_scans",
    Column("id", Small, nullable=False, autoincrement=False),
    Column("words", LargeBinary, nullable=False),
    Column("after_id", Big, nullable=False),
    Column("until_id", Big),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one"),
)


def upgrade() -> None:
    """Add the tables; where SMS lie here already, the reading of them is still to be done."""
    connection = op.get_bind()
    for table in (consents, consent_content, consent_scans):
        table.create(connection)
    # Without an SMS there is nothing to read: that is done as soon as it is written down.
    sqlite = connection.dialect.name == "sqlite"
    nothing = "x''" if sqlite else "''::bytea"
    now = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')" if sqlite else "now()"
    finished = f"CASE WHEN EXISTS (SELECT 1 FROM sms) THEN NULL ELSE {now} END"  # noqa: S608 - our own words
    op.execute(
        f"INSERT INTO consent_scans (id, words, after_id, finished_at) SELECT 1, {nothing}, 0, {finished}"
    )
