"""One POST on its way into the archive: what arrived, and the submission it becomes."""

import hashlib
import random
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import datetime
from types import ModuleType
from typing import NamedTuple, Protocol

from ingestor.archive.items import Item, Payload, Receipt, Submission
from ingestor.intake.listener.counts import TEST
from ingestor.providers import post_reader
from ingestor.providers.contract import Post, Rules, Unreadable
from ingestor.providers.posts import A_TEST, payload_of
from ingestor.record import Channel, Outcome

RulesByProvider = Mapping[str, Rules]


class Taker(Protocol):
    """What the listener needs of the writer."""

    @property
    def trouble(self) -> str | None:
        """Why the database takes no writes now, or None."""

    def submit(self, submission: Submission, /) -> "Future[Receipt]":
        """Return a future that is done once the submission is durable."""


_readers: dict[str, ModuleType] = {}
_random = random.Random().getrandbits  # noqa: S311 - seeded by the system; it must be unique, nobody gains by guessing it


_VERSION_7 = 7 << 76 | 2 << 62
_FREE = ~(15 << 76 | 3 << 62)


class ReceivedPost(NamedTuple):
    """One POST that passed the gate.

    `identity` is the 16 bytes of the UUID given on receipt: whichever way the POST takes from here (writer,
    spool, both), it is the same arrival. `source` names the endpoint without its path; `peer` is the
    client's address as far as trusted proxies say.
    """

    identity: bytes
    source: str
    provider: str
    peer: str
    post: Post


def new_identity(now: datetime) -> bytes:
    """Return the 16 bytes of a new UUID of version 7 (RFC 9562, section 5.7), made at `now` (aware).

    They begin with the time in milliseconds: POSTs that come together lie together in the archive's index.
    """
    return (int(now.timestamp() * 1000) << 80 | _random(80) & _FREE | _VERSION_7).to_bytes(16, "big")


def reader(provider: str) -> ModuleType:
    """Return the POST reader of `provider` (see `contract.PostReader`), imported once."""
    module = _readers.get(provider)
    if module is None:
        module = _readers[provider] = post_reader(provider)
    return module


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
    payload = Payload(raw, len(raw), hashlib.sha256(raw).digest(), content_type)
    items = tuple(
        Item(
            reading=reading,
            channel=Channel.WEBHOOK,
            source=received.source,
            content_key=received.identity,
            arrived_at=post.arrived_at,
            payload=None if number else payload,
            number=number,
            peer=received.peer,
        )
        for number, reading in enumerate(readings)
    )
    return Submission(None, items)


def outcomes_of(future: "Future[Receipt]") -> tuple[str, ...]:
    """Return what became of each item of a durable submission; a test of ours leaves none."""
    return tuple(one.value for one in future.result().outcomes) or (TEST,)


def durable(future: "Future[Receipt]") -> bool:
    """Say whether a future of the writer that is done stands for a commit of every item."""
    return (
        not future.cancelled()
        and future.exception() is None
        and Outcome.FAILED not in future.result().outcomes
    )
