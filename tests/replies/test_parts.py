"""Encoding and parts of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.replies.parts import parts_of


@pytest.mark.parametrize(
    ("text", "encoding", "units", "parts"),
    [
        ("", "GSM 7-bit", 0, 1),
        ("a" * 160, "GSM 7-bit", 160, 1),
        ("a" * 161, "GSM 7-bit", 161, 2),
        ("a" * 306, "GSM 7-bit", 306, 2),
        ("a" * 307, "GSM 7-bit", 307, 3),
        ("àèéìòùÉÇäöüßñ", "GSM 7-bit", 13, 1),
        ("€" * 80, "GSM 7-bit", 160, 1),
        ("€" * 81, "GSM 7-bit", 162, 2),
        ("a" * 152 + "€" + "a" * 7, "GSM 7-bit", 161, 2),
        # Without the rule about pairs 306 septets would fill two parts.
        ("a" * 152 + "€" + "a" * 152, "GSM 7-bit", 306, 3),
        ("È" * 70, "UCS-2", 70, 1),
        ("È" * 71, "UCS-2", 71, 2),
        ("È" * 134, "UCS-2", 134, 2),
        ("😀" * 35, "UCS-2", 70, 1),
        ("😀" * 36, "UCS-2", 72, 2),
        # 33 pairs a part, as the 67th unit would hold half of one.
        ("😀" * 67, "UCS-2", 134, 3),
        ("\x1b", "UCS-2", 1, 1),
        ("e\u0301", "UCS-2", 2, 1),
    ],
)
def test_a_text_is_counted_as_networks_do(text: str, encoding: str, units: int, parts: int) -> None:
    """160/153 and 70/67, extension characters and emoji count two, and no pair is split."""
    assert parts_of(text)[:3] == (encoding, units, parts)


def test_the_characters_that_make_the_difference_are_named() -> None:
    """An Italian answer that begins with È pays double, and says because of which letters."""
    assert parts_of("È fatto… grazie, È vero").culprits == ("È", "…")
    assert parts_of("E' fatto... grazie").culprits == ()


@given(st.text(alphabet="ab€[😀Èç", max_size=400))
def test_parts_hold_what_is_sent(text: str) -> None:
    """However a text is made up, its parts have room for it, and not a whole part too much."""
    found = parts_of(text)
    alone, joined = (160, 153) if found.encoding == "GSM 7-bit" else (70, 67)

    if found.units <= alone:
        assert found.parts == 1
    else:
        assert (found.parts - 1) * (joined - 1) < found.units <= found.parts * joined
