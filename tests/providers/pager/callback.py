"""Pager's callback: one JSON object.

{"from": "447009000001", "to": "447009000009", "at": "2026-05-14T10:23:01Z", "text": "Beep by POST"}
"""

from collections.abc import Sequence
from typing import Any

from ingestor.numbers import normalise_plusless
from ingestor.providers.contract import Answer, Post, Readable, Rules, Unreadable
from ingestor.providers.posts import Cleaner, read_json, require_ours, required
from ingestor.record import InboundSms
from ingestor.timestamps import TimeQuality, as_fourteen_digits, read_instant

PARSER = "pager.callback/1"
ACCEPTED = Answer(200, "text/plain", b"beep")


def read_post(post: Post, rules: Rules) -> Sequence[Readable | Unreadable]:
    """Return the one reading of a callback."""
    try:
        return [Readable(record(read_json(post)[0], rules), PARSER)]
    except (ValueError, AttributeError) as fault:
        return [Unreadable(str(fault), PARSER)]


def record(fields: dict[str, Any], rules: Rules) -> InboundSms:
    """Return the record of the four fields. Raises ValueError where they are none of ours."""
    sender, recipient = required(fields, "from"), required(fields, "to")
    destination = normalise_plusless(recipient).value
    require_ours(destination, rules)
    at = read_instant(required(fields, "at"))
    originator = normalise_plusless(sender)
    return InboundSms(
        "pager", originator.value, originator.kind, sender, destination, recipient, as_fourteen_digits(at),
        at, TimeQuality.OK, Cleaner().text(required(fields, "text")),
    )  # fmt: skip
