"""How long to wait before what failed is tried again: one way for every room that tries again."""

import random
from collections.abc import Iterator


def pauses(first: float, longest: float) -> Iterator[float]:
    """Yield, without end, the seconds to wait before each further try: about `first`, then twice as long each
    time, but never more than `longest`.

    Each is drawn from the upper half of its length (8 s: 4 to 8), so that programs which lost the same server
    at the same moment do not come back at the same moment. Who succeeds begins anew with a new generator.
    """
    length = min(first, longest)
    while True:
        yield random.uniform(length / 2, length)  # noqa: S311 - jitter, no secret
        length = min(length * 2, longest)
