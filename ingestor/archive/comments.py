"""What each column means: the comments in a PostgreSQL database, and the tables of AUDITING.md.

Those of tables stand beside the columns; here are those of views, as far as they show no column as it is.
SQLite keeps no comments; there the document stands alone.
"""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Table

from ingestor.archive import tables
from ingestor.archive.tables import (
    answers,
    arrival_content,
    arrivals,
    consents,
    delivery_reports,
    sms,
    sms_content,
)


def _of(table: Table, *names: str) -> dict[str, str]:
    """Return what columns of `table` mean that a view shows as they are."""
    return {name: table.c[name].info["meaning"] for name in names}


_ERASED: Final = {
    "erased_at": "when its content was erased; NULL where it was not",
    "erasure_basis": "why it was erased, as a code",
}
_NUMBER: Final = "who it is about: E.164 with `+`; NULL once the person is erased"
_REASON: Final = "what a person wrote, else by which rule the SMS was read so"
_TO: Final = "to whom: E.164 with `+`; NULL once the person is erased"

VIEWS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "inbound_sms": (
        "one row an SMS",
        {
            **_of(sms, "id", "provider"),
            "channel": "how it first arrived: `mailbox`, `webhook` or `import`",
            **_of(sms_content, "originator"),
            **_of(sms, "originator_kind", "destination", "date_time", "received_at", "time_quality"),
            **_of(sms_content, "text", "keyword", "clean_text"),
            **_of(sms, "provider_message_id", "segments"),
            "arrivals": (
                "how many times it reached us, by whatever way; each copy that an import found at another "
                "place counts"
            ),
            **_of(arrivals, "sender_verified"),
            **_of(sms, "ingested_at"),
            **_ERASED,
        },
    ),
    "quarantine": (
        "what was addressed to us but could not be read",
        {
            "id": "number of the arrival; `ingestor quarantine show ID`",
            **_of(arrivals, "arrived_at", "channel", "source"),
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
            **_of(arrivals, "id"),
            "sms_id": "the SMS that it became or is a copy of, also by a later retry; NULL in quarantine",
            **_of(arrivals, "channel", "source", "outcome", "reason", "arrived_at", "ingested_at", "folder"),
            **_of(arrivals, "uidvalidity", "uid"),
            **_of(arrival_content, "input", "member"),
            **_of(arrivals, "byte_offset", "byte_length", "number"),
            **_of(arrival_content, "subject", "message_id", "peer"),
            **_of(arrivals, "sender_verified", "size"),
            "payload_id": "the arrival with which its raw bytes are kept (`payloads.arrival_id`)",
            **_of(arrivals, "parser", "run_id"),
            **_ERASED,
            **{
                f"sender_{one.name}": one.info["meaning"]
                for one in tables.sender_checks.c
                if one.name != "id"
            },
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
    "opt_outs": (
        "who may not be written to now, one row for each number and scope",
        {
            "number": _NUMBER,
            **_of(consents, "scope"),
            "since": "when it was closed and never reopened since, by the SMS's own time",
            "kind": "what closed it: `stop`, `provider`, `import` or `add`",
            **_of(consents, "sms_id"),
            "reason": _REASON,
            "reopened": (
                "with the scope `*`: numbers of ours that a START has reopened since, each between blanks"
            ),
            "event_id": "number of the event that closed it",
            **_of(consents, "number_hmac"),
        },
    ),
    "opt_out_events": (
        "one row for each event about being written to; a START is one only where it undid something",
        {
            **_of(consents, "id", "at"),
            "kind": consents.c.kind.info["meaning"].partition("; `nearly_start`")[0],  # shown as a review
            "number": _NUMBER,
            **_of(consents, "scope", "sms_id"),
            "reason": _REASON,
            **_of(consents, "noted_at", "number_hmac"),
        },
    ),
    "answers_sent": (
        "one row a message, and one a decision to send none",
        {
            **_of(answers, "id", "kind", "sms_id", "rule", "resend_of", "message_id"),
            "number": _TO,
            **_of(answers, "our_number", "sender"),
            "text": "what is sent; NULL once erased",
            **_of(answers, "encoding", "parts", "options", "decided_at"),
            "state": (
                "`planned`, `sending`, `sent`, `refused`, `not_sent` (never left), `unknown` (it may have "
                "been sent), `suppressed`, `simulated`; by reports `delivered`, `failed`, `no_report` (for "
                "two days)"
            ),
            "delivery": (
                "what the reports say of the whole: the worst of its parts, `partly_delivered` before the "
                "last part is; NULL: none came"
            ),
            "delivered_late": "whether a report of failure came before the one of delivery",
            **_of(answers, "suppressed", "reason"),
            "state_at": "when its last request ended, or began",
            "code": "what Agile answered, by number",
            "detail": "the same in words",
            "attempts": "how many requests were begun",
            "done_at": "the newest time that a report names",
            "operator": "the network that a report names",
        },
    ),
    "delivery_reports_received": (
        "one row a report on a message; equal ones are one row",
        {
            **_of(delivery_reports, "id", "message_id"),
            "answer_id": "its row in `answers_sent`; NULL: none is known, yet",
            "destination": _TO,
            **_of(delivery_reports, "status", "status_raw", "shape", "part", "parts", "operator", "price"),
            **_of(delivery_reports, "done_at", "arrived_at", "source"),
            "times": "how often it came",
        },
    ),
    "conversations": (
        "both directions with each number, one row a message; what was held back is none",
        {
            "number": "the other side: E.164 with `+`; a name or short code as it came; NULL once erased",
            "our_number": "the number of ours; of a message by hand, its sender",
            "at": "when it was received, or when its request ended",
            "direction": "`in` or `out`",
            "text": "what was said; NULL once erased",
            "state": "`received`, or the state of the message as in `answers_sent`",
            "sms_id": "the SMS, or the one that was answered",
            "answer_id": "the row in `answers_sent`; NULL for an SMS",
        },
    ),
}


def of_table(name: str) -> tuple[str, dict[str, str]]:
    """Return what a table means, and each of its columns."""
    table = tables.metadata.tables[name]
    return table.info["meaning"], _of(table, *table.columns.keys())


def plain(words: str) -> str:
    """Return a meaning as a database keeps it, without the marks that a document needs."""
    return words.replace("`", "")


def statements(kind: str, name: str) -> Iterator[str]:
    """Give what writes the meanings of a `TABLE` or `VIEW` into a PostgreSQL database."""
    meaning, columns = of_table(name) if kind == "TABLE" else VIEWS[name]
    yield f"COMMENT ON {kind} {name} IS {_literal(meaning)}"
    for column, says in columns.items():
        yield f'COMMENT ON COLUMN {name}."{column}" IS {_literal(says)}'


def _literal(words: str) -> str:
    quoted = plain(words).replace("'", "''")
    return f"'{quoted}'"
