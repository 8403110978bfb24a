"""Indexes for questions: who sent it, to which of our numbers, on which day of the provider's clock."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add them."""
    op.create_index("ix_sms_date_time", "sms", ["date_time"])
    op.create_index("ix_sms_destination", "sms", ["destination", "received_at"])
    op.create_index("ix_sms_content_originator", "sms_content", ["originator"])
