"""Agile Telecom's delivery reports: five documented shapes, whose numbers contradict each other.

    {"messageId": "msg-001-20260408", "destination": "+393471234567", "statusCode": 3,
     "description": "Delivered", "doneDate": "2026-04-08 14:35:22.045+0200", "concatTotal": 1,
     "concatProgressive": 1, "lcrOperator": "22210", "realOperator": "22201", "price": 0.005}

Sources: Agile's REST document (`legacy`: 3 is delivered), its guide to delivery reports (`guide`: 3 is
rejected), Qlara's universal API (`universal`), Qlara's webhooks (`qlara`), the guide to webhooks (`webhook`:
words alone). So the keys tell the shape, and the word counts before the number; a number of an unknown shape
stays `unclear`. What Agile expects as an answer is documented nowhere: 200 with `+OK` satisfies both habits.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ingestor.providers.contract import Answer, Post, Report, Rules, Unreadable
from ingestor.providers.posts import A_TEST, TEST_DESTINATION, declared_charset, decode, opened
from ingestor.record import storable
from ingestor.timestamps import read_instant

PARSER = "agile-reports.report/1"
ACCEPTED = Answer(200, "text/plain", b"+OK")

_MOST_REPORTS: Final = 1000
_LONGEST: Final = 200
_MOST_PARTS: Final = 255  # a concatenation header has one byte for it (3GPP TS 23.040)

_WORDS: Final = {
    "accepted": "accepted", "acceptd": "accepted", "sent": "accepted", "enroute": "accepted",
    "buffered": "buffered",
    "delivered": "delivered", "delivrd": "delivered", "read": "delivered", "seen": "delivered",
    "expired": "expired", "rejected": "rejected", "rejectd": "rejected", "deleted": "deleted",
    "undeliverable": "undeliverable", "undeliv": "undeliverable", "notdelivered": "undeliverable",
    "undelivered": "undeliverable", "failed": "failed", "error": "failed", "unknown": "unknown",
}  # fmt: skip
_CODES: Final[Mapping[str, Mapping[int, str]]] = {
    "legacy": {
        1: "accepted", 2: "rejected", 3: "delivered", 4: "expired", 5: "deleted", 6: "undeliverable",
    },
    "guide": {
        0: "delivered", 1: "buffered", 2: "expired", 3: "rejected", 4: "undeliverable", 5: "unknown",
        6: "failed",
    },
    "universal": {3: "delivered", 6: "undeliverable"},
    "qlara": {3: "delivered"},
}  # fmt: skip
# The first shape whose keys are all there; none of these keys stands in a shape below it.
_SHAPES: Final = (
    ("guide", ("globalId", "submitDate")),
    ("legacy", ("messageId", "doneDate")),
    ("universal", ("messageId", "statusDescription")),
    ("universal", ("messageId", "totalParts")),
    ("webhook", ("messageId", "phoneNumber")),
    ("qlara", ("messageId", "eventType")),
)
# Where several stand the first is ours: what we gave, before what they made of it.
_IDS: Final = {"guide": ("id",), "qlara": ("customerMessageId", "messageId")}
_IDS_OF_OTHERS: Final = ("customerMessageId", "messageId", "id", "globalId")


def read_post(post: Post, rules: Rules) -> Sequence[Report | Unreadable]:  # noqa: ARG001 - the contract's
    """Return the report of a POST, or of each object in it where it holds a list."""
    try:
        text, _ = decode(opened(post).body, declared_charset(post.content_type))
        document = json.loads(text, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return [Unreadable("the body is not JSON", PARSER)]
    reports = document if isinstance(document, list) else [document]
    if not reports or len(reports) > _MOST_REPORTS:
        return [Unreadable(f"there are not 1 to {_MOST_REPORTS} reports in it", PARSER)]
    return [_reading(report) for report in reports]


def _reading(report: Any) -> Report | Unreadable:
    if not isinstance(report, dict):
        return Unreadable("the report is not an object", PARSER)
    if report.get("eventType") == "INBOUND":
        return Unreadable("it is an inbound message, not a report", PARSER)
    shape = next((name for name, keys in _SHAPES if all(key in report for key in keys)), "other")
    message_id = _first(report, _IDS.get(shape, _IDS_OF_OTHERS))
    if not message_id:
        return Unreadable("the report names no message", PARSER)
    destination = _first(report, ("destination", "phoneNumber"))
    if destination == TEST_DESTINATION:
        return Unreadable(A_TEST, PARSER)
    word, code = _first(report, ("status", "description", "statusDescription")), report.get("statusCode")
    event = report.get("eventType")
    word = word or (event if isinstance(event, str) and event != "DELIVERY" else None)
    part, parts = _parts(report)
    return Report(
        PARSER, shape, message_id, _status(shape, word, code), _raw(word, code), part, parts, destination,
        _first(report, ("realOperator", "operator", "lcrOperator")), _first(report, ("price",)),
        _done_at(report),
    )  # fmt: skip


def _status(shape: str, word: str | None, code: Any) -> str:
    known = _WORDS.get(re.sub(r"[^a-z]", "", (word or "").casefold()))
    if known is not None:
        return known
    number = int(code) if isinstance(code, str) and re.fullmatch(r"[0-9]{1,3}", code) else code
    if isinstance(number, bool) or not isinstance(number, int):
        return "unclear"
    return _CODES.get(shape, {}).get(number, "unclear")


def _raw(word: str | None, code: Any) -> str:
    number = "" if code is None else _text(code) or ""
    return f"{word or ''}/{number}"[:_LONGEST]


def _parts(report: Mapping[str, Any]) -> tuple[int, int]:
    part, parts = (
        next((value for name in names if isinstance(value := report.get(name), int)), 1)
        for names in (("concatProgressive", "numPart"), ("concatTotal", "totalParts"))
    )
    parts = min(max(int(parts), 1), _MOST_PARTS)
    return min(max(int(part), 1), parts), parts


def _done_at(report: Mapping[str, Any]) -> datetime | None:
    """Return when it was determined, by the offset that it carries; None without one."""
    written = _first(report, ("doneDate", "timestamp"))
    try:
        return None if written is None else read_instant(written)
    except (ValueError, OverflowError):
        return None


def _first(report: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((text for name in names if (text := _text(report.get(name)))), None)


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return storable(str(value).strip()[:_LONGEST])[0] or None
