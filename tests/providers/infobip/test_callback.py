"""Infobip's callback: several results, numbers without plus, and what its own clients stumbled over."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingestor.providers.contract import Post, Readable, Rules, Unreadable
from ingestor.providers.infobip import callback

RULES = Rules(zone=ZoneInfo("UTC"))
RESULT = {
    "messageId": "1", "from": "385916242493", "to": "385921004026", "text": "STOP now",
    "receivedAt": "2026-05-14T10:23:01.500+0200",
}  # fmt: skip


def _read(*results: Any) -> list[Readable | Unreadable]:
    body = json.dumps({"results": list(results)}).encode()
    post = Post(body, b"", "application/json", datetime(2026, 11, 22, tzinfo=UTC))
    return list(callback.read_post(post, RULES))


def _sms(**changes: Any) -> Any:
    [reading] = _read(RESULT | changes)
    assert isinstance(reading, Readable)
    return reading.sms


def test_a_number_is_never_given_a_region() -> None:
    """385916242493 is Croatian; read with region IT it would be a valid Italian number."""
    assert _sms().originator == "+385916242493"


@pytest.mark.parametrize(
    ("written", "hours"),
    [
        ("2026-05-14T10:23:01.500+0200", 2),
        ("2026-05-14T10:23:01.5+02:00", 2),
        ("2026-05-14T10:23:01.500Z", 0),
    ],
)
def test_every_spelling_of_an_offset_is_read(written: str, hours: int) -> None:
    """`+0000` without colon broke Infobip's own C# client; digits and instant are in UTC."""
    expected = datetime(2026, 5, 14, 10, 23, 1, 500_000, tzinfo=UTC) - timedelta(hours=hours)
    sms = _sms(receivedAt=written)

    assert sms.received_at == expected
    assert sms.date_time == f"{expected:%Y%m%d%H%M%S}"


@pytest.mark.parametrize(
    "written", ["2026-05-14T10:23:01", "yesterday", "", None, 5, "0001-01-01T00:00:00+2359"]
)
def test_a_time_that_is_none_is_quarantined(written: Any) -> None:
    """A date that cannot be read whole is kept aside, not guessed."""
    [reading] = _read(RESULT | {"receivedAt": written})

    assert isinstance(reading, Unreadable)


def test_the_text_keeps_its_keyword() -> None:
    """`text` holds the keyword, `cleanText` does not: both are kept, in columns of their own."""
    sms = _sms(keyword="STOP", cleanText="now")

    assert (sms.text, sms.keyword, sms.clean_text) == ("STOP now", "STOP", "now")


def test_one_bad_result_does_not_stop_the_next() -> None:
    """Each result has a reading of its own, in order."""
    readings = _read(RESULT, {}, RESULT | {"messageId": "2"})

    assert [type(reading) for reading in readings] == [Readable, Unreadable, Readable]


def test_an_id_that_is_a_number_is_the_same_id() -> None:
    """A messageId written as a JSON number is unique all the same; numbers are read likewise."""
    sms = _sms(messageId=817790313235066447, **{"from": 385916242493})

    assert (sms.provider_message_id, sms.originator) == ("817790313235066447", "+385916242493")


def test_without_an_id_the_content_makes_it_unique() -> None:
    """A result that lacks its messageId is stored, and told apart by its content."""
    assert _sms(messageId=None).provider_message_id is None


def test_a_crowd_of_results_is_kept_as_one() -> None:
    """Thousands of empty results in one request do not become thousands of rows."""
    assert _read(*[{}] * 1001) == [Unreadable("more than 1000 results in one request", callback.PARSER)]


def test_numbers_no_database_can_hold_are_kept_as_text() -> None:
    """Infinite, undefined and huge numbers in unknown fields become strings; deep nesting is cut."""
    body = (
        b'{"results":[{"messageId":"1","from":"3859162","to":"3859163","text":"x",'
        b'"receivedAt":"2026-05-14T10:23:01Z","a":1e999,"b":NaN,"c":123456789012345678901,"d":'
        + b"[" * 50 + b"]" * 50 + b"}]}"
    )  # fmt: skip
    [reading] = callback.read_post(Post(body, b"", "", datetime(2026, 11, 22, tzinfo=UTC)), RULES)

    assert isinstance(reading, Readable)
    details = reading.sms.details
    assert (details["a"], details["b"], details["c"]) == ("1e999", "NaN", "123456789012345678901")
    assert len(json.dumps(details["d"])) < 150


def test_fields_of_an_odd_kind_are_kept_in_details() -> None:
    """What a column cannot take stays whole, and so does the envelope beside a field of the same name."""
    sms = _sms(keyword=5, cleanText=["x"], messageId={"a": 1}, request="theirs")
    assert (sms.keyword, sms.clean_text, sms.provider_message_id) == (None, None, None)
    kept = {name: sms.details[name] for name in ("keyword", "cleanText", "messageId", "request")}
    assert kept == {"keyword": 5, "cleanText": ["x"], "messageId": {"a": 1}, "request": "theirs"}
    body = json.dumps({"results": [RESULT | {"request": "theirs"}], "messageCount": 1}).encode()
    [reading] = callback.read_post(
        Post(body, b"", "application/json", datetime(2026, 11, 22, tzinfo=UTC)), RULES
    )
    assert isinstance(reading, Readable)
    assert (reading.sms.details["request"], reading.sms.details["envelope"]) == (
        "theirs",
        {"messageCount": 1},
    )
