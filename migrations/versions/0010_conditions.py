"""What is wrong now, since when, and who has been told: so that a restart tells nobody twice."""

from alembic import op
from sqlalchemy import TIMESTAMP, CheckConstraint, Column, Integer, PrimaryKeyConstraint, SmallInteger, Text

revision = "0010"
down_revision = "0008"

Instant = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
Small = SmallInteger().with_variant(Integer(), "sqlite")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "conditions",
        Column("condition", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("host", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("says", Text, nullable=False),
        Column("fix", Text, nullable=False),
        Column("grave", Small, nullable=False),
        Column("began_at", Instant, nullable=False),
        Column("gone_at", Instant),
        Column("owed", Text, nullable=False),
        PrimaryKeyConstraint("condition", "subject", "host", name="pk_conditions"),
        CheckConstraint("state IN ('open', 'told', 'over')", name=op.f("ck_conditions_state")),
        sqlite_strict=True,
    )
