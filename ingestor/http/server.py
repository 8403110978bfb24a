"""The server's thread: accepting, the regular round over what has a deadline, and the graceful end."""

import asyncio
import errno
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from operator import attrgetter
from typing import Any, Final, Protocol

from uvicorn.config import Config
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.server import ServerState

from ingestor import http as refusals
from ingestor.errors import ConfigurationError
from ingestor.http import Bounds, Gatekeeper, RefusalLog
from ingestor.http.protocol import Common, Connection, rendered
from ingestor.http.tls import Certificate
from ingestor.logs import get_logger

_log = get_logger(__name__)

_BACKLOG: Final = 1024
_FIRST_HANDED_OVER: Final = 3
_ROUND_SECONDS: Final = 0.25
_IDLE_ROUND_SECONDS: Final = 3.0  # a first connection ends the wait
_STOPPING_ROUND_SECONDS: Final = 0.02
_KNOCKING_SECONDS: Final = 2.0
"""How long a stop waits for the first request of a connection that was accepted before it."""
_NEWCOMER_SECONDS: Final = 0.25
"""How long a connection is left alone before it may have to make room: what it sent may not be read yet."""
_CERTIFICATE_SECONDS: Final = 60.0
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SECONDS_WITHOUT_ROOM: Final = 0.02
_MOST_AT_ONCE: Final = 32


class Application(Protocol):
    """An ASGI 3 application with work of its own between requests."""

    @property
    def busy(self) -> bool:
        """Whether requests wait for their answer."""

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work in `loop` from now on."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; `scope["state"]` has what the gatekeeper said (`admission`) and the `head`."""

    def look_after(self) -> None:
        """Do what is due; called in each round of the loop."""

    def hurry(self, seconds: float) -> None:
        """The server stops: nothing may be waited for longer than `seconds`."""


