"""The archive's tables as the program sees them; views and triggers live in modules of their own.

Three kinds of table: append-only (no row is ever changed or removed, held by triggers), erasable (never
changed; the only places of personal content and raw bytes) and mutable book-keeping. Foreign keys point
from erasable to permanent, so that an erasure leaves the evidence standing.
"""

from typing import Final

from sqlalchemy import CheckConstraint, Index, Integer, LargeBinary, Text, UniqueConstraint, text

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
    new_table,
    one_of,
)  # fmt: skip
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

ANSWERABLE: Final = "outcome = 'stored' AND (channel = 'mailbox' OR channel = 'webhook')"
"""Of the arrivals those that brought an SMS first, and not from a file."""

SENDER_CHECKED: Final = "sender_check_id IS NOT NULL"

archive_key = new_table(
    "archive_key", "append-only: the secret of all hashes; in no view, snapshot or export",
    col("id", Small, "always 1", autoincrement=False, key=True),
    col("secret", LargeBinary, "32 random bytes"),
    col("created_at", Instant, "when it was made"),
    CheckConstraint("id = 1", name="one"),
    CheckConstraint("length(secret) = 32", name="secret"),
)  # fmt: skip

dictionaries = new_table(
    "dictionaries", "append-only: what raw bytes are compressed against",
    col("id", Integer, "its number", autoincrement=False, key=True),
    col("bytes", LargeBinary, "a zstd dictionary"),
    col("created_at", Instant, "when it came here"),
)  # fmt: skip

sms = new_table(
    "sms", "append-only: one row an SMS, without personal content",
    col("id", Big,
        "number of the SMS in this archive; numbers may be skipped (a duplicate uses one up), never reused",
        autoincrement=False, key=True),
    col("fingerprint", LargeBinary,
        "what makes it unique: its time, and a hash under the archive's key", unique=True),
    col("fingerprint_version", Small, "the form that the hash was taken over"),
    col("provider", Text, "`agile`, `infobip` or `ip1`"),
    col("originator_kind", Text,
        "`msisdn` (phone number), `short` (short code), `alpha` (name) or `unknown`"),
    col("destination", Text, "the number it was sent to"),
    col("date_time", Text,
        "the provider's 14 digits `YYYYMMDDHHMMSS` as sent (UTC where it sends an instant)", index=True),
    col("received_at", Instant, "when the provider received it, in UTC", index=True),
    col("time_quality", Text,
        "`ok`; `ambiguous`: in the hour that happens twice; `nonexistent`: in the hour that is skipped"),
    col("provider_message_id", Text, "the provider's id, where it gives one (Agile gives none)", null=True),
    col("segments", Integer, "of how many parts it was made, where known", null=True),
    col("ingested_at", Instant, "when it became durable here"),
    CheckConstraint("length(fingerprint) = 38", name="fingerprint"),
    one_of("originator_kind", "msisdn", "short", "alpha", "unknown"),
    one_of("time_quality", "ok", "ambiguous", "nonexistent"),
    Index("ix_sms_destination", "destination", "received_at"),
)  # fmt: skip

sms_content = new_table(
    "sms_content", "erasable: what the SMS says and who sent it",
    col("sms_id", Big, "the SMS", of="sms.id", key=True),
    col("originator", Text, "the sender: E.164 with `+`; a name or short code as it came", index=True),
    col("originator_raw", Text, "the sender as it came"),
    col("destination_raw", Text, "the number it was sent to, as it came"),
    col("text", Text, "the SMS with LF line ends; an empty SMS is `''`, an erased one NULL"),
    col("keyword", Text, "keyword, where the provider tells it apart", null=True),
    col("clean_text", Text, "text without the keyword, where the provider tells it apart", null=True),
    col("details", Text, "what else the provider said, as JSON"),
    col("salt", LargeBinary, SALT),
)  # fmt: skip

sms_numbers = new_table(
    "sms_numbers",
    "erasable: both numbers of an SMS as hashes under the archive's key, to find them in every form",
    col("sms_id", Big, "the SMS", of="sms.id", key=True),
    col("originator", Big,
        "8 bytes of HMAC-SHA-256 over the sender's digits, or the letters of a name", index=True),
    col("destination", Big, "likewise of the number it was sent to", index=True),
)  # fmt: skip

