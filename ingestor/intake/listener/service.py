"""What runs in the listener's event loop: accepting, the regular round, and the graceful end."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

import structlog

from ingestor.intake.listener import gate
from ingestor.intake.listener.answers import Answers
from ingestor.intake.listener.connection import Connection
from ingestor.intake.listener.gate import Gate
from ingestor.intake.listener.keeper import Keeper
from ingestor.intake.listener.limits import Limits
from ingestor.intake.listener.received import RulesByProvider, Taker
from ingestor.intake.listener.reception import Reception
from ingestor.intake.listener.refusals import RefusalLog
from ingestor.intake.listener.tls import Certificate

_log = structlog.get_logger()

_ROUND_SECONDS = 0.25
_STOPPING_ROUND_SECONDS = 0.02
_CERTIFICATE_SECONDS = 60.0
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SECONDS_WITHOUT_DESCRIPTORS = 0.2
_STOP_SECONDS_FOR_WRITER = 3.0


class Service:
    """The connections of one listener and the rounds over them."""

    def __init__(
        self, gatekeeper: Gate, certificate: Certificate | None, sockets: Sequence[socket.socket],
        keeper: Keeper, writer: Taker, rules: RulesByProvider, refusals: RefusalLog,
        loop: asyncio.AbstractEventLoop, run_id: int | None, max_body: int, limits: Limits,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self.progress = loop.time()
        self.reception = Reception(writer, keeper, rules, run_id, limits, loop, now, self._forget)
        self._gate = gatekeeper
        self._certificate = certificate
        self._sockets = sockets
        self._refusals = refusals
        self._loop = loop
        self._max_body = max_body
        self._limits = limits
        self._answers = Answers()
        self._connections: dict[Connection, asyncio.Task[None] | None] = {}
        self._stop_at = float("inf")
        self._stopping = asyncio.Event()

    def stop(self, seconds: float) -> None:
        """From any thread: end within `seconds`."""
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._begin_stop, seconds)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until `stop`."""
        acceptors = [self._loop.create_task(self._accept(one)) for one in self._sockets]
        rounds = self._loop.create_task(self._rounds())
        ready()
        await self._stopping.wait()
        for task in acceptors:
            task.cancel()
        for listening in self._sockets:
            listening.close()
        await rounds
        self._refusals.end()
        await asyncio.gather(*acceptors, return_exceptions=True)

    def _begin_stop(self, seconds: float) -> None:
        self._stop_at = self._loop.time() + seconds
        self.reception.hurry(min(_STOP_SECONDS_FOR_WRITER, seconds / 3))
        self._stopping.set()

    # Accepting

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, address = await self._loop.sock_accept(listening)
            except OSError as fault:
                if fault.errno in _OUT_OF_DESCRIPTORS:
                    _log.error("the webhook cannot accept connections", error=fault.strerror)
                    await asyncio.sleep(_SECONDS_WITHOUT_DESCRIPTORS)
                continue  # the client went away before it was accepted
            self._welcome(client, str(address[0]))

    def _welcome(self, client: socket.socket, address: str) -> None:
        client.setblocking(False)
        peer = self._gate.peer(address, encrypted=self._certificate is not None)
        if len(self._connections) >= self._limits.connections and not self._make_room():
            self._refusals.note(gate.OVERLOADED, address)
            if self._certificate is None:
                with suppress(OSError):
                    client.send(self._answers.refused(gate.OVERLOADED))
            client.close()
            return
        connection = Connection(
            peer, self._gate, self.reception, self._answers, self._refusals, self._max_body, self._limits,
            self._loop.time,
        )  # fmt: skip
        task = self._loop.create_task(self._open(connection, client))
        task.add_done_callback(partial(self._opened, connection, client))
        self._connections[connection] = task

    async def _open(self, connection: Connection, client: socket.socket) -> None:
        context = self._certificate.context if self._certificate is not None else None
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.connect_accepted_socket(
            lambda: connection, client, ssl=context,
            ssl_handshake_timeout=self._limits.request_seconds if context else None,
            ssl_shutdown_timeout=self._limits.linger_seconds if context else None,
        )  # fmt: skip

    def _opened(self, connection: Connection, client: socket.socket, task: "asyncio.Task[None]") -> None:
        """Take note that a connection can be read, or never will be (TLS failed, dropped before)."""
        if task.cancelled() or task.exception() is not None:
            # Who only knocks and leaves, as a balancer's probe does, is not worth a line.
            if not task.cancelled() and isinstance(task.exception(), ssl.SSLError):
                self._refusals.note(gate.NO_HANDSHAKE, connection.peer.text)
            client.close()
            self._connections.pop(connection, None)
        elif connection in self._connections:
            self._connections[connection] = None

    def _make_room(self) -> bool:
        """End the oldest connection that has never got a request through, else the oldest idle one.

        So that a crowd of silent connections cannot keep a provider out for longer than it takes to knock.
        """
        for proven in (False, True):
            for connection in self._connections:
                if (
                    connection.busy_once is proven
                    and not connection.waiting
                    and (connection.idle or not proven)
                ):
                    self._refusals.note(gate.OVERLOADED, connection.peer.text)
                    self._drop(connection)
                    return True
        return False

    def _drop(self, connection: Connection) -> None:
        task = self._connections.pop(connection)
        if task is not None:
            task.cancel()
        connection.abort()

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    # The regular round

    async def _rounds(self) -> None:
        """Look after everything that has a deadline, until the end."""
        certificate_at = self._loop.time() + _CERTIFICATE_SECONDS
        while True:
            self._answers.tick()
            self.reception.look_after()
            self._refusals.tick()
            now = self._loop.time()
            for connection in [one for one in self._connections if one.deadline < now]:
                connection.expire()
            if self._certificate is not None and now >= certificate_at:
                certificate_at = now + _CERTIFICATE_SECONDS
                self._certificate.refresh()
            self.progress = now
            if self._stopping.is_set() and self._stopped(now):
                return
            await self._until_next_round()

    async def _until_next_round(self) -> None:
        if self._stopping.is_set():
            await asyncio.sleep(_STOPPING_ROUND_SECONDS)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _ROUND_SECONDS)

    def _stopped(self, now: float) -> bool:
        for connection in list(self._connections):
            connection.finish()
        if self.reception.in_flight and now < self._stop_at:
            return False
        if self._connections and now < self._stop_at:
            return False
        for connection in list(self._connections):
            self._drop(connection)
        return True
