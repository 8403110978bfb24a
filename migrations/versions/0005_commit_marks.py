"""A mark in each run: by it a writer knows what became of a commit that it did not hear of."""

from alembic import op
from sqlalchemy import Column, LargeBinary

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; runs of the past have none."""
    op.add_column("runs", Column("mark", LargeBinary()))
