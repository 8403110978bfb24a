"""What each column of opt-outs and of what leaves means; `comments` takes these in among its own."""

from typing import Final

_NUMBER: Final = "who it is about: E.164 with `+`; NULL once the person is erased"
_HMAC: Final = "that number as a hash under the archive's key: it blocks when the person is erased, too"
_SCOPE: Final = "the number of ours that it is for; `*`: every one"
_KIND: Final = (
    "`stop`, `start`: an SMS says so; `review`: an SMS that may; `provider`: the provider says so; "
    "`import`: of another program's list; `add`, `remove`: by a person; `dismiss`: a person says that a "
    "review is neither"
)
_REASON: Final = "what a person wrote, else by which rule the SMS was read so"
_SMS: Final = "the SMS that proves it; NULL where none does"
_SALT: Final = "32 random bytes: what is hashed with them cannot be guessed once the row is erased"
_ANSWER: Final = {
    "id": "number of the message, or of the decision to send none",
    "kind": (
        "`answer` (by a rule), `command` (`ingestor send`), `simulation` (with `--simulate`) or `resend`"
    ),
    "sms_id": "which SMS is answered; NULL for a command",
    "rule": "by which rule; NULL for a command or a resend",
    "resend_of": "the message that it sends again",
    "message_id": "`globalId` and `ids[0]` of the request; reports name it",
    "our_number": "the number of ours that the SMS was for",
    "sender": "whom the message comes from",
    "encoding": "`GSM 7-bit`, `UCS-2` or `HEX`",
    "parts": "in how many parts it goes",
    "options": "parameters of the request that are not the defaults, as JSON",
    "decided_at": "when it was decided, by the database's clock",
    "suppressed": "why it is not sent; NULL where it is",
    "reason": "a person's words: why it was sent although the number is out",
}
_REPORT: Final = {
    "message_id": "the message that it is about",
    "status": (
        "`accepted`, `buffered`, `delivered`, `expired`, `rejected`, `deleted`, `undeliverable`, `failed`, "
        "`unknown`, or `unclear` where no document says what it means"
    ),
    "status_raw": "the word and the number as they came",
    "shape": "which of the documented shapes it has; `other`: none",
    "part": "which part of the message it is about, from 1",
    "parts": "of how many",
    "operator": "the network",
    "price": "what it cost, as it was written",
    "done_at": "when that was, by the provider's clock",
    "arrived_at": "when it reached us",
    "source": "at which endpoint",
}
_TO: Final = "to whom: E.164 with `+`; NULL once the person is erased"

VIEWS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "opt_outs": (
        "who may not be written to now, one row for each number and scope",
        {
            "number": _NUMBER,
            "scope": _SCOPE,
            "since": "when it was closed and never reopened since, by the SMS's own time",
            "kind": "what closed it: `stop`, `provider`, `import` or `add`",
            "sms_id": _SMS,
            "reason": _REASON,
            "reopened": (
                "with the scope `*`: numbers of ours that a START has reopened since, each between blanks"
            ),
            "event_id": "number of the event that closed it",
            "number_hmac": _HMAC,
        },
    ),
    "opt_out_events": (
        "one row for each event about being written to; a START is one only where it undid something",
        {
            "id": "number of the event",
            "at": "when it counts from: the time of the SMS, or of a person's decision",
            "kind": _KIND,
            "number": _NUMBER,
            "scope": _SCOPE,
            "sms_id": _SMS,
            "reason": _REASON,
            "noted_at": "when it became durable here",
            "number_hmac": _HMAC,
        },
    ),
    "answers_sent": (
        "one row a message, and one a decision to send none",
        {
            **{name: _ANSWER[name] for name in ("id", "kind", "sms_id", "rule", "resend_of", "message_id")},
            "number": _TO,
            "our_number": _ANSWER["our_number"],
            "sender": _ANSWER["sender"],
            "text": "what is sent; NULL once erased",
            **{name: _ANSWER[name] for name in ("encoding", "parts", "options", "decided_at")},
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
            "suppressed": _ANSWER["suppressed"],
            "reason": _ANSWER["reason"],
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
            "id": "number of the report",
            "message_id": _REPORT["message_id"],
            "answer_id": "its row in `answers_sent`; NULL: none is known, yet",
            "destination": _TO,
            **{name: says for name, says in _REPORT.items() if name != "message_id"},
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

TABLES: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "consents": (
        "append-only: what opts a number out or in again, or may, without the number itself",
        {
            "id": "number of the event",
            "number_hmac": _HMAC,
            "scope": _SCOPE,
            "kind": _KIND + "; `nearly_start`: a `review` where the sender is out, else nothing",
            "effect": "`out`, `in` or `none`, as follows from the kind",
            "at": "when it counts from: the time of the SMS, or of a person's decision",
            "sms_id": _SMS,
            "rule": "by which rule the SMS was read so",
            "noted_at": "when it became durable here",
        },
    ),
    "consent_content": (
        "erasable: whom an event is about, and what a person wrote",
        {
            "consent_id": "the event",
            "number": "the number: E.164 with `+`",
            "reason": "what a person wrote",
            "salt": "32 random bytes: what is hashed with them cannot be guessed once the row is erased",
        },
    ),
    "consent_scans": (
        "how far the SMS of earlier programs have been read for opt-outs: one row",
        {
            "id": "always 1",
            "words": "a hash of the words that are looked for",
            "after_id": "SMS up to this one have been read",
            "until_id": "SMS up to this one are read; NULL: that has not begun",
            "started_at": "when it began",
            "finished_at": "when it was done; NULL: who is out cannot be told yet",
        },
    ),
    "answers": (
        "append-only: one row a decision to send, or not to",
        {
            **_ANSWER,
            "number_hmac": "the number it goes to, as a hash under the archive's key",
            "text_hmac": "the text as such a hash: equal ones are known when they are erased, too",
            "expects_report": "whether a report was asked for",
        },
    ),
    "answer_content": (
        "erasable: to whom, and what",
        {"answer_id": "the message", "number": "the number", "text": "the text", "salt": _SALT},
    ),
    "answer_events": (
        "append-only: what became of each request; of all who claim one, one wins",
        {
            "id": "number of the event",
            "answer_id": "the message",
            "attempt": "which request for it, from 1",
            "event": (
                "`sending` (the claim, before the request), `sent`, `later` (refused for now), `refused`, "
                "`not_sent`, `unknown` or `suppressed`"
            ),
            "at": "when, by the database's clock",
            "code": "what Agile answered, by number",
            "detail": "the same in words",
            "again_at": "after `later`: not before",
            "credit": "what was left of the account, in EUR",
        },
    ),
    "delivery_reports": (
        "append-only: one row each time a report came",
        {
            "id": "number of the report",
            "post": "UUID given to the POST on receipt",
            "number": "its place among the reports of the POST, from 0",
            "report_hmac": "what equal reports have in common, as a hash under the archive's key",
            **_REPORT,
            "run_id": "the run that took it",
        },
    ),
    "delivery_report_content": (
        "erasable: whom a report is about, and its bytes",
        {
            "report_id": "the report",
            "destination": "the number",
            "content_type": "Content-Type of the POST",
            "payload": "body of the POST as it came, as one zstd frame",
            "salt": _SALT,
        },
    ),
    "answering": (
        "what all daemons of an archive must agree on",
        {
            "name": (
                "`rule:NAME` and `mailbox:NAME` (since when each counts), `paused`, `probe`, `credit`, "
                "`credit poll`, `clock agile`"
            ),
            "value": "what stands under it",
            "at": "since when, or when last",
        },
    ),
}
