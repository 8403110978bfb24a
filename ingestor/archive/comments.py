"""What each column means: the comments in a PostgreSQL database, and the tables of AUDITING.md.

SQLite keeps no comments; there the document stands alone. A test holds that every table, view and column is
in here, and that the document says the same.
"""

from collections.abc import Iterator
from typing import Final

from ingestor.archive import reply_comments

_COUNTERS: Final = {
    "read": "how many items it read; the others add up to it",
    "stored": "of these, new SMS",
    "duplicate": "of these, SMS that were there already",
    "ignored": "of these, not ours",
    "quarantined": "of these, ours but unreadable",
    "failed": "of these, could not be fetched or written; tried again",
}
_SALT: Final = "32 random bytes: what is hashed with them cannot be guessed once the row is erased"
_ITEM: Final = {
    "channel": "how it reached us: `mailbox`, `webhook` or `import`",
    "source": "from which mailbox, endpoint or file",
    "outcome": "what became of it: `stored`, `duplicate` or `quarantined`",
    "reason": "why it could not be read; NULL where it could",
    "arrived_at": "when it reached us",
    "ingested_at": "when it became durable here",
    "folder": "folder of a mailbox",
    "uidvalidity": "UIDVALIDITY of that folder",
    "uid": "UID of the mail there",
    "byte_offset": "where it begins in that file or member",
    "byte_length": "how many bytes it takes there",
    "number": "its place among the items of one POST, from 0; 0 for a mail",
    "sender_verified": "whether a sender check passed; NULL: none was made",
    "size": "bytes of the mail or POST; NULL for further items of a POST",
    "parser": "what read it, or could not",
    "run_id": "the run that read it",
}
_WHO: Final = {
    "input": "path of the file that an import found it in",
    "member": "where in that file it lay, if it is an archive",
    "subject": "subject of the mail",
    "message_id": "Message-ID of the mail",
    "peer": "address that sent the POST",
}
_CHECK: Final = {
    "method": "how the sender was checked: `dkim`, `rfc8601` or `exchange-online`",
    "finding": "what was found, in words; `pass` where the sender was proven",
    "domain": "the domain that signed, where it is the sender's; else NULL",
    "selector": "under which name the domain's key was found in the DNS",
    "public_key": "the DNS record of the key as it was that day: keys change",
}
_SMS: Final = {
    "provider": "`agile`, `infobip` or `ip1`",
    "originator_kind": "`msisdn` (phone number), `short` (short code), `alpha` (name) or `unknown`",
    "destination": "the number it was sent to",
    "date_time": "the provider's 14 digits `YYYYMMDDHHMMSS` as sent (UTC where it sends an instant)",
    "received_at": "when the provider received it, in UTC",
    "time_quality": (
        "`ok`; `ambiguous`: in the hour that happens twice; `nonexistent`: in the hour that is skipped"
    ),
    "provider_message_id": "the provider's id, where it gives one (Agile gives none)",
    "segments": "of how many parts it was made, where known",
    "ingested_at": "when it became durable here",
}
_TEXTS: Final = {
    "originator": "the sender: E.164 with `+`; a name or short code as it came",
    "text": "the SMS with LF line ends; an empty SMS is `''`, an erased one NULL",
    "keyword": "keyword, where the provider tells it apart",
    "clean_text": "text without the keyword, where the provider tells it apart",
}
_ERASED: Final = {
    "erased_at": "when its content was erased; NULL where it was not",
    "erasure_basis": "why it was erased, as a code",
}
_ID: Final = (
    "number of the SMS in this archive; numbers may be skipped (a duplicate uses one up), never reused"
)

