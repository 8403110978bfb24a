"""The tables by which an SMS is found: both hold what is said elsewhere, and go with it."""

from sqlalchemy import Column, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Text

from ingestor.archive.columns import Big, new_table

sms_numbers = new_table(
    "sms_numbers",
    Column("sms_id", Big, nullable=False, autoincrement=False),
    Column("originator", Big, nullable=False),
    Column("destination", Big, nullable=False),
    PrimaryKeyConstraint("sms_id"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    Index("ix_sms_numbers_originator", "originator"),
    Index("ix_sms_numbers_destination", "destination"),
)
"""Both numbers of an SMS as `rows.number_key` has them: by these one is found, whatever form it came in."""

sms_words = new_table(
    "sms_words",
    Column("sms_id", Big, nullable=False, autoincrement=False),
    Column("words", Text, nullable=False),
    PrimaryKeyConstraint("sms_id"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
)
"""The text of an SMS as `words.folded` has it; `words` brings it up after the SMS was stored."""
