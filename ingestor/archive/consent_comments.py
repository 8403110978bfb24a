"""What each column of opt-outs means; `comments` takes these in among its own."""

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
}
