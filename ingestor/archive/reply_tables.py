"""The tables of opt-outs, dated events, and of what leaves: decisions, their ends, reports that come back.

A number stands on the permanent side only as an HMAC under the archive's key; as text it stands, like the
message, on the erasable side, with 32 random bytes of salt.
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
)  # fmt: skip

from ingestor.archive.columns import Big, Flag, Instant, Ordered, Small, index_of_rows, new_table

KINDS = {
    "stop": "out", "provider": "out", "import": "out", "add": "out", "start": "in", "remove": "in",
    "review": "none", "nearly_start": "none", "dismiss": "none",
}  # fmt: skip
"""What an event can be, and whether it opts out or in again."""

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
    index_of_rows(
        "uq_consents_by_hand", "number_hmac", "kind", "scope", "at", unique=True, where="sms_id IS NULL"
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

answers = new_table(
    "answers",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("sms_id", Big),
    Column("rule", Text),
    Column("resend_of", Big),
    Column("message_id", Text, nullable=False),
    Column("number_hmac", LargeBinary, nullable=False),
    Column("our_number", Text),
    Column("sender", Text, nullable=False),
    Column("text_hmac", LargeBinary, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("parts", Small, nullable=False),
    Column("options", Text, nullable=False),
    Column("expects_report", Flag, nullable=False),
    Column("suppressed", Text),
    Column("reason", Text),
    Column("decided_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("sms_id", "rule"),
    UniqueConstraint("message_id"),
    UniqueConstraint("resend_of"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["resend_of"], ["answers.id"]),
    CheckConstraint("length(number_hmac) = 32", name="number_hmac"),
    CheckConstraint("length(text_hmac) = 32", name="text_hmac"),
    CheckConstraint(
        "(kind = 'answer' AND sms_id IS NOT NULL AND rule IS NOT NULL AND resend_of IS NULL)"
        " OR ((kind = 'command' OR kind = 'simulation')"
        " AND sms_id IS NULL AND rule IS NULL AND resend_of IS NULL)"
        " OR (kind = 'resend' AND rule IS NULL AND resend_of IS NOT NULL)",
        name="kind",
    ),
    Index("ix_answers_decided_at", "decided_at"),
    Index("ix_answers_number_hmac", "number_hmac", "decided_at"),
)
"""One row a decision: to send, or (`suppressed` says why) not to.

`reason` is a person's: why a number was written to that is out. `message_id` is `ids[0]` of the request, and
what reports name. `options` is JSON: the parameters of the request that are not the defaults.
"""

answer_content = new_table(
    "answer_content",
    Column("answer_id", Big, nullable=False, autoincrement=False),
    Column("number", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("answer_id"),
    ForeignKeyConstraint(["answer_id"], ["answers.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
)

answer_events = new_table(
    "answer_events",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("answer_id", Big, nullable=False),
    Column("attempt", Small, nullable=False),
    Column("event", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("code", Small),
    Column("detail", Text),
    Column("again_at", Instant),
    Column("credit", Text),
    PrimaryKeyConstraint("id"),
    # A claim is an insert: of all who try to send an answer one wins.
    UniqueConstraint("answer_id", "attempt", "event"),
    ForeignKeyConstraint(["answer_id"], ["answers.id"]),
    CheckConstraint(
        "event = 'sending' OR event = 'sent' OR event = 'later' OR event = 'refused' OR event = 'not_sent'"
        " OR event = 'unknown' OR event = 'suppressed'",
        name="event",
    ),
)
"""What became of an answer, a row each: `sending` is a claim, `later` gives it back until `again_at`."""

delivery_reports = new_table(
    "delivery_reports",
    Column("id", Big, nullable=False, autoincrement=True),
    Column("post", LargeBinary, nullable=False),
    Column("number", Small, nullable=False),
    Column("report_hmac", LargeBinary, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_raw", Text, nullable=False),
    Column("part", Small, nullable=False),
    Column("parts", Small, nullable=False),
    Column("operator", Text),
    Column("price", Text),
    Column("done_at", Instant),
    Column("source", Text, nullable=False),
    Column("run_id", Big),
    Column("arrived_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("post", "number"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    CheckConstraint("length(report_hmac) = 32", name="report_hmac"),
    Index("ix_delivery_reports_message_id", "message_id"),
)
"""One row a report and POST: `post` is the UUID given on receipt, `number` counts the reports in it.

Equal ones have the same `report_hmac`. `message_id` is that of an answer, which may be committed later.
"""

delivery_report_content = new_table(
    "delivery_report_content",
    Column("report_id", Big, nullable=False, autoincrement=False),
    Column("destination", Text),
    Column("content_type", Text),
    Column("payload", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("report_id"),
    ForeignKeyConstraint(["report_id"], ["delivery_reports.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
    Index("ix_delivery_report_content_destination", "destination"),
)
"""`payload` is the POST's body as it came, compressed by zstd."""

answering = new_table(
    "answering",
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("at", Instant, nullable=False),
    PrimaryKeyConstraint("name"),
)
"""What all daemons of an archive must agree on: since when a rule or a mailbox counts, whether sending is
paused and why, the last known credit. Mutable."""
