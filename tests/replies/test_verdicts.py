"""What each documented answer of Agile's means."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from ingestor.replies.verdicts import CODES, Fate, verdict_of

NOW = datetime(2026, 5, 14, 10, 0, tzinfo=UTC)
ACCEPTED, NOT_SENT, LATER, REFUSED, UNKNOWN = Fate


def _verdict(status: int, answer: Any, headers: dict[str, str] | None = None, **options: Any) -> Any:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return verdict_of(status, headers or {}, body, NOW, **options)


def _fail(code: int) -> dict[str, Any]:
    return {"status": "fail", "data": "x", "code": code}


def _result(accepted: bool, code: int) -> dict[str, Any]:
    return {"accepted": accepted, "results": [{"id": "a", "accepted": accepted, "statusCode": code}]}


def test_the_legacy_answer_tells_parts_and_credit() -> None:
    """The credit is kept exactly as the text has it, never as a float."""
    body = (
        b'{"globalId": "x", "processedMessages": 1, "processedSmsParts": 2, "credit": 10.3240000000000000001}'
    )

    verdict = _verdict(200, body)

    assert verdict.fate is ACCEPTED
    assert verdict.parts == 2
    assert verdict.credit == Decimal("10.3240000000000000001")


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 500])
@pytest.mark.parametrize(
    ("code", "fate", "pauses"),
    [
        (1, REFUSED, True), (2, REFUSED, True), (3, REFUSED, False), (5, REFUSED, False),
        (6, REFUSED, False), (7, REFUSED, False), (10, REFUSED, False), (26, REFUSED, True),
        (100, REFUSED, True), (4, UNKNOWN, False), (8, UNKNOWN, False),
    ],
)  # fmt: skip
def test_each_documented_code_has_its_class_and_its_words(
    status: int, code: int, fate: Fate, pauses: bool
) -> None:
    """Whatever HTTP status it comes with; codes of the whole account pause, others do not."""
    verdict = _verdict(status, _fail(code))

    assert (verdict.fate, verdict.pauses) == (fate, pauses)
    assert status == 200 or CODES[code] in verdict.words


@pytest.mark.parametrize(
    ("status", "answer", "fate"),
    [
        (503, {"status": "error", "message": "x", "code": 9}, LATER),
        (500, {"status": "error", "message": "x", "code": 9}, LATER),
        (408, _fail(8), LATER), (429, _fail(8), LATER), (503, _fail(4), LATER),
        (408, b"<html>", UNKNOWN), (429, b"", UNKNOWN), (503, b"<html>", UNKNOWN),
        (400, b"", REFUSED), (401, b"", REFUSED), (403, b"", REFUSED), (404, b"<html>", REFUSED),
        (413, b"", REFUSED), (415, b"", REFUSED),
        (500, b"", UNKNOWN), (502, b"<html>", UNKNOWN), (504, b"", UNKNOWN), (418, b"", UNKNOWN),
        (301, b"", UNKNOWN),
        (200, b"", UNKNOWN), (200, b"+OK", UNKNOWN), (200, {}, UNKNOWN), (200, [], UNKNOWN),
        (200, {"processedMessages": "1"}, UNKNOWN), (200, {"processedMessages": True}, UNKNOWN),
        (200, {"processedMessages": 0, "credit": 1}, REFUSED),
        (200, {"accepted": True, "results": []}, UNKNOWN),
        (200, {"results": [{"accepted": True}, {"accepted": True}]}, UNKNOWN),
        (200, _result(True, 200), ACCEPTED), (200, _result(True, 403), UNKNOWN),
        (200, _result(False, 200), UNKNOWN),
        (200, _result(False, 400), REFUSED), (200, _result(False, 401), REFUSED),
        (200, _result(False, 402), REFUSED), (200, _result(False, 403), REFUSED),
        (200, _result(False, 429), LATER), (200, _result(False, 500), UNKNOWN),
    ],
)  # fmt: skip
def test_an_answer_is_sure_only_where_its_form_is_documented(status: int, answer: Any, fate: Fate) -> None:
    """A 200 of an unknown form is unknown, a 5xx is no permission to send again, a proxy is not Agile."""
    assert _verdict(status, answer).fate is fate


def test_403_is_not_one_thing() -> None:
    """HTTP 403 is our address, and pauses; 403 of one message is a person who opted out at Agile."""
    address, person = _verdict(403, b""), _verdict(200, _result(False, 403))

    assert (address.pauses, address.opted_out) == (True, False)
    assert (person.pauses, person.opted_out) == (False, True)


def test_5xx_is_tried_again_only_at_the_users_risk() -> None:
    """With retry_5xx a bare 502 is refused for now, without it unknown."""
    assert _verdict(502, b"", retry_5xx=True).fate is LATER
    assert _verdict(502, b"").fate is UNKNOWN


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("7", 7.0), ("99999", 300.0), ("Thu, 14 May 2026 10:00:20 GMT", 20.0),
        ("Thu, 14 May 2026 09:00:00 GMT", 0.0), ("soon", None), ("", None),
    ],
)  # fmt: skip
def test_the_server_says_how_long_to_wait(written: str, seconds: float | None) -> None:
    """Retry-After in seconds or as a date, five minutes at most, and nothing where it is nonsense."""
    assert _verdict(429, _fail(9), {"Retry-After": written}).retry_after == seconds