VIEWS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "inbound_sms": (
        "one row an SMS",
        {
            "id": _ID,
            "provider": _SMS["provider"],
            "channel": "how it first arrived: `mailbox`, `webhook` or `import`",
            "originator": _TEXTS["originator"],
            **{name: _SMS[name] for name in ("originator_kind", "destination", "date_time", "received_at")},
            "time_quality": _SMS["time_quality"],
            **{name: _TEXTS[name] for name in ("text", "keyword", "clean_text")},
            "provider_message_id": _SMS["provider_message_id"],
            "segments": _SMS["segments"],
            "arrivals": (
                "how many times it reached us, by whatever way; each copy that an import found at another "
                "place counts"
            ),
            "sender_verified": _ITEM["sender_verified"],
            "ingested_at": _SMS["ingested_at"],
            **_ERASED,
        },
    ),
    "quarantine": (
        "what was addressed to us but could not be read",
        {
            "id": "number of the arrival; `ingestor quarantine show ID`",
            "arrived_at": _ITEM["arrived_at"],
            "channel": _ITEM["channel"],
            "source": _ITEM["source"],
            "reason": (
                "why it could not be read; the newest verdict counts. `sender_not_listed`, "
                "`forwarder_not_listed`: it looks like ours, from somebody else; `ingestor quarantine list` "
                "says from whom"
            ),
            "subject": "of the mail (NULL for a POST)",
            "size": "of the mail or POST in bytes",
            "retries": "how often it was read again since",
        },
    ),
    "arrivals_detail": (
        "one row each time an item reached us, with where it came from",
        {
            "id": "number of the arrival",
            "sms_id": "the SMS that it became or is a copy of, also by a later retry; NULL in quarantine",
            **{name: _ITEM[name] for name in ("channel", "source", "outcome", "reason", "arrived_at")},
            "ingested_at": _ITEM["ingested_at"],
            **{name: _ITEM[name] for name in ("folder", "uidvalidity", "uid")},
            "input": _WHO["input"],
            "member": _WHO["member"],
            **{name: _ITEM[name] for name in ("byte_offset", "byte_length", "number")},
            **{name: _WHO[name] for name in ("subject", "message_id", "peer")},
            "sender_verified": _ITEM["sender_verified"],
            "size": _ITEM["size"],
            "payload_id": "the arrival with which its raw bytes are kept (`payloads.arrival_id`)",
            "parser": _ITEM["parser"],
            "run_id": _ITEM["run_id"],
            **_ERASED,
            **{f"sender_{name}": meaning for name, meaning in _CHECK.items()},
        },
    ),
    "erasures_done": (
        "one row an erasure: when, why and how much, without a word of what it was",
        {
            "plan_id": "number of the plan",
            "basis": "why, as a code",
            "batches": "in how many transactions",
            "sms": "how many SMS lost sender, text and details",
            "arrivals": "how many arrivals lost what may name a person",
            "payloads": "how many raw mails and POSTs went",
            "others": "how many contents of opt-outs, answers, reports and holds went",
            "began_at": "when its first batch was done",
            "ended_at": "when its last one was",
        },
    ),
    **reply_comments.VIEWS,
}

