"""The pauses between two tries of what failed."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from ingestor.pauses import pauses


@given(st.floats(0.001, 60), st.floats(0.001, 3600))
def test_pauses_double_up_to_the_longest_and_never_beyond(first: float, longest: float) -> None:
    """Each pause lies in the upper half of a length that doubles with each try, up to the longest."""
    for tries, pause in enumerate(islice(pauses(first, longest), 1200)):
        length = min(longest, first * 2.0 ** min(tries, 900))
        assert length / 2 <= pause <= length


def test_two_who_fail_together_do_not_come_back_together() -> None:
    """Two generators draw different pauses."""
    assert list(islice(pauses(1, 60), 5)) != list(islice(pauses(1, 60), 5))
