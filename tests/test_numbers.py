"""Numbers: comparable without ever guessing a country, and never shown whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.numbers import Number, OriginatorKind, last_four, normalise_agile, normalise_plusless

MSISDN, SHORT, ALPHA, UNKNOWN = OriginatorKind


@pytest.mark.parametrize(
    ("raw", "value", "kind"),
    [
        ("+393351234567", "+393351234567", MSISDN),
        ("393351234567", "+393351234567", MSISDN),
        ("00393351234567", "+393351234567", MSISDN),
        (" +39 335\u00a0123\u202f4567\t", "+393351234567", MSISDN),
        ("385916242493", "+385916242493", MSISDN),
        ("46712345678", "+46712345678", MSISDN),
        ("+390612345678", "+390612345678", MSISDN),
        ("48888", "48888", SHORT),
        ("119", "119", SHORT),
        ("12345678", "12345678", SHORT),
        ("12", "12", UNKNOWN),
        ("3351234567", "3351234567", UNKNOWN),
        ("123456789", "123456789", UNKNOWN),
        ("1234567890123456", "1234567890123456", UNKNOWN),
        ("+0351234567", "+0351234567", UNKNOWN),
        ("+39-335-1234567", "+39-335-1234567", UNKNOWN),
        ("٣٣٥١٢٣٤٥٦٧٨٩", "٣٣٥١٢٣٤٥٦٧٨٩", UNKNOWN),
        ("1800FLOWERS", "1800FLOWERS", ALPHA),
        (" Poste Info ", "Poste Info", ALPHA),
        ("TIM", "TIM", ALPHA),
        ("Più39", "Più39", ALPHA),
        ("%2B393351234567", "+393351234567", MSISDN),
        ("%252b39%2520335%25201234567", "+393351234567", MSISDN),
        ("%2B39-335-1234567", "+39-335-1234567", UNKNOWN),
        ("%2B39TIM", "%2B39TIM", ALPHA),
        ("100%20", "100%20", UNKNOWN),
        ("", "", UNKNOWN),
    ],
)
def test_agile_numbers(raw: str, value: str, kind: OriginatorKind) -> None:
    """Letters first; 00 becomes a plus; short codes stay; 11 to 15 bare digits get a plus; else verbatim."""
    assert normalise_agile(raw) == Number(value, kind)


@pytest.mark.parametrize(
    ("raw", "value", "kind"),
    [
        ("385916242493", "+385916242493", MSISDN),
        ("46712345678", "+46712345678", MSISDN),
        ("123456789", "+123456789", MSISDN),
        ("72345", "72345", SHORT),
        ("TestNOS", "TestNOS", ALPHA),
    ],
)
def test_plusless_numbers(raw: str, value: str, kind: OriginatorKind) -> None:
    """Infobip and IP1 write E.164 without the plus: it is prepended, and no region is ever assumed."""
    assert normalise_plusless(raw) == Number(value, kind)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(raw: str) -> None:
    """A normalised number is its own normal form, for any text whatever."""
    for normalise in (normalise_agile, normalise_plusless):
        number = normalise(raw)
        assert normalise(number.value) == number


@given(st.text(max_size=40))
def test_a_name_is_never_touched(raw: str) -> None:
    """Anything with a letter stays verbatim, blanks at its ends apart."""
    if any(character.isalpha() for character in raw):
        assert normalise_agile(raw) == Number(raw.strip(), ALPHA)


@pytest.mark.parametrize(
    ("number", "shown"), [("+393351234567", "…4567"), ("48888", "…8888"), ("1234", "…"), ("", "…")]
)
def test_logs_see_four_digits_at_most(number: str, shown: str) -> None:
    """A number is shown as its last four characters, and one of four or fewer not at all."""
    assert last_four(number) == shown
