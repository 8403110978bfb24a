"""UID ranges and marks: what is kept of the mails of a folder."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.intake.mailbox.standing import MARKED, Mark, Standing, Uids, mark_of

KEY = b"k" * 32


@given(st.lists(st.lists(st.integers(1, 30), max_size=5), max_size=30))
def test_ranges_hold_exactly_the_uids_that_were_put_in(steps: list[list[int]]) -> None:
    """In any order, and written down and read again in between."""
    uids, expected = Uids(), set[int]()
    for some in steps:
        uids.add(some)
        expected |= set(some)
        uids = Uids(str(uids))
    assert {uid for uid in range(32) if uid in uids} == expected
    assert len(uids) == len(expected)
    assert uids.newest(4) == sorted(expected)[-4:]


def test_neighbours_are_one_range() -> None:
    """A folder that nobody thinned out costs a few bytes, however many mails it holds."""
    uids = Uids()
    for first in range(1, 200_001, 750):
        uids.add(range(first, min(first + 750, 200_001)))
    assert str(uids) == "1:200000"


def test_marks_are_kept_of_the_newest_hundred() -> None:
    """Older ones are forgotten, those of mails that have gone too; what is kept can be read again."""
    standing = Standing()
    standing.met(range(1, 301), {uid: Mark(uid.to_bytes(8, "big")) for uid in range(1, 301)})
    standing.replace(Uids("1:299"))

    again = Standing(str(standing.uids), standing.kept_marks())

    assert sorted(again.marks) == list(range(301 - MARKED, 300))
    assert str(again.uids) == "1:299"
    assert again.marks == standing.marks


def test_a_mark_names_nobody_and_tells_mails_apart() -> None:
    """It is short, keyed, blind to folding, and another one for another size, sender, subject or key."""
    lines = b"From: a@example.org\r\nSubject: one\r\n two\r\nMessage-ID: <1@example.org>\r\n\r\n"
    mark = mark_of(lines, 10, b"", KEY)
    folded = b"From: a@example.org\nSubject: one  two\nMessage-ID:  <1@example.org>\n"

    assert mark_of(folded + b"X-Other: 1\r\n", 10, b"", KEY) == mark
    assert mark.looks_like(mark_of(lines, None, b"content", KEY))
    others = [
        mark_of(lines, 11, b"", KEY), mark_of(lines, 10, b"", b"other" * 4),
        mark_of(lines.replace(b"one", b"two"), 10, b"", KEY),
        mark_of(lines.replace(b"<1", b"<2"), 10, b"", KEY),
    ]  # fmt: skip
    assert not any(mark.looks_like(other) for other in others)
    assert sum(map(len, mark)) == 20