TABLES: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "sms": (
        "append-only: one row an SMS, without personal content",
        {
            "id": _ID,
            "fingerprint": "what makes it unique: its time, and a hash under the archive's key",
            "fingerprint_version": "the form that the hash was taken over",
            **_SMS,
        },
    ),
    "sms_content": (
        "erasable: what the SMS says and who sent it",
        {
            "sms_id": "the SMS",
            "originator": _TEXTS["originator"],
            "originator_raw": "the sender as it came",
            "destination_raw": "the number it was sent to, as it came",
            **{name: _TEXTS[name] for name in ("text", "keyword", "clean_text")},
            "details": "what else the provider said, as JSON",
            "salt": _SALT,
        },
    ),
    "arrivals": (
        "append-only: one row each time an item reached us",
        {
            "id": "number of the arrival",
            "content_key": "what tells its bytes apart: their day, and a hash under the archive's key",
            "place": (
                "where an import found them, as a hash under the archive's key: file and member, without "
                "a Maildir's flags, and the how-manieth copy in them; empty for other channels"
            ),
            **_ITEM,
            "sms_id": "the SMS that it became or was a copy of; NULL where it could not be read then",
            "sender_check_id": "what the check of its sender found; NULL: none was made",
        },
    ),
    "sender_checks": (
        "append-only: what checks of the sender found, once for all mails of which it is the same",
        {"id": "8 bytes of SHA-256 over the other columns", **_CHECK},
    ),
    "arrival_content": (
        "erasable: what of an arrival may name a person",
        {"arrival_id": "the arrival", **_WHO, "salt": _SALT},
    ),
    "payloads": (
        "erasable: the raw bytes, once for all copies that an import found",
        {
            "arrival_id": "the first arrival of these bytes",
            "content_type": "Content-Type of a POST",
            "size": "bytes of the whole; of a very large mail only the beginning is kept",
            "sha256": "SHA-256 of the bytes that are kept",
            "dictionary_id": "what they are compressed against; NULL: nothing",
            "compressed": "the bytes as one zstd frame",
            "salt": _SALT,
        },
    ),
    "retries": (
        "append-only: later verdicts on what stood in the quarantine",
        {
            "id": "number of the verdict",
            "arrival_id": "the arrival",
            "outcome": "`stored`, `duplicate`, `quarantined` (still unreadable) or `discarded`",
            "reason": "why it stays, or why it was discarded",
            "sms_id": "the SMS that it became",
            "parser": "what read it, or could not",
            "run_id": "the run that read it again",
            "retried_at": "when",
        },
    ),
    "dictionaries": (
        "append-only: what raw bytes are compressed against",
        {"id": "its number", "bytes": "a zstd dictionary", "created_at": "when it came here"},
    ),
    "archive_key": (
        "append-only: the secret of all hashes; in no view, snapshot or export",
        {"id": "always 1", "secret": "32 random bytes", "created_at": "when it was made"},
    ),
    "sms_words": (
        "erasable: the texts of SMS without case and accents, to find words in; the newest may be missing",
        {"sms_id": "the SMS", "words": "its text, in small letters without accents"},
    ),
    "sms_numbers": (
        "erasable: both numbers of an SMS as hashes under the archive's key, to find them in every form",
        {
            "sms_id": "the SMS",
            "originator": "8 bytes of HMAC-SHA-256 over the sender's digits, or the letters of a name",
            "destination": "likewise of the number it was sent to",
        },
    ),
    "erasures": (
        "append-only: one row a batch of an erasure",
        {
            "id": "number of the batch in this archive",
            "plan_id": "the plan that it is part of",
            "batch": "its number in the plan",
            "basis": "why, as a code",
            "sms": "how many SMS lost their content",
            "arrivals": "how many arrivals lost theirs",
            "payloads": "how many raw mails and POSTs went with them",
            "others": "how many contents of opt-outs, answers, reports and holds went",
            "erased_at": "when",
        },
    ),
    "erased": (
        "append-only: which rows an erasure took the content of",
        {
            "kind": "of what: `sms`, `arrival` (its raw bytes too), `consent`, `answer`, `report`, `hold`",
            "row_id": "the id of that row",
            "erasure_id": "the batch that took it",
        },
    ),
    "holds": (
        "append-only: what may not be erased; a row begins a hold or ends one",
        {
            "id": "number of the hold",
            "number_key": "all SMS of this number, hashed as in `sms_numbers`",
            "sms_id": "this SMS",
            "arrival_id": "this arrival in the quarantine",
            "ends": "the hold that this row ends",
            "noted_at": "when",
        },
    ),
    "hold_content": (
        "erasable: who is meant by a hold, and why",
        {"hold_id": "the hold", "number": "the number, as it was given", "reason": "why", "salt": _SALT},
    ),
    "runs": (
        "one row a command that read something; `read` is the sum of what follows, as the database enforces",
        {
            "id": "number of the run",
            "command": "what ran",
            "options": "how it was called, as JSON",
            "version": "of the program",
            "started_at": "when it began",
            "ended_at": "when it ended; NULL while it runs, or where it was killed",
            **_COUNTERS,
            "mark": "the program's own",
        },
    ),
    "run_inputs": (
        "the files of an import, and how far each was read",
        {
            "id": "number of the input",
            "run_id": "the run",
            "path": "the file",
            "member": "the way into it, where it is an archive",
            "size": "its length, once its end was seen",
            "position": "how far it was read",
            "sha256": "SHA-256 of what was read",
            "updated_at": "when it moved last",
        },
    ),
    "conditions": (
        "what is wrong now, and who was told of it",
        {
            "condition": "its kind",
            "subject": "what it is about",
            "host": "the machine that it concerns alone, else empty",
            "state": "open, told, or over",
            "says": "what is wrong",
            "fix": "what to do",
            "grave": "1 where somebody is needed now",
            "began_at": "since when",
            "gone_at": "since when it is not seen any more",
            "owed": "which channels have still to hear of its state",
        },
    ),
    "look_alikes": (
        "ignored mails that had something of an SMS",
        {
            "run_id": "the run",
            "source": "where they came from",
            "missing": "what they lacked beside the sender",
            "number": "how many",
            "last_at": "when last",
        },
    ),
    "cursors": (
        "how far each folder of a mailbox was read",
        {
            "mailbox": "name of the mailbox",
            "folder": "the folder",
            "uidvalidity": "its UIDVALIDITY",
            "last_uid": "the last UID that was read",
            "updated_at": "when it moved last",
            "accounts": "under which names the mailbox was reached, a line each",
            "uids": "which UIDs stood in it then",
            "marks": "by which their mails are known again",
        },
    ),
    "pending": (
        "what is still to be fetched from a mailbox, or done there",
        {
            "mailbox": "name of the mailbox",
            "folder": "the folder",
            "uidvalidity": "its UIDVALIDITY",
            "uid": "UID of the mail",
            "action": "`fetch`, `seen`, `move` or `delete`",
            "attempts": "how often it failed",
            "reason": "why it failed last",
            "noted_at": "since when it waits",
            "tried_at": "when it was tried last",
            "content_key": "the mail that it is to be done to, as in `arrivals`",
        },
    ),
    "leases": (
        "which program acts on a mailbox",
        {"name": "what for", "holder": "which program", "expires_at": "until when, by the database's clock"},
    ),
    "sources": (
        "how each mailbox and endpoint fares",
        {
            "name": "its name",
            "kind": "`mailbox` or `webhook`",
            "state": "how it is",
            "detail": "what is wrong with it",
            "poll_seconds": "how often it is looked at",
            "last_success": "when it last went well",
            "updated_at": "when this was written",
        },
    ),
    **reply_comments.TABLES,
}


def plain(words: str) -> str:
    """Return a meaning as a database keeps it, without the marks that a document needs."""
    return words.replace("`", "")


def statements(kind: str, name: str) -> Iterator[str]:
    """Give what writes the meanings of a `TABLE` or `VIEW` into a PostgreSQL database."""
    meaning, columns = (TABLES if kind == "TABLE" else VIEWS)[name]
    yield f"COMMENT ON {kind} {name} IS {_literal(meaning)}"
    for column, says in columns.items():
        yield f'COMMENT ON COLUMN {name}."{column}" IS {_literal(says)}'


def _literal(words: str) -> str:
    quoted = plain(words).replace("'", "''")
    return f"'{quoted}'"