class HttpServer:
    """Serves `app` on `sockets` from a thread called `name`, from `start` until `stop`."""

    def __init__(
        self, app: Application, gatekeeper: Gatekeeper, sockets: Sequence[socket.socket], *, name: str,
        max_body: int, bounds: Bounds, refusal_log: RefusalLog, certificate: Certificate | None = None,
    ) -> None:  # fmt: skip
        self.progress = 0.0
        """Monotonic time of the last finished round over all connections."""
        self._app = app
        self._sockets = sockets
        self._certificate = certificate
        # No lifespan, no logging and no server of uvicorn's own: its loop wakes ten times a second.
        config = Config(
            app, http=Connection, ws="none", lifespan="off", interface="asgi3", log_config=None,
            log_level="info", access_log=False, server_header=False, proxy_headers=False,
        )  # fmt: skip
        config.load()
        self._loop: asyncio.AbstractEventLoop  # there once the thread has begun
        self._connections: dict[Connection, asyncio.Task[None] | None] = {}
        self._common = Common(
            config, ServerState(), gatekeeper, bounds, max_body, refusal_log, self._connections
        )
        # A crowd must leave descriptors for the archive, the mailboxes and the spool.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_connections = min(bounds.connections, max(4, descriptors // 2 - 8))
        self._full_since: float | None = None
        self._stop_at = self._silent_until = float("inf")
        self._stop = asyncio.Event()
        self._woken = asyncio.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Serve; raises what kept the thread from it."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout: float) -> bool:
        """Refuse what is new, answer what was accepted, end; say whether all of it was done in time."""
        if self._thread.ident is None:
            return True
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._begin_stop, max(0.0, timeout - 1.0))
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        try:
            # uvloop's where it has a wheel: its own share of a request is a quarter of the standard one's.
            with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
                self._loop = runner.get_loop()
                runner.run(self._run())
        except BaseException as fault:
            self._failure = fault
            if self._ready.is_set():
                _log.exception("an HTTP server ended")
            raise
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._app.begin(self._loop)
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)
        rounds = self._loop.create_task(self._look_after_all())
        self._ready.set()
        await self._stop.wait()
        for (
            listening
        ) in self._sockets:  # what stays in its queue waits for the next process, if systemd keeps it
            self._loop.remove_reader(listening)
            listening.close()
        await rounds
        self._common.refusals.end()

    def _begin_stop(self, seconds: float) -> None:
        self._common.stopping = True
        self._stop_at = self._loop.time() + seconds
        self._silent_until = min(self._stop_at, self._loop.time() + _KNOCKING_SECONDS)
        self._app.hurry(seconds)
        self._stop.set()
        self._woken.set()

    # Accepting

    def _accept(self, listening: socket.socket) -> None:
        """Take clients; a callback, not a task, which a stop could cancel with a client in its hands.

        Several at once: while the daemon starts a turn of the loop can take longer than the next ones need.
        """
        for _ in range(_MOST_AT_ONCE):
            if not self._room_for_one():
                self._rest(listening)
                return
            try:
                client, address = listening.accept()
            except OSError as fault:  # none is left, or the client went away before it was accepted
                if fault.errno in _OUT_OF_DESCRIPTORS:
                    self._common.refusals.note(refusals.NO_DESCRIPTORS, "")
                    self._make_room()
                    self._rest(listening)
                return
            self._welcome(client, str(address[0]))

    def _room_for_one(self) -> bool:
        """Say whether to take one more client; who has waited for too long comes in to be refused."""
        if len(self._connections) < self._most_connections or self._make_room():
            self._full_since = None
            return True
        now = self._loop.time()
        self._full_since = self._full_since or now
        return now - self._full_since >= self._common.bounds.queue_seconds

    def _rest(self, listening: socket.socket) -> None:
        self._loop.remove_reader(listening)
        self._loop.call_later(_SECONDS_WITHOUT_ROOM, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if not self._common.stopping:
            self._loop.add_reader(listening, self._accept, listening)

    def _welcome(self, client: socket.socket, address: str) -> None:
        client.setblocking(False)
        if len(self._connections) >= self._most_connections:
            self._common.refusals.note(refusals.OVERLOADED, address)
            if self._certificate is None:
                with suppress(OSError):
                    client.send(rendered(refusals.OVERLOADED))
            client.close()
            return
        peer = self._common.gatekeeper.peer(address, encrypted=self._certificate is not None)
        if not self._connections:
            self._woken.set()
        connection = Connection(self._common, client, address, peer)
        task = self._loop.create_task(self._open(connection, client))
        task.add_done_callback(partial(self._opened, connection, client))
        self._connections[connection] = task

    async def _open(self, connection: Connection, client: socket.socket) -> None:
        context = self._certificate.context if self._certificate is not None else None
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.connect_accepted_socket(
            lambda: connection, client, ssl=context,
            ssl_handshake_timeout=self._common.bounds.request_seconds if context else None,
            ssl_shutdown_timeout=self._common.bounds.linger_seconds if context else None,
        )  # fmt: skip

    def _opened(self, connection: Connection, client: socket.socket, task: "asyncio.Task[None]") -> None:
        """Take note that a connection can be read, or never will be (TLS failed, dropped before)."""
        if task.cancelled() or task.exception() is not None:
            # Who only knocks and leaves, as a balancer's probe does, is not worth a line.
            if not task.cancelled() and isinstance(task.exception(), ssl.SSLError):
                self._common.refusals.note(refusals.NO_HANDSHAKE, connection.address)
            client.close()
            self._connections.pop(connection, None)
        elif connection in self._connections:
            self._connections[connection] = None

    def _make_room(self) -> bool:
        """End the oldest connection that has never got a request through, else the oldest idle one.

        So a crowd of silent connections cannot keep a provider out.
        """
        for proven in (False, True):
            quiet = [
                one for one in self._connections
                if one.busy_once is proven and not one.waiting and (one.idle or not proven)
            ]  # fmt: skip
            if quiet:
                oldest = min(quiet, key=attrgetter("quiet_since"))
                if oldest.quiet_since > self._loop.time() - _NEWCOMER_SECONDS or oldest.unread:
                    return False
                self._common.refusals.note(refusals.OVERLOADED, oldest.address)
                self._drop(oldest)
                return True
        return False

    def _drop(self, connection: Connection) -> None:
        task = self._connections.pop(connection)
        if task is not None:
            task.cancel()
        connection.abort()

    # The regular round

    async def _look_after_all(self) -> None:
        certificate_at = self._loop.time() + _CERTIFICATE_SECONDS
        while True:
            self._common.state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
            self._app.look_after()
            self._common.refusals.tick()
            now = self._loop.time()
            for connection in [one for one in self._connections if one.deadline < now]:
                connection.expire()
            if self._certificate is not None and now >= certificate_at:
                certificate_at = now + _CERTIFICATE_SECONDS
                self._certificate.refresh()
            self.progress = now
            if self._common.stopping and self._stopped(now):
                return
            await self._until_next_round()

    async def _until_next_round(self) -> None:
        if self._common.stopping:
            await asyncio.sleep(_STOPPING_ROUND_SECONDS)
            return
        self._woken.clear()
        busy = self._connections or self._app.busy
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), _ROUND_SECONDS if busy else _IDLE_ROUND_SECONDS)

    def _stopped(self, now: float) -> bool:
        for connection in list(self._connections):
            silent = now >= self._silent_until and not connection.unread
            if connection.busy_once or not connection.idle or silent:
                connection.finish()
        if (self._app.busy or self._connections) and now < self._stop_at:
            return False
        for connection in list(self._connections):
            self._drop(connection)
        return True


def bound(host: str, port: int, setting: str) -> list[socket.socket]:
    """Return listening sockets on every address of `host`. Raises ConfigurationError that names `setting`."""
    listening: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            one = socket.socket(family, kind, protocol)
            listening.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setblocking(False)
            one.bind(address)
            one.listen(_BACKLOG)
    except OSError as fault:
        for one in listening:
            with suppress(OSError):
                one.close()
        raise ConfigurationError(
            f"{setting} {host}:{port} cannot be had ({fault.strerror}); give an address of this machine "
            f"and a port that nobody uses"
        ) from None
    return listening


def handed_over(name: str) -> list[socket.socket]:
    """Return the listening sockets that systemd has opened for us as `name` (sd_listen_fds(3)), if any.

    It keeps them open over our restarts. What children would see is taken out of the environment.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    ours = [number for number in range(count) if names[number : number + 1] in ([name], [])]
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    for number in range(count):
        os.set_inheritable(_FIRST_HANDED_OVER + number, False)
    listening = [socket.socket(fileno=_FIRST_HANDED_OVER + number) for number in ours]
    for one in listening:
        one.setblocking(False)
    return listening
