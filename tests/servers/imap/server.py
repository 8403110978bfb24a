"""A small IMAP4rev1 server on asyncio: the demo's throw-away mailbox, and where tests script faults.

It speaks what an intake needs (LOGIN, AUTHENTICATE PLAIN, STARTTLS, NAMESPACE, LIST, SELECT, STATUS, SEARCH,
FETCH with partial bodies, STORE, COPY, UID MOVE, UID EXPUNGE, APPEND, IDLE) and is no server for people:
one account, everything in memory, loopback only.
"""

import asyncio
import base64
import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from tests.servers.imap.box import Box, Faults, Source
from tests.servers.imap.commands import Conversation

CAPABILITIES = ("IMAP4rev1", "IDLE", "NAMESPACE", "UIDPLUS", "MOVE", "UNSELECT", "AUTH=PLAIN")
Result = TypeVar("Result")


class ImapServer:
    """One account with its boxes on a loopback port; run it in a thread (`running`) or in a loop (`listen`).

    `boxes` is keyed by folder name as the server sees it (modified UTF-7, namespace prefix included).
    """

    def __init__(
        self,
        boxes: Mapping[str, Box] | None = None,
        *,
        username: str = "demo",
        password: str = "demo",
        capabilities: tuple[str, ...] = CAPABILITIES,
        prefix: str = "",
        separator: str = "/",
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
    ) -> None:
        self.boxes: dict[str, Box] = dict(boxes) if boxes is not None else {"INBOX": Box()}
        self.username = username
        self.password = password
        self.capabilities = capabilities
        self.prefix = prefix
        self.separator = separator
        self.starttls = starttls
        self.faults = Faults()
        self.port = 0
        self.commands: list[str] = []
        self.pushed_at: list[float] = []
        """`time.monotonic()` of each EXISTS pushed into an IDLE."""
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[Conversation, asyncio.Task[None]] = {}

    async def listen(self, port: int = 0) -> None:
        """Open the port (0: any free one; then read `port`)."""
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(
            self._converse, "127.0.0.1", port, ssl=self._tls, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        await self.drop_everybody()

    async def drop_everybody(self) -> None:
        """Cut every connection without a BYE."""
        tasks = list(self._open.items())
        for conversation, task in tasks:
            conversation.abort()
            task.cancel()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._open)

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator["ImapServer"]:
        """Serve from a thread of its own until the block ends."""
        ready = threading.Event()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            try:
                await self.listen(port)
            finally:
                ready.set()
            await stop.wait()
            await self.close()

        def run() -> None:
            with contextlib.closing(loop):
                loop.run_until_complete(serve())

        thread = threading.Thread(target=run, name="imap-server", daemon=True)
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)

    def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` in the server's loop, from any other thread, and return its result."""
        if self._loop is None:
            raise RuntimeError("the server does not run yet")

        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    def deliver(self, source: Source, folder: str = "INBOX", flags: tuple[str, ...] = ()) -> int:
        """Deliver a mail from any other thread; returns its UID."""
        return self.call(lambda: self.boxes[folder].deliver(source, flags))

    def disconnect(self) -> None:
        """Cut every connection from any other thread, without a BYE."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.drop_everybody(), self._loop).result(60)

    def accepts(self, username: str, password: str) -> bool:
        return (username, password) == (self.username, self.password)

    def accepts_plain(self, response: bytes) -> bool:
        """Judge a SASL PLAIN response (RFC 4616): authorization, user name and password parted by NUL."""
        try:
            _, username, password = base64.b64decode(response).decode().split("\0")
        except ValueError:
            return False
        return self.accepts(username, password)

    def pushed(self) -> None:
        self.pushed_at.append(time.monotonic())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(self, reader, writer)
        task = asyncio.current_task()
        if task is not None:
            self._open[conversation] = task
        try:
            await conversation.run()
        except (OSError, EOFError, asyncio.CancelledError, asyncio.LimitOverrunError):
            pass  # the client, or a test, cut the line
        finally:
            self._open.pop(conversation, None)
            conversation.leave()
            writer.close()
