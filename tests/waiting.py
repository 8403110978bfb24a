"""How every test waits for what another thread, process or server does."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 60.0
Answer = TypeVar("Answer")


def until(
    condition: Callable[[], Answer], what: str = "", seconds: float = PATIENCE, pause: float = 0.01
) -> Answer:
    """Return what `condition` returns once that is true; fail naming `what` when it never is.

    It is asked every `pause` seconds, or less often: answers may take the processor from who is waited for.
    """
    begun = time.monotonic()
    deadline = begun + seconds
    while not (answer := condition()):
        if (now := time.monotonic()) > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what or condition}")
        time.sleep(max(pause, 2 * min(now - begun, 0.5)))
        begun = time.monotonic()
    return answer