sms_words = new_table(
    "sms_words",
    "erasable: the texts of SMS without case and accents, to find words in; the newest may be missing",
    col("sms_id", Big, "the SMS", of="sms.id", key=True),
    col("words", Text, "its text, in small letters without accents"),
)  # fmt: skip

sender_checks = new_table(
    "sender_checks",
    "append-only: what checks of the sender found, once for all mails of which it is the same",
    col("id", Big, "8 bytes of SHA-256 over the other columns", autoincrement=False, key=True),
    col("method", Text, "how the sender was checked: `dkim`, `rfc8601` or `exchange-online`"),
    col("finding", Text, "what was found, in words; `pass` where the sender was proven"),
    col("domain", Text, "the domain that signed, where it is the sender's; else NULL", null=True),
    col("selector", Text, "under which name the domain's key was found in the DNS", null=True),
    col("public_key", Text, "the DNS record of the key as it was that day: keys change", null=True),
)  # fmt: skip

arrivals = new_table(
    "arrivals", "append-only: one row each time an item reached us",
    col("id", Big, "number of the arrival", autoincrement=False, key=True),
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
        "the SMS that it became or was a copy of; NULL where it could not be read then",
        null=True, of="sms.id", index=True),
    col("parser", Text, "what read it, or could not"),
    col("run_id", Big, "the run that read it", null=True, of="runs.id"),
    col("arrived_at", Instant, "when it reached us"),
    col("ingested_at", Instant, "when it became durable here"),
    col("sender_check_id", Big,
        "what the check of its sender found; NULL: none was made", null=True, of="sender_checks.id"),
    UniqueConstraint("content_key", "number", "channel", "place"),
    one_of("channel", "mailbox", "webhook", "import"),
    CheckConstraint(
        "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR (outcome = 'quarantined' AND sms_id IS NULL AND reason IS NOT NULL)",
        name="outcome",
    ),
    index_of_rows("ix_arrivals_quarantined", "id", where="outcome = 'quarantined'"),
    # What may be answered; imports, the bulk of an archive, pay nothing for it.
    index_of_rows("ix_arrivals_answerable", "ingested_at", where=ANSWERABLE),
    # Of those whose sender was checked; all others pay nothing for it.
    index_of_rows(
        "ix_arrivals_sender_checked", "source", "ingested_at", "sender_verified", where=SENDER_CHECKED
    ),
)  # fmt: skip

arrival_content = new_table(
    "arrival_content", "erasable: what of an arrival may name a person",
    col("arrival_id", Big, "the arrival", of="arrivals.id", key=True),
    col("subject", Text, "subject of the mail", null=True),
    col("message_id", Text, "Message-ID of the mail", null=True),
    col("input", Text, "path of the file that an import found it in", null=True),
    col("member", Text, "where in that file it lay, if it is an archive", null=True),
    col("peer", Text, "address that sent the POST", null=True),
    col("salt", LargeBinary, SALT),
)  # fmt: skip

retries = new_table(
    "retries", "append-only: later verdicts on what stood in the quarantine",
    col("id", Big, "number of the verdict", autoincrement=False, key=True),
    col("arrival_id", Big, "the arrival", of="arrivals.id", index=True),
    col("outcome", Text, "`stored`, `duplicate`, `quarantined` (still unreadable) or `discarded`"),
    col("reason", Text, "why it stays, or why it was discarded", null=True),
    col("sms_id", Big, "the SMS that it became", null=True, of="sms.id", index=True),
    col("parser", Text, "what read it, or could not", null=True),
    col("run_id", Big, "the run that read it again", null=True, of="runs.id"),
    col("retried_at", Instant, "when"),
    CheckConstraint(
        "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR ((outcome = 'quarantined' OR outcome = 'discarded') AND sms_id IS NULL AND reason IS NOT NULL)",
        name="outcome",
    ),
    # However many processes read the same quarantined arrival again, it becomes an SMS once.
    index_of_rows("uq_retries_read_once", "arrival_id", unique=True, where="sms_id IS NOT NULL"),
)  # fmt: skip

