"""The HTTP server: uvicorn's protocol in a thread of ours, with deadlines, bounds and renewed certificates.

The only room that knows uvicorn. Here: how much of anything it takes from a client, what it answers where it
takes no more, and the log's line about it. Nothing is imported that comes with [webhook] alone.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from ingestor.logs import OncePerMinute, get_logger

_log = get_logger(__name__)
_WARNINGS = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED})

Headers = Mapping[bytes, bytes]
"""By lower-case name; a header that came several times is joined by commas."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds against slow, greedy and broken clients, in monotonic seconds.

    `request_seconds` runs from a request's (or the connection's) first byte to its last: no drip prolongs it.
    `queue_seconds` is how long a crowd beyond `connections` waits in the kernel's queue before it is refused.
    """

    connections: int = 512
    header_bytes: int = 16384
    header_fields: int = 100
    request_seconds: float = 10.0
    idle_seconds: float = 75.0
    linger_seconds: float = 2.0
    pipelined: int = 16
    queue_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that may not come in: the status it gets, and the kind that logs name.

    `expected` ones happen to clients that do everything right, and are no warning.
    """

    status: HTTPStatus
    kind: str
    expected: bool = False


MALFORMED = Refusal(HTTPStatus.BAD_REQUEST, "malformed request")
PROXY_PROTOCOL = Refusal(HTTPStatus.BAD_REQUEST, "PROXY protocol; switch it off in the proxy")
HTTP_2 = Refusal(HTTPStatus.BAD_REQUEST, "HTTP/2; let the proxy use HTTP/1.1")
TOO_LARGE = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body over max_body_bytes")
HEAD_TOO_LARGE = Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "header too large")
NO_HANDSHAKE = Refusal(HTTPStatus.FORBIDDEN, "no TLS handshake")
TOO_SLOW = Refusal(HTTPStatus.REQUEST_TIMEOUT, "request too slow")
OVERLOADED = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "more at once than can be taken")
NO_DESCRIPTORS = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no file descriptors left; raise LimitNOFILE")
STOPPING = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "stopping")


class Gatekeeper(Protocol):
    """Who decides from the head of a request whether it comes in."""

    def peer(self, address: str, *, encrypted: bool) -> Any:
        """Return what is known about the other end of a connection from `address`."""

    def judge(self, method: bytes, target: bytes, headers: Headers, peer: Any) -> Any:
        """Return a Refusal, or what the application is told of the admission."""

    def client_of(self, headers: Headers, peer: Any) -> str:
        """Return the address to name in the log."""


class RefusalLog:
    """Counts refusals by kind and says so at most once a minute; no line holds the path asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, server: str = "webhook") -> None:
        self.counts: dict[str, int] = {}
        self._said = OncePerMinute(partial(_say, server), clock)
        self.tick, self.end = self._said.tick, self._said.end

    def note(self, refusal: Refusal, peer: str) -> None:
        self.counts[refusal.kind] = self.counts.get(refusal.kind, 0) + 1
        self._said.note(refusal.kind, (refusal, peer))


def _say(server: str, kind: str, newest: tuple[Refusal, str], count: int) -> None:
    refusal, peer = newest
    say = _log.warning if refusal.status in _WARNINGS and not refusal.expected else _log.info
    say(f"{server} request refused", kind=kind, status=int(refusal.status), peer=peer, count=count)
