"""The texts of SMS without case and accents: words are found in them, by an index of trigrams.

The texts that lie here are not taken in by the upgrade, but afterwards in steps, by the daemon or `db index`.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Integer, PrimaryKeyConstraint, Text

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "sms_words",
        Column("sms_id", BigInteger().with_variant(Integer(), "sqlite"), nullable=False, autoincrement=False),
        Column("words", Text, nullable=False),
        PrimaryKeyConstraint("sms_id", name="pk_sms_words"),
        ForeignKeyConstraint(["sms_id"], ["sms.id"], name="fk_sms_words_sms_id"),
        sqlite_strict=True,
    )
