"""One client connection: uvicorn's protocol, with bounds, deadlines and one meaning for each request.

uvicorn 0.54 parses with httptools (llhttp) and runs the application; it bounds neither the head nor the time
a request takes, and lets through what two servers could read differently. This class leans on `cycle` and its
`transport`, `pipeline`, `flow`, `scope`, `url`, `headers`, `_start_asgi_task` and the parser's callbacks;
`tests/http` breaks where a release changes them, and pyproject.toml pins the minor version.
"""

import asyncio
import socket
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from fcntl import ioctl
from http import HTTPStatus
from termios import FIONREAD
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ingestor import http as refusals
from ingestor.http import Bounds, Gatekeeper, Headers, Refusal, RefusalLog

_MOST_DISCARDED: Final = 1 << 20
_NEVER: Final = float("inf")
_PRELUDES: Final = (
    (b"PROXY ", refusals.PROXY_PROTOCOL),
    (b"\r\n\r\n\0\r\nQUIT\n", refusals.PROXY_PROTOCOL),
    (b"PRI * HTTP/2", refusals.HTTP_2),
)
_UPGRADE_FIELDS: Final = frozenset({b"upgrade", b"connection", b"http2-settings"})


@dataclass(slots=True)
class Common:
    """What all connections of one server share; `connections` are those that have not ended."""

    config: Config
    state: ServerState
    gatekeeper: Gatekeeper
    bounds: Bounds
    max_body: int
    refusals: RefusalLog
    connections: dict[Any, Any]
    stopping: bool = False


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser; the refusal is already on its way."""


class _Flow(FlowControl):
    """Reads on only once `ready` says so: uvicorn reads on with each request, and so takes a flood whole."""

    def __init__(self, transport: asyncio.Transport, ready: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._ready = ready

    def resume_reading(self) -> None:
        if self.read_paused and self._ready():
            super().resume_reading()


class _OnePiece:
    """Where uvicorn writes an answer: the head waits for the body, and they leave as one packet.

    uvloop sends at once whatever it is given: as two packets an answer took 7 % more of the processor.
    """

    __slots__ = ("_head", "_transport", "close", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.close, self.is_closing = transport.close, transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""


class Connection(HttpToolsProtocol):
    """The server's side of one connection. `peer` is what the gatekeeper made of its address."""

    def __init__(self, common: Common, client: socket.socket, address: str, peer: Any) -> None:
        super().__init__(common.config, common.state, {})
        # uvicorn's own parser is lenient about bytes behind a request that ends the connection.
        self.parser = httptools.HttpRequestParser(self)
        self.access_log = False  # a path is a secret; uvicorn logs it wherever the root logger has a handler
        self.address = address
        self.peer = peer
        self.busy_once = False
        self._client = client
        self._common = common
        self._bounds = common.bounds
        self.deadline = self.loop.time() + self._bounds.request_seconds
        self._reading = False
        self._head_done = False
        self._unanswered = 0
        self._half_closed = False
        self._refusal = b""
        self._discarded = 0
        self._first = b""
        self._fed = 0
        self._head: Headers = {}
        self._header_bytes = 0
        self._header_fields = 0
        self._body_bytes = 0
        self._upgrading = False

    # What the server asks

    @property
    def waiting(self) -> bool:
        """True while a whole request of this connection waits for its answer: it must not be cut off."""
        return self._unanswered > int(self._reading and self._head_done)

    @property
    def idle(self) -> bool:
        return not self._reading and not self._unanswered

    @property
    def quiet_since(self) -> float:
        """Since when (the loop's time) no request has begun."""
        return self.deadline - (self._bounds.idle_seconds if self.busy_once else self._bounds.request_seconds)

    @property
    def unread(self) -> bool:
        """Whether bytes of the client wait to be read: then it is not silent."""
        waiting = array("i", [0])
        with suppress(OSError, ValueError):  # it is closed
            ioctl(self._client, FIONREAD, waiting)
        return waiting[0] > 0

    def expire(self) -> None:
        """End a connection whose deadline has passed; a request half sent is told that it was too slow."""
        if self._reading and not self._refusal and not self.waiting:
            self.refuse(refusals.TOO_SLOW)
        else:
            self.abort()

    def finish(self) -> None:
        if self.idle:
            self.transport.close()
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # asyncio

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, lambda: self._unanswered <= self._bounds.pipelined)
        self.deadline = self.loop.time() + self._bounds.request_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the other end; what it sent whole goes on into the archive, only the answer is lost."""
        self._common.connections.pop(self, None)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn says None: it always closes
        """The client will send no more: keep the way back open while it waits for an answer."""
        self._half_closed = True
        return bool(self._unanswered) and self.scheme != "https"

    def pause_writing(self) -> None:
        """The client does not read its answers: the deadline ends it where it does not begin to."""
        super().pause_writing()
        self.deadline = self.loop.time() + self._bounds.request_seconds

    def data_received(self, data: bytes) -> None:
        if self._refusal:  # read on for a moment, else a reset overtakes the answer
            self._discarded += len(data)
            if self._discarded > _MOST_DISCARDED:
                self.abort()
            return
        self._fed += len(data)
        if len(self._first) < 16:
            self._first += data[:16]
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self._refusal:  # it was not our own refusal that stopped the parser
                self.refuse(self._prelude() or refusals.MALFORMED)
        else:
            if self._reading and not self._head_done and self._fed > self._bounds.header_bytes:
                self.refuse(self._prelude() or refusals.HEAD_TOO_LARGE)
            elif self._unanswered > self._bounds.pipelined:
                self.flow.pause_reading()

    def _prelude(self) -> Refusal | None:
        return next((kind for start, kind in _PRELUDES if self._first.startswith(start[:16])), None)

    def _read_on_without_upgrade(self, rest: bytes) -> None:
        """Read the request as one that asks for no other protocol (RFC 9110 7.8 lets a server ignore it).

        Java's HttpClient and `curl --http2` ask for h2c with each POST. llhttp takes the body for the other
        protocol; uvicorn would hand on an empty one.
        """
        self._upgrading = False
        self.parser = httptools.HttpRequestParser(self)
        head = b"POST %b HTTP/1.1\r\n" % self.url + b"".join(
            b"%b: %b\r\n" % (name, value) for name, value in self.headers if name not in _UPGRADE_FIELDS
        )
        if b"close" in _joined(self.headers)[b"connection"].lower():
            head += b"connection: close\r\n"
        first, self._first = self._first, b"." * 16
        self.data_received(head + b"\r\n" + rest)
        self._first = first

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Run the application, with its answer in one piece; one to HEAD has no body to wait for."""
        if cycle.scope["method"] != "HEAD" and not cycle.waiting_for_100_continue:
            cycle.transport = _OnePiece(self.transport)  # type: ignore[assignment]  # what uvicorn uses of one
        super()._start_asgi_task(cycle, app)

    # httptools

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading = True
        self._head_done = False
        self._fed = 0
        self._header_bytes = self._header_fields = self._body_bytes = 0
        self.deadline = self.loop.time() + self._bounds.request_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_fields += 1
        self._header_bytes += len(name) + len(value)
        if not self._head_done:
            super().on_header(name, value)
        elif self._head_too_large():
            self._stop(refusals.HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Judge the request by its head, before any of its body is kept, and start the application on it."""
        if self._head_too_large():
            self._stop(refusals.HEAD_TOO_LARGE)
        if self.parser.should_upgrade() and self.parser.get_method() == b"POST":
            self._upgrading = True
            return
        self._head = head = _joined(self.headers)
        if not self._unmistakable(head):
            self._stop(refusals.MALFORMED)
        verdict = self._common.gatekeeper.judge(self.parser.get_method(), self._path(), head, self.peer)
        if isinstance(verdict, Refusal):
            self._stop(verdict)
        if self._common.stopping and self.busy_once:  # a first request was on its way before the stop
            self._stop(refusals.STOPPING)
        if int(head.get(b"content-length", b"0")) > self._common.max_body:
            self._stop(refusals.TOO_LARGE)
        super().on_headers_complete()
        self.scope["state"].update(admission=verdict, head=head)
        self._head_done = True
        self._unanswered += 1

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._common.max_body:
            self._stop(refusals.TOO_LARGE)
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Bound what a chunked body costs beside its content: one-byte chunks and long extensions."""
        if self._fed > 8 * self._common.max_body + self._bounds.header_bytes:
            self._stop(refusals.TOO_LARGE)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._reading = False
        self.busy_once = True
        self.deadline = _NEVER
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or say what was refused behind this one.

        uvicorn's own would set a timer with each answer; the rounds have our deadline.
        """
        self._unanswered -= 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._unanswered:
            return
        if self._refusal:
            self._say()
        elif self._half_closed or self._common.stopping:
            self.transport.close()
        elif not self._reading:
            self.deadline = self.loop.time() + self._bounds.idle_seconds

    def _head_too_large(self) -> bool:
        return (
            self._header_fields > self._bounds.header_fields
            or self._header_bytes + len(self.url) > self._bounds.header_bytes
        )

    def _unmistakable(self, head: Headers) -> bool:
        """Say whether every server would see the same request: one Host, and one plain kind of framing."""
        version = self.parser.get_http_version()
        host = head.get(b"host")
        if host is None:
            if version != "1.0":
                return False
        elif b"," in host:
            return False
        encoding = head.get(b"transfer-encoding")
        if encoding is not None and (version == "1.0" or encoding.strip().lower() != b"chunked"):
            return False
        if self.parser.should_upgrade():
            return False
        # RFC 9112 3.2.2: a server must take the absolute form, which clients with a proxy setting send.
        return version in {"1.0", "1.1"} and self.url.lower().startswith((b"/", b"http://", b"https://"))

    def _path(self) -> bytes:
        target = self.url if self.url.startswith(b"/") else httptools.parse_url(self.url).path or b"/"
        return target.partition(b"?")[0]

    # Refusing

    def _stop(self, refusal: Refusal) -> None:
        self.refuse(refusal)
        raise _Refused

    def refuse(self, refusal: Refusal) -> None:
        """Refuse the request being read. Nothing after it on this connection is believed any more."""
        client = self._common.gatekeeper.client_of(self._head, self.peer)
        self._common.refusals.note(refusal, client)
        self._refusal = rendered(refusal)
        if self._reading and self._head_done:  # the application waits for the rest of its body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.cycle.on_response = lambda: None
            self._unanswered -= 1
            if self.pipeline and self.pipeline[0][0] is self.cycle:
                self.pipeline.popleft()
        self._reading = False
        if not self._unanswered:
            self._say()

    def _say(self) -> None:
        self.transport.write(self._refusal)
        self.deadline = self.loop.time() + self._bounds.linger_seconds
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


def rendered(refusal: Refusal) -> bytes:
    """Return the answer to a refused request: a status, no body, no Allow, and the connection ends."""
    unknown = refusal.status == HTTPStatus.UNAUTHORIZED
    challenge = 'WWW-Authenticate: Basic realm="webhook"\r\n' if unknown else ""
    return (
        f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"
        f"{challenge}Content-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode()


def _joined(headers: list[tuple[bytes, bytes]]) -> Headers:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        before = joined.get(name)
        joined[name] = value if before is None else before + b"," + value
    return joined
