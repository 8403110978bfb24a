"""An index for delivery reports: whom they are about."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add it."""
    op.create_index("ix_delivery_report_content_destination", "delivery_report_content", ["destination"])