payloads = new_table(
    "payloads", "erasable: the raw bytes, once for all copies that an import found",
    col("arrival_id", Big, "the first arrival of these bytes", of="arrivals.id", key=True),
    col("content_type", Text, "Content-Type of a POST", null=True),
    col("size", Big, "bytes of the whole; of a very large mail only the beginning is kept"),
    col("sha256", LargeBinary, "SHA-256 of the bytes that are kept"),
    col("dictionary_id", Integer,
        "what they are compressed against; NULL: nothing", null=True, of="dictionaries.id"),
    col("compressed", LargeBinary, "the bytes as one zstd frame"),
    col("salt", LargeBinary, SALT),
)  # fmt: skip

erasures = new_table(
    "erasures", "append-only: one row a batch of an erasure",
    col("id", Big, "number of the batch in this archive", key=True),
    col("plan_id", Text, "the plan that it is part of"),
    col("batch", Integer, "its number in the plan"),
    col("basis", Text, "why, as a code"),
    col("sms", Integer, "how many SMS lost their content"),
    col("arrivals", Integer, "how many arrivals lost theirs"),
    col("payloads", Integer, "how many raw mails and POSTs went with them"),
    col("others", Integer, "how many contents of opt-outs, answers, reports and holds went"),
    col("erased_at", Instant, "when"),
    UniqueConstraint("plan_id", "batch"),
)  # fmt: skip

erased = new_table(
    "erased", "append-only: which rows an erasure took the content of",
    col("kind", Text,
        "of what: `sms`, `arrival` (its raw bytes too), `consent`, `answer`, `report`, `hold`", key=True),
    col("row_id", Big, "the id of that row", key=True),
    col("erasure_id", Big, "the batch that took it", of="erasures.id"),
    sqlite_with_rowid=False,
)  # fmt: skip
"""What an erasure took: a trigger removes the content of each row that is named here, and of no other."""

holds = new_table(
    "holds", "append-only: what may not be erased; a row begins a hold or ends one",
    col("id", Big, "number of the hold", key=True),
    col("number_key", Big, "all SMS of this number, hashed as in `sms_numbers`", null=True),
    col("sms_id", Big, "this SMS", null=True, of="sms.id"),
    col("arrival_id", Big, "this arrival in the quarantine", null=True, of="arrivals.id"),
    col("ends", Big, "the hold that this row ends", null=True, of="holds.id", unique=True),
    col("noted_at", Instant, "when"),
)  # fmt: skip

hold_content = new_table(
    "hold_content", "erasable: who is meant by a hold, and why",
    col("hold_id", Big, "the hold", of="holds.id", key=True),
    col("number", Text, "the number, as it was given", null=True),
    col("reason", Text, "why"),
    col("salt", LargeBinary, SALT),
)  # fmt: skip

# The mutable tables of book-keeping, without a word of anybody.

runs = new_table(
    "runs",
    "one row a command that read something; `read` is the sum of what follows, as the database enforces",
    col("id", Big, "number of the run", key=True),
    col("command", Text, "what ran"),
    col("options", Text, "how it was called, as JSON"),
    col("version", Text, "of the program"),
    col("started_at", Instant, "when it began"),
    col("ended_at", Instant, "when it ended; NULL while it runs, or where it was killed", null=True),
    col("read", Big, "how many items it read; the others add up to it", server_default=text("0")),
    col("stored", Big, "of these, new SMS", server_default=text("0")),
    col("duplicate", Big, "of these, SMS that were there already", server_default=text("0")),
    col("ignored", Big, "of these, not ours", server_default=text("0")),
    col("quarantined", Big, "of these, ours but unreadable", server_default=text("0")),
    col("failed", Big, "of these, could not be fetched or written; tried again", server_default=text("0")),
    col("mark", LargeBinary, "the program's own", null=True),
    CheckConstraint("read = stored + duplicate + ignored + quarantined + failed", name="balance"),
)  # fmt: skip

