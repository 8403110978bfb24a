"""Count what looks like an SMS and is none: how many a run met, and what they lacked."""

from alembic import op
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    Text,
)

revision = "0004"
down_revision = "0003"

Instant = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
Big = BigInteger().with_variant(Integer(), "sqlite")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "look_alikes",
        Column("run_id", Big, nullable=False),
        Column("source", Text, nullable=False),
        Column("missing", Text, nullable=False),
        Column("number", Big, nullable=False),
        Column("last_at", Instant, nullable=False),
        PrimaryKeyConstraint("run_id", "source", "missing", name="pk_look_alikes"),
        ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_look_alikes_run_id"),
        sqlite_strict=True,
    )
