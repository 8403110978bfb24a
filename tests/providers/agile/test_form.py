"""Agile's form: what its documentation leaves open, decided once."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from ingestor.numbers import OriginatorKind
from ingestor.providers.agile import form
from ingestor.providers.contract import Post, Readable, Rules, Unreadable
from ingestor.record import InboundSms
from ingestor.timestamps import TimeQuality

RULES = Rules(zone=ZoneInfo("Europe/Rome"))
NUMBERS = "originator=%2B393351234567&destination=%2B393331234333"


def _reading(
    body: str, query: str = "", arrived: datetime = datetime(2026, 11, 22, tzinfo=UTC)
) -> Readable | Unreadable:
    post = Post(body.encode("latin-1"), query.encode(), "application/x-www-form-urlencoded", arrived)
    [reading] = form.read_post(post, RULES)
    return reading


def _sms(body: str, query: str = "", arrived: datetime = datetime(2026, 11, 22, tzinfo=UTC)) -> InboundSms:
    reading = _reading(body, query, arrived)
    assert isinstance(reading, Readable)
    return reading.sms


def test_the_answer_is_three_bytes() -> None:
    """Agile takes nothing but +OK for a delivery: no line end, no other body."""
    assert (form.ACCEPTED.status, form.ACCEPTED.content_type, form.ACCEPTED.body) == (
        200,
        "text/plain",
        b"+OK",
    )


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("caff%C3%A8", "caffè"), ("caff%E8", "caffè"), ("caffè", "caffè"), ("%80", "€"), ("%81", "\x81"),
        ("a%2Bb+c", "a+b c"), ("100%", "100%"), ("%zz", "%zz"), ("a;b", "a;b"), ("a=b", "a=b"),
        ("%253D", "%3D"), ("+x+", " x "), ("a%0D%0Ab%0D", "a\nb"), ("%E2%80%8Bx", "\u200bx"),
    ],
)  # fmt: skip
def test_text_is_decoded_once_and_otherwise_left_alone(written: str, text: str) -> None:
    """Each value is strict UTF-8, else cp1252; a plus is a blank, and nothing is decoded twice."""
    assert _sms(f"{NUMBERS}&date_time=20260514102301&text={written}").text == text


def test_what_nothing_was_odd_in_shares_its_details() -> None:
    """They are written down once for all, and nobody can change them; what is odd has its own."""
    plain = [_sms(f"{NUMBERS}&date_time=20260514102301&text={text}").details for text in ("a", "b")]
    odd = _sms(f"{NUMBERS}&date_time=20260514102301&text=caff%E8").details

    assert plain[0] is plain[1]
    assert not hasattr(plain[0], "update")
    assert dict(plain[0]) == {"charset": "utf-8"} != odd


def test_query_parameters_fill_in_what_the_body_lacks() -> None:
    """Older set-ups put fields into the query string; the body goes first where both have one."""
    sms = _sms("date_time=20260514102301&text=body", f"{NUMBERS}&text=query")

    assert (sms.originator, sms.text) == ("+393351234567", "body")


@pytest.mark.parametrize(
    ("written", "value", "kind"),
    [
        ("+393351234567", "+393351234567", OriginatorKind.MSISDN),
        ("+441632960001", "+441632960001", OriginatorKind.MSISDN),
        ("+3933512345", "+3933512345", OriginatorKind.MSISDN),
        ("00393351234567", "+393351234567", OriginatorKind.MSISDN),
        ("+48888", "48888", OriginatorKind.SHORT),
        ("1800FLOWERS", "1800FLOWERS", OriginatorKind.ALPHA),
        ("+393351234567890123", "393351234567890123", OriginatorKind.UNKNOWN),
    ],
)
def test_a_plus_lost_to_the_form_is_restored_in_numbers(written: str, value: str, kind: str) -> None:
    """An unescaped plus arrives as a blank: in a long number it can only have been a plus."""
    sms = _sms(f"originator={written}&destination=%2B393331234333&date_time=20260514102301&text=1+1")

    assert (sms.originator, sms.originator_kind) == (value, kind)
    assert sms.text == "1 1"


def test_field_names_may_be_in_any_case() -> None:
    """A portal that writes Originator is understood."""
    assert _sms(f"{NUMBERS.title()}&Date_Time=20260514102301&TEXT=x").text == "x"


@pytest.mark.parametrize(
    ("arrived", "received_at"),
    [("2026-10-25T00:31:00+00:00", "2026-10-25T00:30:00+00:00"),
     ("2026-10-25T01:31:00+00:00", "2026-10-25T01:30:00+00:00"),
     ("2026-10-25T03:00:00+00:00", "2026-10-25T01:30:00+00:00")],
)  # fmt: skip
def test_in_the_hour_that_happens_twice_the_arrival_decides(arrived: str, received_at: str) -> None:
    """The latest candidate that is not after the POST wins, and the doubt stays written down."""
    sms = _sms(f"{NUMBERS}&date_time=20261025023000&text=x", "", datetime.fromisoformat(arrived))

    assert sms.received_at == datetime.fromisoformat(received_at)
    assert sms.time_quality is TimeQuality.AMBIGUOUS
    assert "time_decided_by" in sms.details


@pytest.mark.parametrize("missing", ["originator", "destination", "date_time", "text"])
def test_a_missing_field_is_named(missing: str) -> None:
    """The quarantine says which field was not there."""
    fields = {"originator": "1234", "destination": "1234", "date_time": "20260514102301", "text": "x"}
    body = "&".join(f"{name}={value}" for name, value in fields.items() if name != missing)

    assert _reading(body) == Unreadable(f"the field {missing} is missing", form.PARSER)


def test_more_fields_than_any_form_has_are_not_taken_apart() -> None:
    """A flood of fields costs one look, and is kept."""
    reading = _reading(f"{NUMBERS}&date_time=20260514102301&text=x" + "&a=b" * 500)

    assert reading == Unreadable("the form has more than 200 fields", form.PARSER)
