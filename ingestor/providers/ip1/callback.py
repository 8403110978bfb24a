"""IP1's inbound callback: one JSON object a request, answered 200; anything else is sent again later.

    {"id": "5c613848879973045cf39ac4", "batchId": "5c613848879973045cf39ac3", "owner": "ip1-XXXXX",
     "sender": "46712345678", "recipient": "456189040623", "body": "Hi my name is earl", "direction": "mo",
     "segments": 1, "type": "SMS", "datacoding": "GSM", "priority": 1,
     "statuses": [{"created": "2018-10-23T17:43:21Z", "code": 201, "duration": 1}],
     "modified": "2018-10-23T17:43:19Z", "mcc": "431", "mnc": "20"}

Source: IP1's "Receive incoming SMS". Numbers come without plus. Its own older sample says `mt` where the
text promises `mo`, so a strange direction is flagged and never refused.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ingestor.numbers import normalise_plusless
from ingestor.providers.contract import Answer, Post, Readable, Rules, Unreadable
from ingestor.providers.posts import Cleaner, as_string, counted, read_json, require_ours, required, string
from ingestor.record import InboundSms
from ingestor.timestamps import TimeQuality, as_fourteen_digits, read_instant

PARSER = "ip1.callback/1"
ACCEPTED = Answer(200, "text/plain", b"")

_COLUMNS = {"id", "sender", "recipient", "body"}


def read_post(post: Post, rules: Rules) -> Sequence[Readable | Unreadable]:
    """Return the one reading of an IP1 callback."""
    try:
        document, charset = read_json(post)
        return [Readable(_read(document, charset, rules), PARSER)]
    except ValueError as fault:
        return [Unreadable(str(fault), PARSER)]


def _read(document: Any, charset: str, rules: Rules) -> InboundSms:
    message = document if isinstance(document, dict) else None
    if message is None:
        raise ValueError("the body is not one JSON object")
    cleaner = Cleaner()
    sender = cleaner.string(required(message, "sender"))
    recipient = cleaner.string(required(message, "recipient"))
    body = string(message.get("body"))
    if body is None:
        raise ValueError("body is missing")
    originator = normalise_plusless(sender)
    destination = normalise_plusless(recipient)
    require_ours(destination.value, rules)
    received_at = _time(message)
    text = cleaner.text(body)
    identity = cleaner.string(as_string(message.get("id")) or "") or None
    details = cleaner.value({key: value for key, value in message.items() if key not in _COLUMNS})
    if message.get("direction") != "mo":
        details["our_flags" if "flags" in details else "flags"] = ["direction is not mo"]
    cleaner.keep_odd(details, message, "id", as_string)
    cleaner.note(details, charset)
    return InboundSms(
        provider="ip1",
        originator=originator.value,
        originator_kind=originator.kind,
        originator_raw=sender,
        destination=destination.value,
        destination_raw=recipient,
        date_time=as_fourteen_digits(received_at),
        received_at=received_at,
        time_quality=TimeQuality.OK,
        text=text,
        provider_message_id=identity,
        segments=counted(message.get("segments")),
        details=details,
    )


def _time(message: dict[str, Any]) -> datetime:
    """Return when the message entered IP1: the first status, else the last change."""
    statuses = message.get("statuses")
    first = statuses[0] if isinstance(statuses, list) and statuses else None
    for candidate in (first.get("created") if isinstance(first, dict) else None, message.get("modified")):
        try:
            return read_instant(candidate if isinstance(candidate, str) else "")
        except (ValueError, OverflowError):
            continue
    raise ValueError("neither statuses[0].created nor modified is a time with an offset")
