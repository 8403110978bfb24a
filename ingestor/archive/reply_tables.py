"""The tables of opt-outs, dated events, and of what leaves: decisions, their ends, reports that come back.

A number stands on the permanent side only as an HMAC under the archive's key; as text it stands, like the
message, on the erasable side, with 32 random bytes of salt.
"""

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
)  # fmt: skip

from ingestor.archive.columns import (
    SALT,
    Big,
    Flag,
    Instant,
    Ordered,
    Small,
    col,
    index_of_rows,
    new_table,
)  # fmt: skip

KINDS = {
    "stop": "out", "provider": "out", "import": "out", "add": "out", "start": "in", "remove": "in",
    "review": "none", "nearly_start": "none", "dismiss": "none",
}  # fmt: skip
"""What an event can be, and whether it opts out or in again."""

consents = new_table(
    "consents", "append-only: what opts a number out or in again, or may, without the number itself",
    col("id", Big, "number of the event"),
    col("number_hmac", LargeBinary,
        "that number as a hash under the archive's key: it blocks when the person is erased, too"),
    col("scope", Text, "the number of ours that it is for; `*`: every one"),
    col("kind", Text,
        "`stop`, `start`: an SMS says so; `review`: an SMS that may; `provider`: the provider says so; "
        "`import`: of another program's list; `add`, `remove`: by a person; `dismiss`: a person says that a "
        "review is neither; `nearly_start`: a `review` where the sender is out, else nothing"),
    col("effect", Text, "`out`, `in` or `none`, as follows from the kind"),
    col("at", Ordered, "when it counts from: the time of the SMS, or of a person's decision"),
    col("sms_id", Big, "the SMS that proves it; NULL where none does", null=True),
    col("rule", Text, "by which rule the SMS was read so", null=True),
    col("noted_at", Instant, "when it became durable here"),
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

consent_content = new_table(
    "consent_content", "erasable: whom an event is about, and what a person wrote",
    col("consent_id", Big, "the event", autoincrement=False),
    col("number", Text, "the number: E.164 with `+`"),
    col("reason", Text, "what a person wrote", null=True),
    col("salt", LargeBinary, SALT),
    PrimaryKeyConstraint("consent_id"),
    ForeignKeyConstraint(["consent_id"], ["consents.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
    Index("ix_consent_content_number", "number"),
)  # fmt: skip

consent_scans = new_table(
    "consent_scans", "how far the SMS of earlier programs have been read for opt-outs: one row",
    col("id", Small, "always 1", autoincrement=False),
    col("words", LargeBinary, "a hash of the words that are looked for"),
    col("after_id", Big, "SMS up to this one have been read"),
    col("until_id", Big, "SMS up to this one are read; NULL: that has not begun", null=True),
    col("started_at", Instant, "when it began", null=True),
    col("finished_at", Instant, "when it was done; NULL: who is out cannot be told yet", null=True),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one"),
)  # fmt: skip

answers = new_table(
    "answers", "append-only: one row a decision to send, or not to",
    col("id", Big, "number of the message, or of the decision to send none"),
    col("kind", Text,
        "`answer` (by a rule), `command` (`ingestor send`), `simulation` (with `--simulate`) or `resend`"),
    col("sms_id", Big, "which SMS is answered; NULL for a command", null=True),
    col("rule", Text, "by which rule; NULL for a command or a resend", null=True),
    col("resend_of", Big, "the message that it sends again", null=True),
    col("message_id", Text, "`globalId` and `ids[0]` of the request; reports name it"),
    col("number_hmac", LargeBinary, "the number it goes to, as a hash under the archive's key"),
    col("our_number", Text, "the number of ours that the SMS was for", null=True),
    col("sender", Text, "whom the message comes from"),
    col("text_hmac", LargeBinary, "the text as such a hash: equal ones are known when they are erased, too"),
    col("encoding", Text, "`GSM 7-bit`, `UCS-2` or `HEX`"),
    col("parts", Small, "in how many parts it goes"),
    col("options", Text, "parameters of the request that are not the defaults, as JSON"),
    col("expects_report", Flag, "whether a report was asked for"),
    col("suppressed", Text, "why it is not sent; NULL where it is", null=True),
    col("reason", Text, "a person's words: why it was sent although the number is out", null=True),
    col("decided_at", Instant, "when it was decided, by the database's clock"),
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
)  # fmt: skip

answer_content = new_table(
    "answer_content", "erasable: to whom, and what",
    col("answer_id", Big, "the message", autoincrement=False),
    col("number", Text, "the number"),
    col("text", Text, "the text"),
    col("salt", LargeBinary, SALT),
    PrimaryKeyConstraint("answer_id"),
    ForeignKeyConstraint(["answer_id"], ["answers.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
)  # fmt: skip

answer_events = new_table(
    "answer_events", "append-only: what became of each request; of all who claim one, one wins",
    col("id", Big, "number of the event"),
    col("answer_id", Big, "the message"),
    col("attempt", Small, "which request for it, from 1"),
    col("event", Text,
        "`sending` (the claim, before the request), `sent`, `later` (refused for now), `refused`, "
        "`not_sent`, `unknown` or `suppressed`"),
    col("at", Instant, "when, by the database's clock"),
    col("code", Small, "what Agile answered, by number", null=True),
    col("detail", Text, "the same in words", null=True),
    col("again_at", Instant, "after `later`: not before", null=True),
    col("credit", Text, "what was left of the account, in EUR", null=True),
    PrimaryKeyConstraint("id"),
    # A claim is an insert: of all who try to send an answer one wins.
    UniqueConstraint("answer_id", "attempt", "event"),
    ForeignKeyConstraint(["answer_id"], ["answers.id"]),
    CheckConstraint(
        "event = 'sending' OR event = 'sent' OR event = 'later' OR event = 'refused' OR event = 'not_sent'"
        " OR event = 'unknown' OR event = 'suppressed'",
        name="event",
    ),
)  # fmt: skip

delivery_reports = new_table(
    "delivery_reports", "append-only: one row each time a report came",
    col("id", Big, "number of the report"),
    col("post", LargeBinary, "UUID given to the POST on receipt"),
    col("number", Small, "its place among the reports of the POST, from 0"),
    col("report_hmac", LargeBinary, "what equal reports have in common, as a hash under the archive's key"),
    col("message_id", Text, "the message that it is about"),
    col("shape", Text, "which of the documented shapes it has; `other`: none"),
    col("status", Text,
        "`accepted`, `buffered`, `delivered`, `expired`, `rejected`, `deleted`, `undeliverable`, `failed`, "
        "`unknown`, or `unclear` where no document says what it means"),
    col("status_raw", Text, "the word and the number as they came"),
    col("part", Small, "which part of the message it is about, from 1"),
    col("parts", Small, "of how many"),
    col("operator", Text, "the network", null=True),
    col("price", Text, "what it cost, as it was written", null=True),
    col("done_at", Instant, "when that was, by the provider's clock", null=True),
    col("source", Text, "at which endpoint"),
    col("run_id", Big, "the run that took it", null=True),
    col("arrived_at", Instant, "when it reached us"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("post", "number"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    CheckConstraint("length(report_hmac) = 32", name="report_hmac"),
    Index("ix_delivery_reports_message_id", "message_id"),
)  # fmt: skip
"""`message_id` is that of an answer, which may be committed later."""

delivery_report_content = new_table(
    "delivery_report_content", "erasable: whom a report is about, and its bytes",
    col("report_id", Big, "the report", autoincrement=False),
    col("destination", Text, "the number", null=True),
    col("content_type", Text, "Content-Type of the POST", null=True),
    col("payload", LargeBinary, "body of the POST as it came, as one zstd frame"),
    col("salt", LargeBinary, SALT),
    PrimaryKeyConstraint("report_id"),
    ForeignKeyConstraint(["report_id"], ["delivery_reports.id"]),
    CheckConstraint("length(salt) = 32", name="salt"),
    Index("ix_delivery_report_content_destination", "destination"),
)  # fmt: skip

answering = new_table(
    "answering", "what all daemons of an archive must agree on",
    col("name", Text,
        "`rule:NAME` and `mailbox:NAME` (since when each counts), `paused`, `probe`, `credit`, `credit "
        "poll`, `clock agile`"),
    col("value", Text, "what stands under it"),
    col("at", Instant, "since when, or when last"),
    PrimaryKeyConstraint("name"),
)  # fmt: skip
