"""One POST on its way into the archive, and what became of those of each endpoint."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import cache
from threading import Lock
from typing import NamedTuple, Protocol

from ingestor.archive.items import Item, Payload, Receipt, ReportItem, Submission
from ingestor.archive.payloads import pack
from ingestor.logs import OncePerMinute, get_logger
from ingestor.providers import post_reader
from ingestor.providers.contract import Post, Report, Rules, Unreadable
from ingestor.providers.posts import A_TEST, payload_of
from ingestor.record import Channel, Outcome

_log = get_logger(__name__)

SPOOLED = "spooled"
TEST = "test"
EMPTY = "empty"

RulesByProvider = Mapping[str, Rules]


class Taker(Protocol):
    """What the listener needs of the writer."""

    @property
    def trouble(self) -> str | None:
        """Why the database takes no writes now, or None."""

    def submit(self, submission: Submission, future: "Future[Receipt] | None" = None, /) -> "Future[Receipt]":
        """Return a future (the one given, if any) that is done once the submission is durable."""


_random = random.Random().getrandbits  # noqa: S311 - seeded by the system; it must be unique, nobody gains by guessing it


reader = cache(post_reader)  # it is asked for with each POST

_VERSION_7 = 7 << 76 | 2 << 62
_FREE = ~(15 << 76 | 3 << 62)


class ReceivedPost(NamedTuple):
    """One POST that passed the gate.

    `identity` is the UUID given on receipt: whichever way the POST takes from here (writer, spool, both), it
    is the same arrival. `source` names the endpoint without its path; `peer` is the client's address.
    """

    identity: bytes
    source: str
    provider: str
    peer: str
    post: Post


def new_identity(now: datetime) -> bytes:
    """Return the 16 bytes of a UUID of version 7 (RFC 9562, 5.7), made at `now` (aware).

    They begin with the time: POSTs that come together lie together in the archive's index.
    """
    return (int(now.timestamp() * 1000) << 80 | _random(80) & _FREE | _VERSION_7).to_bytes(16, "big")


def submission_of(received: ReceivedPost, rules: RulesByProvider) -> Submission | None:
    """Return what of one POST is made durable together; None where it carries nothing.

    A test of ours is counted and leaves nothing: its commit proves that the database takes what comes.
    """
    post = received.post
    readings = reader(received.provider).read_post(post, rules[received.provider])
    if not readings:
        return None
    if all(isinstance(one, Unreadable) and one.reason == A_TEST for one in readings):
        return Submission(None, ignored=len(readings))
    raw, content_type = payload_of(post)
    payload: Payload | None = pack(raw, content_type)
    identity, source, _, peer, _ = received
    items: list[Item] = []
    reports: list[ReportItem] = []
    for number, one in enumerate(readings):
        if isinstance(one, Report):
            reports.append(ReportItem(one, source, identity, number, post.arrived_at, raw, content_type))
        else:
            of_post = (Channel.WEBHOOK, source, identity, post.arrived_at)
            items.append(Item(one, *of_post, payload, number=len(items), peer=peer))
            payload = None
    return Submission(None, items, reports=reports)


def committed(receipt: Receipt | None) -> tuple[str, ...] | None:
    """Return what became of each item (of a test of ours: TEST), None where that is not durable."""
    if receipt is None or Outcome.FAILED in receipt.outcomes:
        return None
    return tuple(one.value for one in receipt.outcomes) or (TEST,)


class EndpointCounts(NamedTuple):
    """POSTs of one endpoint, outcomes of what they carried, and when the newest came (aware UTC).

    A test of our own is none. One that was `spooled` has its outcome once replayed.
    """

    posts: int
    outcomes: dict[str, int]
    newest: datetime | None


class PostsRead:
    """Counts by endpoint and outcome. Safe to use from several threads: the spool's replays count too."""

    def __init__(self, endpoints: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.accepted = 0
        """How many POSTs were answered as accepted."""
        self._lock = Lock()
        # The spool may hold POSTs of an endpoint that is configured no more.
        self._counts: defaultdict[str, Counter[str]] = defaultdict(
            Counter, {one: Counter() for one in endpoints}
        )
        self._said: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._newest: dict[str, datetime] = {}
        self._minute: OncePerMinute[str, None] = OncePerMinute(self._say, clock)

    @property
    def by_endpoint(self) -> dict[str, EndpointCounts]:
        with self._lock:
            counts = {name: dict(one) for name, one in self._counts.items()}
            return {
                name: EndpointCounts(one.pop("posts", 0), one, self._newest.get(name))
                for name, one in counts.items()
            }

    def note(self, endpoint: str, outcomes: Sequence[str], arrived_at: datetime | None) -> None:
        """Count what one POST carried; `arrived_at` is None where the POST itself was counted before."""
        with self._lock:
            counts = self._counts[endpoint]
            for word in outcomes:
                counts[word] += 1
            if arrived_at is not None:
                counts["posts"] += 1
                self.accepted += 1
                if tuple(outcomes) != (TEST,):
                    self._newest[endpoint] = arrived_at
            self._minute.note(endpoint, None)

    def tick(self) -> None:
        with self._lock:
            self._minute.tick()

    def end(self) -> None:
        with self._lock:
            self._minute.end()

    def _say(self, endpoint: str, _news: None, _times: int) -> None:
        news = self._counts[endpoint] - self._said[endpoint]
        self._said[endpoint] = self._counts[endpoint].copy()
        _log.info("POSTs read", endpoint=endpoint, posts=news.pop("posts", 0), **news)
