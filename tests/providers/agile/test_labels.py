"""What gateways put around labels and numbers: bold marks, links, marks that nobody sees."""

import pytest

from ingestor.numbers import OriginatorKind, normalise_agile
from ingestor.providers.contract import Readable
from ingestor.timestamps import fourteen_digits
from tests.providers.agile.corpus import HEADER, read_both

_UTF8 = HEADER + b"Content-Type: text/plain; charset=utf-8\r\n\r\n"


def _read(*lines: str) -> tuple[str, str, str, str]:
    reading = read_both(_UTF8 + "\r\n".join(lines).encode() + b"\r\n")
    assert isinstance(reading, Readable), reading
    sms = reading.sms
    return sms.originator, sms.destination, sms.date_time, sms.text


@pytest.mark.parametrize(
    "block",
    [  # a bar between the lines
        "*From:* +393351234567|*To:* +393331234333|*Date/Time:* 20260514102301|*Body:* News ON",
        "**From**: +393351234567|**To**: +393331234333|**Date/Time**: 20260514102301|**Body**: News ON",
        "_From:_ +393351234567|_To:_ +393331234333|_Date/Time:_ 20260514102301|_Body:_ News ON",
        (
            "From: +393351234567<tel:+393351234567>|To: +393331234333 <tel:+393331234333>|"
            "Date/Time: 20260514102301<tel:20260514102301>|Body: News ON"
        ),
        (
            "From: [+393351234567](tel:+393351234567)|To: tel:+393331234333|"
            "Date/Time: 20260514102301|Body: News ON"
        ),
        (
            "From: <tel:+393351234567>|To: +39 333 1234333 [tel:+393331234333]|"
            "Date/Time: 20260514102301|Body: News ON"
        ),
        (
            "From: \u202d+393351234567\u202c|To: \u2066+39\u200b3331234333\u2069|"
            "Date/Time: \u200e20260514102301|Body: News ON"
        ),
        (
            "\u200eFrom\u200f: +393351234567|\u202aTo:\u202c +393331234333|"
            "\ufeffDate/Time: 20260514102301\u200b|\u200bBody\u200b: News ON"
        ),
        "*From: +393351234567*|*To: +393331234333*|*Date/Time: 20260514102301*|*Body: News ON*",
        "*From: *+393351234567|*To: *+393331234333|*Date/Time: *20260514102301|*Body: *News ON",
        "* From: +393351234567|* To: +393331234333|* Date/Time: 20260514102301|* Body: News ON",
        "From: *+393351234567*|To: *+393331234333*|Date/Time: *20260514102301*|Body: News ON",
        "From: +393351234567<mailto:x@y.z>|To: <sip:1>+393331234333|Date/Time: 20260514102301|Body: News ON",
        "From:\u202f+393351234567|To:\u00a0+393331234333|Date/Time:\t20260514102301|Body:\tNews ON",
    ],
)
def test_what_surrounds_labels_and_numbers_is_not_read(block: str) -> None:
    """Bold marks, tel: links and invisible marks are the gateway's, and no part of a value."""
    assert _read(*block.split("|")) == ("+393351234567", "+393331234333", "20260514102301", "News ON")


@pytest.mark.parametrize(
    "text",
    [
        "*123#",
        "**urgente**",
        " due",
        "\u200fשלום",
        "\u202fx",
        "_x_",
        "chiama 335<tel:123>",
        "a <tel:x> b",
        "\ttab",
    ],
)
def test_the_text_keeps_what_is_its_own(text: str) -> None:
    """Only the one blank of the format goes: asterisks, marks, links and blanks of an SMS stay."""
    assert (
        _read("From: +393351234567", "To: +393331234333", "Date/Time: 20260514102301", f"Body: {text}")[3]
        == text
    )


def test_who_links_the_numbers_links_those_in_the_text_too() -> None:
    """There a link that repeats the number before it goes as well, and only such a link."""
    text = _read(
        "From: +393351234567<tel:+393351234567>", "To: +393331234333", "Date/Time: 20260514102301",
        "Body: chiama 335 1234567<tel:3351234567> o <tel:112>",
    )[3]  # fmt: skip

    assert text == "chiama 335 1234567 o <tel:112>"


def test_invisible_marks_are_no_part_of_a_number() -> None:
    """A marked number is the same number and a marked time the same time; a name stays as it came."""
    assert normalise_agile("\u202d+39 335\u200b1234567\u202c") == ("+393351234567", OriginatorKind.MSISDN)
    assert normalise_agile("\u200eAgile\u200e") == ("\u200eAgile\u200e", OriginatorKind.ALPHA)
    assert fourteen_digits("\u200e20260514102301\u200e") == "20260514102301"
