"""The record: what is stored of a text, and a canonical form that never changes again."""

import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.numbers import OriginatorKind
from ingestor.record import (
    FINGERPRINT_VERSION,
    InboundSms,
    canonical_form,
    canonical_text,
    fingerprint,
    storable,
    stored_text,
)
from ingestor.timestamps import TimeQuality

SMS = InboundSms(
    provider="agile",
    originator="+393351234567",
    originator_kind=OriginatorKind.MSISDN,
    originator_raw="393351234567",
    destination="+393331234333",
    destination_raw="+393331234333",
    date_time="20260514102301",
    received_at=datetime(2026, 5, 14, 8, 23, 1, tzinfo=UTC),
    time_quality=TimeQuality.OK,
    text="News ON",
)

# Version 1, frozen: an archive holds fingerprints of this form. Should one of these change, every SMS that
# comes a second time would be stored a second time. A new form is a new version beside this one.
_NUMBERS_AND_TIME = (
    b"\x00\x00\x00\x05agile\x00\x00\x00\x07content\x00\x00\x00\x0d+393351234567\x00\x00\x00\x0d+393331234333"
    b"\x00\x00\x00\x0e20260514102301"
)
GOLDEN_FORMS = [
    (SMS, b"ingestor\x001" + _NUMBERS_AND_TIME + b"\x00\x00\x00\x07News ON"),
    (
        SMS._replace(text="\n \u00a0Perche\u0301 \t\r\n\r\n  no? \x0b\n"),
        b"ingestor\x001" + _NUMBERS_AND_TIME + b"\x00\x00\x00\x0ePerch\xc3\xa9\n\n  no?",
    ),
    (
        SMS._replace(text="\u2003a\x1c\n\u00a0b\u2003"),
        b"ingestor\x001" + _NUMBERS_AND_TIME + b"\x00\x00\x00\x0c\xe2\x80\x83a\x1c\n\xc2\xa0b\xe2\x80\x83",
    ),
    (
        SMS._replace(provider="infobip", provider_message_id="817790313235066447"),
        b"ingestor\x001\x00\x00\x00\x07infobip\x00\x00\x00\x02id\x00\x00\x00\x12817790313235066447",
    ),
]
GOLDEN_FINGERPRINTS = [
    "9c36a4e94d6c87816551cd70cf9b42626644ea545335fa183eb0fc26834ab424",
    "a84221d79253ea2ca7e58cd3cc83247bab8dc4d3dae3a6421b82601262d9035a",
    "3bc71d8dc4eae560f5a107333372a5ef6ec5a49103596f52c7dab5e1eba08b94",
    "8e0f3fdb08b5d83b01ac7e4e57c4e6e7d8d77dd0268735904d5bd11593823151",
]


def test_the_version_is_one() -> None:
    """The canonical form is version 1; its bytes say so."""
    assert FINGERPRINT_VERSION == 1


@pytest.mark.parametrize(("sms", "form"), GOLDEN_FORMS)
def test_canonical_form_version_1(sms: InboundSms, form: bytes) -> None:
    """The canonical form is these bytes, for ever."""
    assert canonical_form(sms) == form


@pytest.mark.parametrize(("golden", "digest"), [*zip(GOLDEN_FORMS, GOLDEN_FINGERPRINTS, strict=True)])
def test_fingerprint_version_1(golden: tuple[InboundSms, bytes], digest: str) -> None:
    """The fingerprint is HMAC-SHA-256 of the canonical form under the archive's key."""
    key = bytes(range(32))
    assert fingerprint(golden[0], key).hex() == digest
    assert hmac.new(key, golden[1], hashlib.sha256).hexdigest() == digest


@pytest.mark.parametrize(
    "change",
    [
        {"originator": "+393351234568"},
        {"destination": "+393331234334"},
        {"date_time": "20260514102302"},
        {"text": "News OFF"},
        {"text": "news ON"},
        {"text": "News  ON"},
        {"provider": "other"},
        {"provider_message_id": "1"},
        {"provider_message_id": ""},
    ],
)
def test_what_makes_another_sms(change: dict[str, str]) -> None:
    """Each field of the key makes a difference: provider, both numbers, the raw digits, the text, the id."""
    assert fingerprint(SMS._replace(**change), b"k" * 32) != fingerprint(SMS, b"k" * 32)


