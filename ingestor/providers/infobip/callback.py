"""Infobip's inbound webhook in its default format MO_JSON_2: several results in one request, answered 200.

    {"results": [{"messageId": "817790313235066447", "from": "385916242493", "to": "385921004026",
                  "text": "QUIZ Correct answer is Paris", "cleanText": "Correct answer is Paris",
                  "keyword": "QUIZ", "receivedAt": "2016-10-06T09:28:39.220+0000", "smsCount": 1,
                  "price": {"pricePerMessage": 0, "currency": "EUR"}, "callbackData": "callbackData"}],
     "messageCount": 1, "pendingMessageCount": 0}

Source: Infobip's "Receive inbound SMS messages". Numbers come without plus; `receivedAt` has an offset
without colon; `text` holds the keyword, `cleanText` does not. Each result is an item of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ingestor.numbers import normalise_plusless
from ingestor.providers.contract import Answer, Post, Readable, Rules, Unreadable
from ingestor.providers.posts import Cleaner, as_string, counted, read_json, require_ours, required, string
from ingestor.record import InboundSms
from ingestor.timestamps import TimeQuality, as_fourteen_digits, read_instant

PARSER = "infobip.callback/1"
ACCEPTED = Answer(200, "text/plain", b"")

_MOST_RESULTS = 1000
_COLUMNS = {"messageId", "from", "to", "text", "cleanText", "keyword"}


def read_post(post: Post, rules: Rules) -> Sequence[Readable | Unreadable]:
    """Return one reading a result, in their order; none where `results` is an empty list."""
    try:
        document, charset = read_json(post)
        results = document["results"] if isinstance(document, dict) else None
    except (ValueError, KeyError) as fault:
        reason = "there are no results" if isinstance(fault, KeyError) else str(fault)
        return [Unreadable(reason, PARSER)]
    if not isinstance(results, list):
        return [Unreadable("results is not a list", PARSER)]
    if len(results) > _MOST_RESULTS:
        return [Unreadable(f"more than {_MOST_RESULTS} results in one request", PARSER)]
    envelope = {key: value for key, value in document.items() if key != "results"}
    return [_reading(result, envelope, charset, rules) for result in results]


def _reading(result: Any, envelope: Mapping[str, Any], charset: str, rules: Rules) -> Readable | Unreadable:
    if not isinstance(result, dict):
        return Unreadable("the result is not an object", PARSER)
    try:
        return Readable(_read(result, envelope, charset, rules), PARSER)
    except ValueError as fault:
        return Unreadable(str(fault), PARSER)


def _read(result: dict[str, Any], envelope: Mapping[str, Any], charset: str, rules: Rules) -> InboundSms:
    cleaner = Cleaner()
    sender = cleaner.string(required(result, "from"))
    recipient = cleaner.string(required(result, "to"))
    text = string(result.get("text"))
    if text is None:
        raise ValueError("text is missing (an MMS has none)")
    originator = normalise_plusless(sender)
    destination = normalise_plusless(recipient)
    require_ours(destination.value, rules)
    try:
        received_at = read_instant(required(result, "receivedAt"))
    except (ValueError, OverflowError):
        raise ValueError("receivedAt is no time with an offset") from None
    details = cleaner.value({key: value for key, value in result.items() if key not in _COLUMNS})
    if envelope:
        details["envelope" if "request" in details else "request"] = cleaner.value(envelope)
    text = cleaner.text(text)
    keyword = string(result.get("keyword"))
    keyword = None if keyword is None else cleaner.string(keyword)
    clean_text = string(result.get("cleanText"))
    clean_text = None if clean_text is None else cleaner.text(clean_text)
    for name, reader in (("keyword", string), ("cleanText", string), ("messageId", as_string)):
        cleaner.keep_odd(details, result, name, reader)
    identity = cleaner.string(as_string(result.get("messageId")) or "") or None
    cleaner.note(details, charset)
    return InboundSms(
        provider="infobip",
        originator=originator.value,
        originator_kind=originator.kind,
        originator_raw=sender,
        destination=destination.value,
        destination_raw=recipient,
        date_time=as_fourteen_digits(received_at),
        received_at=received_at,
        time_quality=TimeQuality.OK,
        text=text,
        keyword=keyword,
        clean_text=clean_text,
        provider_message_id=identity,
        segments=counted(result.get("smsCount")),
        details=details,
    )
