"""The tables of book-keeping: mutable, and without a word of anybody."""

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip

from ingestor.archive.columns import Big, Instant, Small, col, new_table

runs = new_table(
    "runs",
    "one row a command that read something; `read` is the sum of what follows, as the database enforces",
    col("id", Big, "number of the run"),
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
    PrimaryKeyConstraint("id"),
    CheckConstraint("read = stored + duplicate + ignored + quarantined + failed", name="balance"),
)  # fmt: skip

run_inputs = new_table(
    "run_inputs", "the files of an import, and how far each was read",
    col("id", Big, "number of the input"),
    col("run_id", Big, "the run"),
    col("path", Text, "the file"),
    col("member", Text, "the way into it, where it is an archive", server_default=text("''")),
    col("size", Big, "its length, once its end was seen", null=True),
    col("position", Big, "how far it was read", server_default=text("0")),
    col("sha256", LargeBinary, "SHA-256 of what was read", null=True),
    col("updated_at", Instant, "when it moved last"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("run_id", "path", "member"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
)  # fmt: skip

cursors = new_table(
    "cursors", "how far each folder of a mailbox was read",
    col("mailbox", Text, "name of the mailbox"),
    col("folder", Text, "the folder"),
    col("uidvalidity", Big, "its UIDVALIDITY"),
    col("last_uid", Big, "the last UID that was read"),
    col("updated_at", Instant, "when it moved last"),
    col("accounts", Text, "under which names the mailbox was reached, a line each", null=True),
    col("uids", Text, "which UIDs stood in it then", null=True),
    col("marks", LargeBinary, "by which their mails are known again", null=True),
    PrimaryKeyConstraint("mailbox", "folder"),
)  # fmt: skip

pending = new_table(
    "pending", "what is still to be fetched from a mailbox, or done there",
    col("mailbox", Text, "name of the mailbox"),
    col("folder", Text, "the folder"),
    col("uidvalidity", Big, "its UIDVALIDITY"),
    col("uid", Big, "UID of the mail"),
    col("action", Text, "`fetch`, `seen`, `move` or `delete`"),
    col("attempts", Integer, "how often it failed", server_default=text("0")),
    col("reason", Text, "why it failed last", null=True),
    col("noted_at", Instant, "since when it waits"),
    col("tried_at", Instant, "when it was tried last", null=True),
    col("content_key", LargeBinary, "the mail that it is to be done to, as in `arrivals`", null=True),
    PrimaryKeyConstraint("mailbox", "folder", "uidvalidity", "uid", "action"),
)  # fmt: skip

leases = new_table(
    "leases", "which program acts on a mailbox",
    col("name", Text, "what for"),
    col("holder", Text, "which program"),
    col("expires_at", Instant, "until when, by the database's clock"),
    PrimaryKeyConstraint("name"),
)  # fmt: skip

sources = new_table(
    "sources", "how each mailbox and endpoint fares",
    col("name", Text, "its name"),
    col("kind", Text, "`mailbox` or `webhook`"),
    col("state", Text, "how it is"),
    col("detail", Text, "what is wrong with it", null=True),
    col("poll_seconds", Integer, "how often it is looked at", null=True),
    col("last_success", Instant, "when it last went well", null=True),
    col("updated_at", Instant, "when this was written"),
    PrimaryKeyConstraint("name"),
)  # fmt: skip

conditions = new_table(
    "conditions", "what is wrong now, and who was told of it",
    col("condition", Text, "its kind"),
    col("subject", Text, "what it is about"),
    col("host", Text, "the machine that it concerns alone, else empty"),
    col("state", Text, "open, told, or over"),
    col("says", Text, "what is wrong"),
    col("fix", Text, "what to do"),
    col("grave", Small, "1 where somebody is needed now"),
    col("began_at", Instant, "since when"),
    col("gone_at", Instant, "since when it is not seen any more", null=True),
    col("owed", Text, "which channels have still to hear of its state"),
    PrimaryKeyConstraint("condition", "subject", "host"),
    CheckConstraint("state IN ('open', 'told', 'over')", name="state"),
)  # fmt: skip

look_alikes = new_table(
    "look_alikes", "ignored mails that had something of an SMS",
    col("run_id", Big, "the run"),
    col("source", Text, "where they came from"),
    col("missing", Text, "what they lacked beside the sender"),
    col("number", Big, "how many"),
    col("last_at", Instant, "when last"),
    PrimaryKeyConstraint("run_id", "source", "missing"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
)  # fmt: skip
