"""IP1's callback: one object, its two times, and a direction that its own sample gets wrong."""

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingestor.providers.contract import Post, Readable, Rules, Unreadable
from ingestor.providers.ip1 import callback

MESSAGE = {
    "id": "1", "sender": "46712345678", "recipient": "456189040623", "body": "hej", "direction": "mo",
    "statuses": [{"created": "2018-10-23T17:43:21Z"}], "modified": "2018-10-23T17:43:19Z",
}  # fmt: skip


def _read(**changes: Any) -> Readable | Unreadable:
    body = json.dumps(MESSAGE | changes).encode()
    post = Post(body, b"", "application/json", datetime(2026, 11, 22, tzinfo=UTC))
    [reading] = callback.read_post(post, Rules(zone=ZoneInfo("UTC")))
    return reading


@pytest.mark.parametrize(
    ("changes", "digits"),
    [
        ({}, "20181023174321"),
        ({"statuses": []}, "20181023174319"),
        ({"statuses": None}, "20181023174319"),
        ({"statuses": ["x"]}, "20181023174319"),
        ({"statuses": [{"created": "soon"}]}, "20181023174319"),
        ({"modified": None}, "20181023174321"),
    ],
)
def test_the_first_status_gives_the_time_else_the_last_change(changes: dict[str, Any], digits: str) -> None:
    """An incoming message has one status, made when it entered IP1."""
    reading = _read(**changes)

    assert isinstance(reading, Readable)
    assert reading.sms.date_time == digits


def test_without_any_time_it_is_quarantined() -> None:
    """No time is made up."""
    assert isinstance(_read(statuses=[], modified="today"), Unreadable)


@pytest.mark.parametrize("direction", ["mt", None, 7, "MO"])
def test_a_strange_direction_is_flagged_and_kept(direction: Any) -> None:
    """IP1's older sample says mt for a received SMS: refusing it would lose messages."""
    reading = _read(direction=direction)

    assert isinstance(reading, Readable)
    assert reading.sms.details["flags"] == ["direction is not mo"]
    assert reading.sms.details["direction"] == direction


def test_a_sender_with_letters_stays_as_it_is() -> None:
    """No plus is put before a name."""
    reading = _read(sender="TestNOS")

    assert isinstance(reading, Readable)
    assert reading.sms.originator == "TestNOS"


def test_its_own_flags_do_not_hide_ours() -> None:
    """A field called flags stays as it came, and so does an id of an odd kind."""
    reading = _read(direction="mt", flags="theirs", id={"$oid": "x"})
    assert isinstance(reading, Readable)
    details = reading.sms.details
    assert (details["flags"], details["our_flags"]) == ("theirs", ["direction is not mo"])
    assert (details["id"], reading.sms.provider_message_id) == ({"$oid": "x"}, None)
