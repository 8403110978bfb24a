"""What every provider's POST reader owes; a new provider runs through all of it by its line in the table."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.providers import POST_READERS, post_reader
from ingestor.providers.contract import Answer, Post, Readable, Rules, Unreadable
from ingestor.providers.posts import A_TEST, NOT_OUR_NUMBER
from ingestor.providers.posts import test_post as make_test_post
from ingestor.record import canonical_form
from tests.providers.conformance.samples import Sample, as_expected, every_sample, samples

PROVIDERS = sorted(POST_READERS)
ARRIVED = datetime(2026, 11, 22, 8, tzinfo=UTC)
RULES = Rules(zone=ZoneInfo("Europe/Rome"))


def _read(sample: Sample, body: bytes, content_type: str | None = None) -> Sequence[Readable | Unreadable]:
    """Read a changed body of `sample` by its provider, and hold it to what every reading must keep."""
    post = sample.post._replace(body=body, query=b"", content_type=content_type or sample.post.content_type)
    readings: Sequence[Readable | Unreadable] = sample.reader.read_post(post, RULES)
    for reading in readings:
        assert reading.parser == sample.reader.PARSER
        if isinstance(reading, Readable):
            _hold_storable(reading)
        else:
            assert re.fullmatch(r"[\w .,:;'`()\[\]<>-]{5,100}", reading.reason), reading.reason
    return readings


def _hold_storable(reading: Readable) -> None:
    sms = reading.sms
    for text in filter(None, _strings(
        [sms.originator, sms.originator_raw, sms.destination, sms.destination_raw, sms.text, sms.keyword,
         sms.clean_text, sms.provider_message_id, dict(sms.details)]
    )):  # fmt: skip
        assert "\0" not in text
        text.encode()
    json.dumps(dict(sms.details), allow_nan=False)
    assert re.fullmatch(r"[0-9]{14}", sms.date_time)
    assert sms.received_at.tzinfo is UTC
    assert not sms.text.endswith("\n")
    assert "\r" not in sms.text
    canonical_form(sms)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _first(provider: str) -> Sample:
    """Return the provider's own documented sample: the one whose payload the docstring shows."""
    return next(sample for sample in samples(provider) if sample.name == "documented")


