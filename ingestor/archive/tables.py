"""The archive's tables as the program sees them; views and triggers live in modules of their own.

Three kinds of table: append-only (no row is ever changed or removed, held by triggers), erasable (never
changed; the only places of personal content and raw bytes) and mutable book-keeping. Foreign keys point
from erasable to permanent, so that an erasure leaves the evidence standing.
"""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
)  # fmt: skip

from ingestor.archive.book_tables import (
    conditions,
    cursors,
    leases,
    look_alikes,
    pending,
    run_inputs,
    runs,
    sources,
)
from ingestor.archive.columns import (
    SALT,
    Big,
    Flag,
    Instant,
    Small,
    WholeSecond,
    col,
    index_of_rows,
    metadata,
)  # fmt: skip
from ingestor.archive.columns import new_table as _table
from ingestor.archive.reply_tables import (
    answer_content,
    answer_events,
    answering,
    answers,
    consent_content,
    consent_scans,
    consents,
    delivery_report_content,
    delivery_reports,
)

__all__ = [
    "ANSWERABLE", "ERASABLE", "PERMANENT", "Big", "Flag", "Instant", "Small", "WholeSecond",
    "answer_content", "answer_events", "answering", "answers", "archive_key", "arrival_content", "arrivals",
    "conditions", "consent_content", "consent_scans", "consents", "cursors", "delivery_report_content",
    "delivery_reports", "dictionaries", "erased", "erasures", "hold_content", "holds", "leases",
    "look_alikes", "metadata", "payloads", "pending", "retries", "run_inputs", "runs", "sender_checks", "sms",
    "sms_content", "sms_numbers", "sms_words", "sources",
]  # fmt: skip

ANSWERABLE: Final = "outcome = 'stored' AND (channel = 'mailbox' OR channel = 'webhook')"
"""Of the arrivals those that brought an SMS first, and not from a file."""

SENDER_CHECKED: Final = "sender_check_id IS NOT NULL"

archive_key = _table(
    "archive_key", "append-only: the secret of all hashes; in no view, snapshot or export",
    col("id", Small, "always 1", autoincrement=False),
    col("secret", LargeBinary, "32 random bytes"),
    col("created_at", Instant, "when it was made"),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one"),
    CheckConstraint("length(secret) = 32", name="secret"),
)  # fmt: skip

dictionaries = _table(
    "dictionaries", "append-only: what raw bytes are compressed against",
    col("id", Integer, "its number", autoincrement=False),
    col("bytes", LargeBinary, "a zstd dictionary"),
    col("created_at", Instant, "when it came here"),
    PrimaryKeyConstraint("id"),
)  # fmt: skip

