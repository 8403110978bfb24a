"""Delivery reports: five shapes that contradict each other, read to one state."""

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.providers import post_reader
from ingestor.providers.contract import Post, Report, Rules, Unreadable
from ingestor.providers.posts import A_TEST
from ingestor.providers.posts import test_post as make_test_post

READER = post_reader("agile-reports")
RULES = Rules(zone=ZoneInfo("Europe/Rome"))
NOW = datetime(2026, 4, 8, 12, 36, tzinfo=UTC)

LEGACY = {
    "messageId": "m-1", "destination": "+393471234567", "statusCode": 3, "description": "Delivered",
    "doneDate": "2026-04-08 14:35:22.045+0200", "concatTotal": 2, "concatProgressive": 2,
    "lcrOperator": "22210", "realOperator": "22201", "price": 0.00500,
}  # fmt: skip
GUIDE = {
    "id": "m-1", "globalId": "g-1", "destination": "+393471234567", "status": "DELIVERED", "statusCode": 0,
    "submitDate": "2026-04-08 14:35:20.000+0200", "doneDate": "2026-04-08 14:35:22.045+0200",
    "operator": "22201", "parts": 2,
}  # fmt: skip
UNIVERSAL = {
    "channel": "SMS", "eventType": "DELIVERY", "messageId": "m-1", "statusCode": 3,
    "statusDescription": "Delivered", "price": 0.005, "numPart": 1, "totalParts": 2,
    "timestamp": "2026-04-08T12:35:22.045Z",
}  # fmt: skip
QLARA = {
    "eventType": "DELIVERY", "messageId": "theirs", "customerMessageId": "m-1",
    "destination": "+393471234567", "statusCode": 3, "description": "Delivered", "channel": "SMS",
    "timestamp": "2026-04-08T12:35:22.045Z",
}  # fmt: skip
WEBHOOK = {
    "messageId": "theirs", "customerMessageId": "m-1", "phoneNumber": "+393471234567", "status": "DELIVERED",
    "timestamp": "2026-04-08T12:35:22.045Z", "channel": "SMS", "error": None,
}  # fmt: skip
DONE = datetime(2026, 4, 8, 12, 35, 22, 45_000, tzinfo=UTC)


def _read(report: Any) -> Any:
    body = report if isinstance(report, bytes) else json.dumps(report).encode()
    (reading,) = READER.read_post(Post(body, b"", "application/json", NOW), RULES)
    return reading


@pytest.mark.parametrize(
    ("report", "shape", "part", "parts"),
    [
        (LEGACY, "legacy", 2, 2), (GUIDE, "guide", 1, 1), (UNIVERSAL, "universal", 1, 2),
        (QLARA, "qlara", 1, 1), (WEBHOOK, "webhook", 1, 1),
    ],
)  # fmt: skip
def test_all_shapes_come_to_one_state(report: Any, shape: str, part: int, parts: int) -> None:
    """The keys tell the shape; message, state, part and time come out alike."""
    reading = _read(report)

    assert (reading.shape, reading.message_id, reading.status) == (shape, "m-1", "delivered")
    assert (reading.part, reading.parts, reading.done_at) == (part, parts, DONE)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        # Without a word the number means what its shape says: 3 is delivered here and rejected there.
        ({**LEGACY, "description": None}, "delivered"),
        ({**GUIDE, "status": None, "statusCode": 3}, "rejected"),
        ({**GUIDE, "status": None, "statusCode": 0}, "delivered"),
        ({**UNIVERSAL, "statusDescription": "", "statusCode": 6}, "undeliverable"),
        ({"messageId": "m-1", "statusCode": 3}, "unclear"),
        ({"messageId": "m-1", "statusCode": "3"}, "unclear"),
        ({**WEBHOOK, "status": None, "statusCode": 3}, "unclear"),
        # A word counts before the number.
        ({**GUIDE, "status": "DELIVERED", "statusCode": 3}, "delivered"),
        ({**LEGACY, "description": "Expired", "statusCode": 3}, "expired"),
        ({"messageId": "m-1", "statusCode": 3, "description": "Rejected"}, "rejected"),
        ({**LEGACY, "description": "Something else", "statusCode": 5}, "deleted"),
        ({**WEBHOOK, "status": "ERROR"}, "failed"), ({**WEBHOOK, "status": "SENT"}, "accepted"),
        ({**QLARA, "eventType": "READ", "description": None}, "delivered"),
        ({**LEGACY, "description": None, "statusCode": 99}, "unclear"),
        ({**LEGACY, "description": None, "statusCode": True}, "unclear"),
    ],
)  # fmt: skip
def test_the_word_before_the_number_and_a_bare_number_by_its_shape(changed: Any, status: str) -> None:
    """What is not documented stays `unclear`, and the raw word and number stand beside."""
    assert _read(changed).status == status


def test_the_price_keeps_its_digits() -> None:
    """It is text from the first to the last: no float ever holds it."""
    body = json.dumps(LEGACY).replace("0.005", "0.00500000000000000001").encode()

    assert _read(body).price == "0.00500000000000000001"


def test_a_time_without_an_offset_is_none() -> None:
    """Nothing is ever converted through local time."""
    assert _read({**LEGACY, "doneDate": "2026-04-08 14:35:22"}).done_at is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"null", b"+OK", b"\xff", b'{"messageId": ""}', b'{"messageId": {"a": 1}}',
     b"[" * 9000, json.dumps({**QLARA, "eventType": "INBOUND"}).encode()],
)  # fmt: skip
def test_what_names_no_message_is_quarantined(body: bytes) -> None:
    """With a reason, and never an exception."""
    assert isinstance(_read(body), Unreadable)


def test_several_reports_in_one_post_are_so_many_items() -> None:
    """A list is read object by object; one bad does not take the others along."""
    body = json.dumps([LEGACY, 7, WEBHOOK]).encode()
    readings = READER.read_post(Post(body, b"", "application/json", NOW), RULES)

    assert [type(one) for one in readings] == [Report, Unreadable, Report]


def test_the_sample_of_webhook_test_is_no_report() -> None:
    """What `ingestor webhook test` posts is counted and leaves nothing."""
    (reading,) = READER.read_post(make_test_post("agile-reports", NOW), RULES)

    assert reading.reason == A_TEST


@given(
    st.dictionaries(
        st.sampled_from([*LEGACY, *GUIDE, *UNIVERSAL, *QLARA, *WEBHOOK]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.just([1]),
        max_size=8,
    )
)
def test_whatever_stands_in_it_a_database_takes_the_report(report: Any) -> None:
    """Any values give a reading whose texts and numbers fit the table."""
    reading = _read(json.dumps(report).encode())

    if isinstance(reading, Report):
        texts = (reading.message_id, reading.status_raw, reading.destination, reading.operator, reading.price)
        assert all(one is None or ("\0" not in one and one.encode() and len(one) <= 200) for one in texts)
        assert 1 <= reading.part <= reading.parts <= 255
        assert reading.done_at is None or reading.done_at.tzinfo is UTC