@pytest.mark.parametrize("sample", every_sample(), ids=lambda sample: f"{sample.provider}/{sample.name}")
def test_each_sample_gives_its_expected_records(sample: Sample) -> None:
    """Every payload beside a parser comes out as the file beside it says."""
    assert as_expected(sample.reader.read_post(sample.post, sample.rules)) == sample.readings


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_docstring_begins_with_the_documented_sample(provider: str) -> None:
    """Whoever opens a parser sees the real payload first, and it is the one that is tested."""
    squeezed = re.sub(r"\s", "", post_reader(provider).__doc__ or "")

    assert re.sub(r"\s", "", _first(provider).post.body.decode()) in squeezed


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_reader_names_itself_and_its_answer(provider: str) -> None:
    """A row can say what read it, and the listener knows what the provider wants to hear."""
    module = post_reader(provider)

    assert re.fullmatch(rf"{provider}\.\w+/[0-9]+", module.PARSER)
    assert isinstance(module.ACCEPTED, Answer)
    assert module.ACCEPTED.status == 200


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_body_cut_off_anywhere_is_still_an_item(provider: str) -> None:
    """A payload that ends early is read or quarantined, never lost and never an exception."""
    sample = _first(provider)

    for length in range(len(sample.post.body)):
        assert _read(sample, sample.post.body[:length]), length


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_changed_byte_anywhere_is_still_an_item(provider: str) -> None:
    """A payload with one byte broken is read or quarantined, never lost and never an exception."""
    sample = _first(provider)
    body = sample.post.body
    for place in range(len(body)):
        for byte in (0x00, 0x22, 0x26, 0x5C, 0x80, 0xFF):
            assert _read(sample, body[:place] + bytes([byte]) + body[place + 1 :]), (place, byte)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_ten_thousand_random_bodies_are_items(provider: str) -> None:
    """Noise, and mixtures of noise with the real payload, raise nothing and leave nothing out."""
    sample = _first(provider)
    dice = random.Random(4)
    for _ in range(10_000 // len(PROVIDERS)):
        noise = dice.randbytes(dice.randrange(200))
        cut = dice.randrange(len(sample.post.body))
        assert _read(sample, noise if dice.random() < 0.5 else sample.post.body[:cut] + noise)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/xml", "multipart/form-data; boundary=x", "; charset=", "a; charset=utf-7",
     "application/json; charset=\"no-such-charset\"", "x; charset=rot13", "x; charset=\xff", "message/http"],
)  # fmt: skip
def test_no_content_type_loses_a_payload(provider: str, content_type: str) -> None:
    """Whatever the Content-Type claims, the documented payload stays readable."""
    sample = _first(provider)

    assert all(isinstance(one, Readable) for one in _read(sample, sample.post.body, content_type))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"\r\n", b"null", b"[]", b"0", b'""', b"{}", b"[" * 50_000, b'{"a":' * 50_000, b"9" * 60_000,
     b"&" * 60_000, b"=" * 60_000, b"%" * 60_000, b"a=b&" * 15_000, b"NaN", b"Infinity", b"\xef\xbb\xbf{}",
     b'{"results":' + b"[" * 5_000 + b"]" * 5_000 + b"}"],
    ids=lambda body: f"{body[:12]!r} {len(body)}",
)  # fmt: skip
def test_degenerate_bodies_go_to_the_quarantine(provider: str, body: bytes) -> None:
    """Empty, huge, deep and meaningless bodies become quarantined items with a reason in words."""
    readings = _read(_first(provider), body)

    assert readings
    assert all(isinstance(reading, Unreadable) for reading in readings)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_foreign_destination_is_quarantined_and_ours_is_not(provider: str) -> None:
    """With numbers configured a message for any other one is kept aside, whatever the channel."""
    sample = _first(provider)
    ours = sample.readings[0]["destination"]

    foreign = sample.reader.read_post(sample.post, replace(RULES, numbers=frozenset({"+393330000000"})))
    own = sample.reader.read_post(sample.post, replace(RULES, numbers=frozenset({ours})))

    assert [one.reason for one in foreign] == [NOT_OUR_NUMBER]
    assert isinstance(own[0], Readable)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_test_number_never_becomes_an_sms(provider: str) -> None:
    """What `webhook test` posts ends in the quarantine even where every destination is accepted."""
    readings = post_reader(provider).read_post(make_test_post(provider, ARRIVED), RULES)

    assert [one.reason for one in readings] == [A_TEST]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_reasons_hold_nothing_personal(provider: str) -> None:
    """No reason repeats a number or a text of the payload it speaks of."""
    sample = _first(provider)
    record = sample.readings[0]
    secrets = [record["text"], record["originator_raw"].lstrip("+"), record["destination_raw"].lstrip("+")]
    body = sample.post.body
    for place in range(len(body)):
        for reading in _read(sample, body[:place] + b"\x80" + body[place + 1 :]):
            if isinstance(reading, Unreadable):
                assert not any(secret in reading.reason for secret in secrets)


@given(body=st.binary(max_size=300), content_type=st.text(max_size=40), query=st.binary(max_size=60))
@pytest.mark.parametrize("provider", PROVIDERS)
def test_readers_are_functions_that_never_raise(
    provider: str, body: bytes, content_type: str, query: bytes
) -> None:
    """Any bytes give the same readings each time, so a replay from the spool means the same SMS."""
    module = post_reader(provider)
    post = Post(body, query, content_type, ARRIVED)

    assert module.read_post(post, RULES) == module.read_post(post, RULES)
