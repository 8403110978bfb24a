"""Whose mailbox a cursor follows, which mails stood in it, what pending work was noted for, and leases."""

from alembic import op
from sqlalchemy import (
    TIMESTAMP,
    Column,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

revision = "0003"
down_revision = "0002"

Instant = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")

leases = Table(
    "leases",
    MetaData(naming_convention={"pk": "pk_%(table_name)s"}),
    Column("name", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
    PrimaryKeyConstraint("name"),
    sqlite_strict=True,
)


def upgrade() -> None:
    """Add them; of the folders read so far nothing is known, and the next pass takes what it finds."""
    op.add_column("cursors", Column("accounts", Text))
    op.add_column("cursors", Column("uids", Text))
    op.add_column("cursors", Column("marks", LargeBinary))
    op.add_column("pending", Column("content_key", LargeBinary))
    leases.create(op.get_bind())