@pytest.mark.parametrize(
    "change",
    [
        {"received_at": datetime(2026, 5, 14, 9, 23, 1, tzinfo=UTC)},
        {"time_quality": TimeQuality.AMBIGUOUS},
        {"originator_raw": "00393351234567"},
        {"destination_raw": "393331234333"},
        {"details": {"charset": "cp1252"}},
        {"text": "\u00a0News ON \r\n"},
        {"keyword": "NEWS"},
        {"segments": 2},
    ],
)
def test_what_leaves_it_the_same_sms(change: dict[str, object]) -> None:
    """Neither the converted time nor what mail alters on the way makes another SMS."""
    assert fingerprint(SMS._replace(**change), b"k" * 32) == fingerprint(SMS, b"k" * 32)  # type: ignore[arg-type]  # any field


def test_with_an_id_nothing_else_counts() -> None:
    """Where the provider gives an id, provider and id are the SMS."""
    one = SMS._replace(provider_message_id="7")
    other = one._replace(text="x", originator="TIM", date_time="20200101000000")
    assert canonical_form(one) == canonical_form(other)


def test_fields_cannot_run_into_each_other() -> None:
    """Lengths stand before the fields, so no two records share a form by shifting characters."""
    one = SMS._replace(originator="ab", destination="c")
    assert canonical_form(one) != canonical_form(SMS._replace(originator="a", destination="bc"))


def test_another_key_is_another_fingerprint() -> None:
    """Without the archive's key nobody can tell a guessed text's fingerprint."""
    assert fingerprint(SMS, b"a" * 32) != fingerprint(SMS, b"b" * 32)


def test_personal_fields_stay_out_of_repr() -> None:
    """Text, numbers, keyword and details never show where a record is printed by accident."""
    shown = repr(SMS._replace(keyword="NEWS", clean_text="ON", details={"x": "secret"}))
    assert not any(personal in shown for personal in ("News", "NEWS", "39333", "39335", "secret", "'ON'"))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("a\r\nb\rc\n", "a\nb\nc"), ("a\n\n\r\n", "a"), ("\n a ", "\n a "), ("a \n", "a "), ("", ""),
        ("a\u2028\u0085", "a\u2028\u0085"),
    ],
)  # fmt: skip
def test_stored_text(text: str, stored: str) -> None:
    """LF line ends, no line terminator at the very end, and nothing else changes."""
    assert stored_text(text) == stored


@pytest.mark.parametrize(
    ("text", "clean", "count"),
    [
        ("ok", "ok", 0),
        ("👍\ufffd", "👍\ufffd", 0),
        ("a\0b\0", "a\ufffdb\ufffd", 2),
        ("\ud83d!\udc4d", "\ufffd!\ufffd", 2),
    ],
)
def test_storable(text: str, clean: str, count: int) -> None:
    """NUL and lone surrogates are replaced and counted; a U+FFFD that was sent is not."""
    assert storable(text) == (clean, count)


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_storable_encodes(text: str) -> None:
    """Any string, surrogates and all, becomes one that both databases take."""
    clean, count = storable(text)
    assert "\0" not in clean.encode().decode()
    assert len(clean) == len(text)
    assert (count == 0) == (clean == text)


@given(st.text())
def test_canonical_text_is_its_own_canonical_text(text: str) -> None:
    """Canonical text of canonical text is itself, and stored text has the canonical text of its original."""
    assert canonical_text(canonical_text(text)) == canonical_text(text)
    assert canonical_text(stored_text(text)) == canonical_text(text)


@given(key=st.binary(min_size=32, max_size=32), text=st.text(max_size=200))
def test_the_fingerprint_is_hmac_sha_256(key: bytes, text: str) -> None:
    """It is what the standard library makes of the canonical form, so that others can make it too."""
    sms = SMS._replace(text=storable(text)[0])
    assert fingerprint(sms, key) == hmac.digest(key, canonical_form(sms), "sha256")
