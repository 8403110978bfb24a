"""One client connection: bytes in, judged requests out, answers in their order, and no patience.

httptools (llhttp, in its strict mode) parses; it already refuses most request-smuggling shapes. What it
lets through and two servers could read differently is refused here.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import httptools

from ingestor.intake.listener import gate
from ingestor.intake.listener.answers import CONTINUE, Answers
from ingestor.intake.listener.gate import Admission, Gate, Peer, Refusal
from ingestor.intake.listener.limits import Limits
from ingestor.intake.listener.refusals import RefusalLog
from ingestor.providers.contract import Answer

if TYPE_CHECKING:
    from ingestor.intake.listener.reception import Reception

_MOST_DISCARDED = 1 << 20
_NEVER = float("inf")


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser; the refusal is already on its way."""


class Exchange:
    """One request and its answer, in the order in which they must leave."""

    __slots__ = ("_connection", "close", "response")

    def __init__(self, connection: "Connection", *, close: bool) -> None:
        self._connection = connection
        self.close = close
        self.response: bytes | None = None

    def reply(self, answer: Answer | Refusal) -> None:
        """Answer the request, once: accepted in the provider's own words, or refused."""
        self._connection.reply(self, answer)


class Connection(asyncio.Protocol):
    """The server's side of one connection. `peer` was judged when it was accepted."""

    def __init__(
        self, peer: Peer, gatekeeper: Gate, reception: "Reception", answers: Answers, refusals: RefusalLog,
        max_body: int, limits: Limits, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.peer = peer
        self.deadline = clock() + limits.request_seconds
        self.busy_once = False
        self._gate = gatekeeper
        self._reception = reception
        self._answers = answers
        self._refusals = refusals
        self._max_body = max_body
        self._limits = limits
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._lingering = False
        self._discarded = 0
        self._paused = False
        self._fed = 0
        self._reading = False
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._header_fields = 0
        self._admission: Admission | None = None
        self._body: list[bytes] = []
        self._size = 0

    # What the server asks

    @property
    def waiting(self) -> bool:
        """True while a request of this connection waits for its answer: it must not be cut off."""
        return bool(self._queue)

    @property
    def idle(self) -> bool:
        """True between requests."""
        return not self._reading and not self._queue

    def expire(self) -> None:
        """End a connection whose deadline has passed; a request half sent is told that it was too slow."""
        if self._reading and not self._lingering and not self._queue:
            self._refuse(gate.TOO_SLOW)
        else:
            self.abort()

    def finish(self) -> None:
        """End the connection as soon as what it has begun is answered: the server is stopping."""
        if self.idle:
            self._close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: TLS, if any, is done."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        self.deadline = self._clock() + self._limits.request_seconds

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the other end; what it sent goes on into the archive, only the answer is lost."""
        self._transport = None
        self._reception.gone(self)

    def eof_received(self) -> bool:
        """The client will send no more: keep the way back open while it waits for an answer."""
        return bool(self._queue)

    def pause_writing(self) -> None:
        """The client does not read its answers: take no more until it does, or the deadline ends it."""
        self._pause(paused=True)
        self.deadline = self._clock() + self._limits.request_seconds

    def resume_writing(self) -> None:
        """The client reads again."""
        self._pause(paused=False)

    def data_received(self, data: bytes) -> None:
        """Feed what arrived to the parser."""
        if self._lingering:
            self._discarded += len(data)
            if self._discarded > _MOST_DISCARDED:
                self.abort()
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._lingering:  # it was not our own refusal that stopped the parser
                self._refuse(gate.MALFORMED)
        except httptools.HttpParserUpgrade:
            self._refuse(gate.MALFORMED)
        else:
            if self._reading and self._admission is None and self._fed > self._limits.header_bytes:
                self._refuse(gate.HEAD_TOO_LARGE)
            elif len(self._queue) >= self._limits.pipelined:
                self._pause(paused=True)

    # httptools

    def on_message_begin(self) -> None:
        """A request begins: from here on its time runs."""
        self._reset()
        self._reading = True
        self._fed = 0
        self.deadline = self._clock() + self._limits.request_seconds

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header field. Those behind a chunked body (trailers) are counted and otherwise ignored."""
        self._header_fields += 1
        self._header_bytes += len(name) + len(value)
        if self._admission is None:
            key = name.lower()
            before = self._headers.get(key)
            self._headers[key] = value if before is None else before + b"," + value
        elif (
            self._header_fields > self._limits.header_fields or self._header_bytes > self._limits.header_bytes
        ):
            self._stop(gate.HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Judge the request by its head, before any of its body is kept."""
        headers = self._headers
        if (
            self._header_fields > self._limits.header_fields
            or self._header_bytes + len(self._target) > self._limits.header_bytes
        ):
            self._stop(gate.HEAD_TOO_LARGE)
        if not self._unmistakable():
            self._stop(gate.MALFORMED)
        path, _, query = self._target.partition(b"?")
        verdict = self._gate.judge(self._parser.get_method(), path, headers, self.peer)
        if isinstance(verdict, Refusal):
            self._stop(verdict)
            return
        if self._reception.stopping:
            self._stop(gate.STOPPING)
        if int(headers.get(b"content-length", b"0")) > self._max_body:
            self._stop(gate.TOO_LARGE)
        self._admission = verdict
        self._query = query
        if headers.get(b"expect", b"").lower() == b"100-continue" and not self._queue:
            self._write(CONTINUE)

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body, up to the largest size."""
        self._size += len(piece)
        if self._size > self._max_body:
            self._stop(gate.TOO_LARGE)
        self._body.append(piece)

    def on_chunk_header(self) -> None:
        """Bound what a chunked body costs beside its content: one-byte chunks and long extensions."""
        if self._fed > 8 * self._max_body + self._limits.header_bytes:
            self._stop(gate.TOO_LARGE)

    def on_message_complete(self) -> None:
        """Hand a whole request on; it is answered when it is durable."""
        admission = self._admission
        if admission is None:
            return
        self._reading = False
        self.busy_once = True
        self.deadline = _NEVER
        exchange = Exchange(self, close=not self._parser.should_keep_alive())
        self._queue.append(exchange)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        encoding = self._headers.get(b"content-encoding", b"").decode("latin-1")
        self._admission = None
        self._reception.take(exchange, admission, body, self._query, content_type, encoding)

    def _unmistakable(self) -> bool:
        """Say whether every server would see the same request: one Host, and one plain kind of framing."""
        headers = self._headers
        version = self._parser.get_http_version()
        host = headers.get(b"host")
        if host is None:
            if version != "1.0":
                return False
        elif b"," in host:
            return False
        encoding = headers.get(b"transfer-encoding")
        if encoding is not None and (version == "1.0" or encoding.strip().lower() != b"chunked"):
            return False
        if self._parser.should_upgrade():  # llhttp takes the body of such a request for another protocol
            return False
        return version in {"1.0", "1.1"} and self._target.startswith(b"/")

    # Answers

    def reply(self, exchange: Exchange, answer: Answer | Refusal) -> None:
        """Give `exchange` its answer; it leaves when those before it have left."""
        if exchange.response is not None or self._transport is None:
            return
        if isinstance(answer, Refusal):
            self._refusals.note(answer, self._gate.client_of(self._headers, self.peer))
            exchange.close = True
            exchange.response = self._answers.refused(answer)
        else:
            exchange.close = exchange.close or self._reception.stopping
            exchange.response = self._answers.accepted(answer, close=exchange.close)
        self._flush()

    def _flush(self) -> None:
        queue = self._queue
        while queue:
            response = queue[0].response
            if response is None:
                return
            close = queue.popleft().close
            self._write(response)
            if close:
                queue.clear()
                self._linger()
                return
        if not self._reading:
            self.deadline = self._clock() + self._limits.idle_seconds
        if self._paused:
            self._pause(paused=False)

    def _stop(self, refusal: Refusal) -> None:
        """Refuse from inside the parser, which must not go on."""
        self._refuse(refusal)
        raise _Refused

    def _refuse(self, refusal: Refusal) -> None:
        """Refuse the request being read. Nothing after it on this connection is believed any more."""
        exchange = Exchange(self, close=True)
        self._queue.append(exchange)
        self._reading = False
        self._lingering = True
        exchange.reply(refusal)

    def _linger(self) -> None:
        """Close so that the answer arrives: reading on for a moment keeps a reset from overtaking it."""
        transport = self._transport
        if transport is None:
            return
        self._lingering = True
        self.deadline = self._clock() + self._limits.linger_seconds
        if transport.can_write_eof():
            transport.write_eof()
        else:
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _pause(self, *, paused: bool) -> None:
        if self._transport is None or self._transport.is_closing() or paused == self._paused:
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
