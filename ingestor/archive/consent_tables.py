"""The tables of opt-outs: dated events, and how far the SMS of an earlier program have been read for them.

A number stands on the permanent side only as an HMAC under the archive's key, so that an erased person stays
out; as text it stands on the erasable side, with 32 random bytes of salt.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip

from ingestor.archive.columns import Big, Instant, Ordered, Small, new_table

KINDS = {
    "stop": "out", "provider": "out", "import": "out", "add": "out", "start": "in", "remove": "in",
    "review": "none", "nearly_start": "none", "dismiss": "none",
}  # fmt: skip
"""What an event can be, and whether it opts out or in again."""

_BY_HAND = text("sms_id IS NULL")

consents = new_table(
    "consents",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("number_hmac", LargeBinary, nullable=False),
    Column("scope", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("at", Ordered, nullable=False),
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
        sqlite_where=_BY_HAND, postgresql_where=_BY_HAND,
    ),
)  # fmt: skip
"""One row an event. `scope` is a number of ours or *; `at` is the SMS's own time, or that of the decision.

`sms_id` is the proof, `rule` what the program says of it. stop, provider, import and add close; start and
remove open; review and nearly_start wait for a person, who may dismiss them.
"""

consent_content = new_table(
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
"""`reason` is a person's."""

consent_scans = new_table(
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
"""How far the SMS that lay here before have been read for opt-outs, and by which words. Mutable, one row.

They are read up to `until_id` (NULL: not begun) and have been up to `after_id`.
"""