sms = _table(
    "sms", "append-only: one row an SMS, without personal content",
    col("id", Big,
        "number of the SMS in this archive; numbers may be skipped (a duplicate uses one up), never reused",
        autoincrement=False),
    col("fingerprint", LargeBinary, "what makes it unique: its time, and a hash under the archive's key"),
    col("fingerprint_version", Small, "the form that the hash was taken over"),
    col("provider", Text, "`agile`, `infobip` or `ip1`"),
    col("originator_kind", Text,
        "`msisdn` (phone number), `short` (short code), `alpha` (name) or `unknown`"),
    col("destination", Text, "the number it was sent to"),
    col("date_time", Text,
        "the provider's 14 digits `YYYYMMDDHHMMSS` as sent (UTC where it sends an instant)"),
    col("received_at", Instant, "when the provider received it, in UTC"),
    col("time_quality", Text,
        "`ok`; `ambiguous`: in the hour that happens twice; `nonexistent`: in the hour that is skipped"),
    col("provider_message_id", Text, "the provider's id, where it gives one (Agile gives none)", null=True),
    col("segments", Integer, "of how many parts it was made, where known", null=True),
    col("ingested_at", Instant, "when it became durable here"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("fingerprint"),
    # OR and not IN: SQLite builds a temporary index for a list of values, for each row anew.
    CheckConstraint("length(fingerprint) = 38", name="fingerprint"),
    CheckConstraint(
        "originator_kind = 'msisdn' OR originator_kind = 'short'"
        " OR originator_kind = 'alpha' OR originator_kind = 'unknown'",
        name="originator_kind",
    ),
    CheckConstraint(
        "time_quality = 'ok' OR time_quality = 'ambiguous' OR time_quality = 'nonexistent'",
        name="time_quality",
    ),
    Index(None, "received_at"),
    Index(None, "date_time"),
    Index("ix_sms_destination", "destination", "received_at"),
)  # fmt: skip

sms_content = _table(
    "sms_content", "erasable: what the SMS says and who sent it",
    col("sms_id", Big, "the SMS", autoincrement=False),
    col("originator", Text, "the sender: E.164 with `+`; a name or short code as it came"),
    col("originator_raw", Text, "the sender as it came"),
    col("destination_raw", Text, "the number it was sent to, as it came"),
    col("text", Text, "the SMS with LF line ends; an empty SMS is `''`, an erased one NULL"),
    col("keyword", Text, "keyword, where the provider tells it apart", null=True),
    col("clean_text", Text, "text without the keyword, where the provider tells it apart", null=True),
    col("details", Text, "what else the provider said, as JSON"),
    col("salt", LargeBinary, SALT),
    PrimaryKeyConstraint("sms_id"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    Index(None, "originator"),
)  # fmt: skip

sms_numbers = _table(
    "sms_numbers",
    "erasable: both numbers of an SMS as hashes under the archive's key, to find them in every form",
    col("sms_id", Big, "the SMS", autoincrement=False),
    col("originator", Big, "8 bytes of HMAC-SHA-256 over the sender's digits, or the letters of a name"),
    col("destination", Big, "likewise of the number it was sent to"),
    PrimaryKeyConstraint("sms_id"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    Index("ix_sms_numbers_originator", "originator"),
    Index("ix_sms_numbers_destination", "destination"),
)  # fmt: skip
"""Both numbers of an SMS as `rows.number_key` has them: by these one is found, whatever form it came in."""

sms_words = _table(
    "sms_words",
    "erasable: the texts of SMS without case and accents, to find words in; the newest may be missing",
    col("sms_id", Big, "the SMS", autoincrement=False),
    col("words", Text, "its text, in small letters without accents"),
    PrimaryKeyConstraint("sms_id"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
)  # fmt: skip
"""The text of an SMS as `words.folded` has it; `words` brings it up after the SMS was stored."""

sender_checks = _table(
    "sender_checks",
    "append-only: what checks of the sender found, once for all mails of which it is the same",
    col("id", Big, "8 bytes of SHA-256 over the other columns", autoincrement=False),
    col("method", Text, "how the sender was checked: `dkim`, `rfc8601` or `exchange-online`"),
    col("finding", Text, "what was found, in words; `pass` where the sender was proven"),
    col("domain", Text, "the domain that signed, where it is the sender's; else NULL", null=True),
    col("selector", Text, "under which name the domain's key was found in the DNS", null=True),
    col("public_key", Text, "the DNS record of the key as it was that day: keys change", null=True),
    PrimaryKeyConstraint("id"),
)  # fmt: skip

arrivals = _table(
    "arrivals", "append-only: one row each time an item reached us",
    col("id", Big, "number of the arrival", autoincrement=False),
    col("content_key", LargeBinary,
        "what tells its bytes apart: their day, and a hash under the archive's key"),
    col("channel", Text, "how it reached us: `mailbox`, `webhook` or `import`"),
    col("number", Small, "its place among the items of one POST, from 0; 0 for a mail"),
    col("place", LargeBinary,
        "where an import found them, as a hash under the archive's key: file and member, without a Maildir's "
        "flags, and the how-manieth copy in them; empty for other channels"),
    col("source", Text, "from which mailbox, endpoint or file"),
    col("folder", Text, "folder of a mailbox", null=True),
    col("uidvalidity", Big, "UIDVALIDITY of that folder", null=True),
    col("uid", Big, "UID of the mail there", null=True),
    col("byte_offset", Big, "where it begins in that file or member", null=True),
    col("byte_length", Big, "how many bytes it takes there", null=True),
    col("sender_verified", Flag, "whether a sender check passed; NULL: none was made", null=True),
    col("size", Big, "bytes of the mail or POST; NULL for further items of a POST", null=True),
    col("outcome", Text, "what became of it: `stored`, `duplicate` or `quarantined`"),
    col("reason", Text, "why it could not be read; NULL where it could", null=True),
    col("sms_id", Big,
        "the SMS that it became or was a copy of; NULL where it could not be read then", null=True),
    col("parser", Text, "what read it, or could not"),
    col("run_id", Big, "the run that read it", null=True),
    col("arrived_at", Instant, "when it reached us"),
    col("ingested_at", Instant, "when it became durable here"),
    col("sender_check_id", Big, "what the check of its sender found; NULL: none was made", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("content_key", "number", "channel", "place"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    ForeignKeyConstraint(["sender_check_id"], ["sender_checks.id"]),
    CheckConstraint("channel = 'mailbox' OR channel = 'webhook' OR channel = 'import'", name="channel"),
    CheckConstraint(
        "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR (outcome = 'quarantined' AND sms_id IS NULL AND reason IS NOT NULL)",
        name="outcome",
    ),
    Index("ix_arrivals_sms_id", "sms_id"),
    index_of_rows("ix_arrivals_quarantined", "id", where="outcome = 'quarantined'"),
    # What may be answered; imports, the bulk of an archive, pay nothing for it.
    index_of_rows("ix_arrivals_answerable", "ingested_at", where=ANSWERABLE),
    # Of those whose sender was checked; all others pay nothing for it.
    index_of_rows(
        "ix_arrivals_sender_checked", "source", "ingested_at", "sender_verified", where=SENDER_CHECKED
    ),
)  # fmt: skip

arrival_content = _table(
    "arrival_content", "erasable: what of an arrival may name a person",
    col("arrival_id", Big, "the arrival", autoincrement=False),
    col("subject", Text, "subject of the mail", null=True),
    col("message_id", Text, "Message-ID of the mail", null=True),
    col("input", Text, "path of the file that an import found it in", null=True),
    col("member", Text, "where in that file it lay, if it is an archive", null=True),
    col("peer", Text, "address that sent the POST", null=True),
    col("salt", LargeBinary, SALT),
    PrimaryKeyConstraint("arrival_id"),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
)  # fmt: skip

retries = _table(
    "retries", "append-only: later verdicts on what stood in the quarantine",
    col("id", Big, "number of the verdict", autoincrement=False),
    col("arrival_id", Big, "the arrival"),
    col("outcome", Text, "`stored`, `duplicate`, `quarantined` (still unreadable) or `discarded`"),
    col("reason", Text, "why it stays, or why it was discarded", null=True),
    col("sms_id", Big, "the SMS that it became", null=True),
    col("parser", Text, "what read it, or could not", null=True),
    col("run_id", Big, "the run that read it again", null=True),
    col("retried_at", Instant, "when"),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    CheckConstraint(
        "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR ((outcome = 'quarantined' OR outcome = 'discarded') AND sms_id IS NULL AND reason IS NOT NULL)",
        name="outcome",
    ),
    Index("ix_retries_arrival_id", "arrival_id"),
    Index("ix_retries_sms_id", "sms_id"),
    # However many processes read the same quarantined arrival again, it becomes an SMS once.
    index_of_rows("uq_retries_read_once", "arrival_id", unique=True, where="sms_id IS NOT NULL"),
)  # fmt: skip

payloads = _table(
    "payloads", "erasable: the raw bytes, once for all copies that an import found",
    col("arrival_id", Big, "the first arrival of these bytes", autoincrement=False),
    col("content_type", Text, "Content-Type of a POST", null=True),
    col("size", Big, "bytes of the whole; of a very large mail only the beginning is kept"),
    col("sha256", LargeBinary, "SHA-256 of the bytes that are kept"),
    col("dictionary_id", Integer, "what they are compressed against; NULL: nothing", null=True),
    col("compressed", LargeBinary, "the bytes as one zstd frame"),
    col("salt", LargeBinary, SALT),
    PrimaryKeyConstraint("arrival_id"),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
    ForeignKeyConstraint(["dictionary_id"], ["dictionaries.id"]),
)  # fmt: skip

erasures = _table(
    "erasures", "append-only: one row a batch of an erasure",
    col("id", Big, "number of the batch in this archive"),
    col("plan_id", Text, "the plan that it is part of"),
    col("batch", Integer, "its number in the plan"),
    col("basis", Text, "why, as a code"),
    col("sms", Integer, "how many SMS lost their content"),
    col("arrivals", Integer, "how many arrivals lost theirs"),
    col("payloads", Integer, "how many raw mails and POSTs went with them"),
    col("others", Integer, "how many contents of opt-outs, answers, reports and holds went"),
    col("erased_at", Instant, "when"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("plan_id", "batch"),
)  # fmt: skip
"""One row a batch of an erasure: codes and counts, no word and no number of anybody."""

erased = _table(
    "erased", "append-only: which rows an erasure took the content of",
    col("kind", Text, "of what: `sms`, `arrival` (its raw bytes too), `consent`, `answer`, `report`, `hold`"),
    col("row_id", Big, "the id of that row"),
    col("erasure_id", Big, "the batch that took it"),
    PrimaryKeyConstraint("kind", "row_id"),
    ForeignKeyConstraint(["erasure_id"], ["erasures.id"]),
    sqlite_with_rowid=False,
)  # fmt: skip
"""What an erasure took: a trigger removes the content of each row that is named here, and of no other."""

holds = _table(
    "holds", "append-only: what may not be erased; a row begins a hold or ends one",
    col("id", Big, "number of the hold"),
    col("number_key", Big, "all SMS of this number, hashed as in `sms_numbers`", null=True),
    col("sms_id", Big, "this SMS", null=True),
    col("arrival_id", Big, "this arrival in the quarantine", null=True),
    col("ends", Big, "the hold that this row ends", null=True),
    col("noted_at", Instant, "when"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("ends"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
    ForeignKeyConstraint(["ends"], ["holds.id"]),
)  # fmt: skip

hold_content = _table(
    "hold_content", "erasable: who is meant by a hold, and why",
    col("hold_id", Big, "the hold", autoincrement=False),
    col("number", Text, "the number, as it was given", null=True),
    col("reason", Text, "why"),
    col("salt", LargeBinary, SALT),
    PrimaryKeyConstraint("hold_id"),
    ForeignKeyConstraint(["hold_id"], ["holds.id"]),
)  # fmt: skip

PERMANENT: Final = (
    "archive_key", "dictionaries", "sms", "sender_checks", "arrivals", "retries", "consents", "answers",
    "answer_events", "delivery_reports", "erasures", "erased", "holds",
)  # fmt: skip
"""Append-only for ever."""

CONTENT_OF: Final[dict[str, dict[str, str]]] = {
    "sms": {"sms_content": "sms_id", "sms_numbers": "sms_id", "sms_words": "sms_id"},
    "arrival": {"arrival_content": "arrival_id", "payloads": "arrival_id"},
    "consent": {"consent_content": "consent_id"},
    "answer": {"answer_content": "answer_id"},
    "report": {"delivery_report_content": "report_id"},
    "hold": {"hold_content": "hold_id"},
}
"""By the kind of row that `erased` names: the tables that hold its content, and their column with its id."""

ERASABLE: Final = tuple(name for tables in CONTENT_OF.values() for name in tables)
"""Never changed, and removed only together with a row in `erased`."""
