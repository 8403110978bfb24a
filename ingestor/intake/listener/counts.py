"""What became of the POSTs of each endpoint: a line a minute, and the counts that `status` shows."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from threading import Lock
from typing import NamedTuple

import structlog

from ingestor.logs import OncePerMinute

_log = structlog.get_logger()

SPOOLED = "spooled"
TEST = "test"
EMPTY = "empty"


class EndpointCounts(NamedTuple):
    """POSTs of one endpoint since the start, outcomes of what they carried, and when the newest came.

    `newest` is aware UTC; a test of our own is none. One that was `spooled` has its outcome once replayed.
    """

    posts: int
    outcomes: dict[str, int]
    newest: datetime | None


class PostsRead:
    """Counts by endpoint and outcome. Safe to use from several threads: the spool's replays count too."""

    def __init__(self, endpoints: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Count for `endpoints`, by the names that the archive has for them."""
        self._lock = Lock()
        self._counts = {name: EndpointCounts(0, {}, None) for name in endpoints}
        self._unsaid: dict[str, Counter[str]] = {}
        self._minute: OncePerMinute[str, None] = OncePerMinute(self._say, clock)

    @property
    def by_endpoint(self) -> dict[str, EndpointCounts]:
        """The counts until now, by the name of the endpoint."""
        with self._lock:
            return {name: one._replace(outcomes=dict(one.outcomes)) for name, one in self._counts.items()}

    def note(self, endpoint: str, outcomes: Iterable[str], arrived_at: datetime | None) -> None:
        """Count what one POST carried; `arrived_at` is None where the POST itself was counted before."""
        words = tuple(outcomes)
        with self._lock:
            # The spool may hold POSTs of an endpoint that is configured no more.
            posts, so_far, newest = self._counts.get(endpoint) or EndpointCounts(0, {}, None)
            unsaid = self._unsaid.setdefault(endpoint, Counter())
            for word in words:
                so_far[word] = so_far.get(word, 0) + 1
                unsaid[word] += 1
            if arrived_at is not None:
                posts += 1
                unsaid["posts"] += 1
                newest = newest if words == (TEST,) else arrived_at
            self._counts[endpoint] = EndpointCounts(posts, so_far, newest)
            self._minute.note(endpoint, None)

    def tick(self) -> None:
        """Say what has waited for a minute."""
        with self._lock:
            self._minute.tick()

    def end(self) -> None:
        """Say what has not been said yet."""
        with self._lock:
            self._minute.end()

    def _say(self, endpoint: str, _news: None, _times: int) -> None:
        counts = self._unsaid.pop(endpoint)
        _log.info("POSTs read", endpoint=endpoint, posts=counts.pop("posts", 0), **counts)