run_inputs = new_table(
    "run_inputs", "the files of an import, and how far each was read",
    col("id", Big, "number of the input", key=True),
    col("run_id", Big, "the run", of="runs.id"),
    col("path", Text, "the file"),
    col("member", Text, "the way into it, where it is an archive", server_default=text("''")),
    col("size", Big, "its length, once its end was seen", null=True),
    col("position", Big, "how far it was read", server_default=text("0")),
    col("sha256", LargeBinary, "SHA-256 of what was read", null=True),
    col("updated_at", Instant, "when it moved last"),
    UniqueConstraint("run_id", "path", "member"),
)  # fmt: skip

cursors = new_table(
    "cursors", "how far each folder of a mailbox was read",
    col("mailbox", Text, "name of the mailbox", key=True),
    col("folder", Text, "the folder", key=True),
    col("uidvalidity", Big, "its UIDVALIDITY"),
    col("last_uid", Big, "the last UID that was read"),
    col("updated_at", Instant, "when it moved last"),
    col("accounts", Text, "under which names the mailbox was reached, a line each", null=True),
    col("uids", Text, "which UIDs stood in it then", null=True),
    col("marks", LargeBinary, "by which their mails are known again", null=True),
)  # fmt: skip

pending = new_table(
    "pending", "what is still to be fetched from a mailbox, or done there",
    col("mailbox", Text, "name of the mailbox", key=True),
    col("folder", Text, "the folder", key=True),
    col("uidvalidity", Big, "its UIDVALIDITY", key=True),
    col("uid", Big, "UID of the mail", key=True),
    col("action", Text, "`fetch`, `seen`, `move` or `delete`", key=True),
    col("attempts", Integer, "how often it failed", server_default=text("0")),
    col("reason", Text, "why it failed last", null=True),
    col("noted_at", Instant, "since when it waits"),
    col("tried_at", Instant, "when it was tried last", null=True),
    col("content_key", LargeBinary, "the mail that it is to be done to, as in `arrivals`", null=True),
)  # fmt: skip

leases = new_table(
    "leases", "which program acts on a mailbox",
    col("name", Text, "what for", key=True),
    col("holder", Text, "which program"),
    col("expires_at", Instant, "until when, by the database's clock"),
)  # fmt: skip

sources = new_table(
    "sources", "how each mailbox and endpoint fares",
    col("name", Text, "its name", key=True),
    col("kind", Text, "`mailbox` or `webhook`"),
    col("state", Text, "how it is"),
    col("detail", Text, "what is wrong with it", null=True),
    col("poll_seconds", Integer, "how often it is looked at", null=True),
    col("last_success", Instant, "when it last went well", null=True),
    col("updated_at", Instant, "when this was written"),
)  # fmt: skip

conditions = new_table(
    "conditions", "what is wrong now, and who was told of it",
    col("condition", Text, "its kind", key=True),
    col("subject", Text, "what it is about", key=True),
    col("host", Text, "the machine that it concerns alone, else empty", key=True),
    col("state", Text, "open, told, or over"),
    col("says", Text, "what is wrong"),
    col("fix", Text, "what to do"),
    col("grave", Small, "1 where somebody is needed now"),
    col("began_at", Instant, "since when"),
    col("gone_at", Instant, "since when it is not seen any more", null=True),
    col("owed", Text, "which channels have still to hear of its state"),
    CheckConstraint("state IN ('open', 'told', 'over')", name="state"),
)  # fmt: skip

look_alikes = new_table(
    "look_alikes", "ignored mails that had something of an SMS",
    col("run_id", Big, "the run", of="runs.id", key=True),
    col("source", Text, "where they came from", key=True),
    col("missing", Text, "what they lacked beside the sender", key=True),
    col("number", Big, "how many"),
    col("last_at", Instant, "when last"),
)  # fmt: skip

PERMANENT: Final = (
    "archive_key", "dictionaries", "sms", "sender_checks", "arrivals", "retries", "consents", "answers",
    "answer_events", "delivery_reports", "erasures", "erased", "holds",
)  # fmt: skip

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
