"""A crowd of providers: many connections that post messages until each is acknowledged."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from tests.intake.listener.client import post, sms
from tests.intake.listener.stand import AGILE


class Crowd:
    """Posts each message until somebody says +OK; remembers who was told what."""

    def __init__(
        self, address: Callable[[], tuple[str, int]], numbers: Iterable[int],
        acknowledged: Callable[[int], None] = lambda _: None, *, rest: float = 0.0, patience: float = 60.0,
    ) -> None:  # fmt: skip
        """`acknowledged` is called after each +OK with the number of them so far; `rest` and `patience` are
        the seconds between two messages of one connection, and for everything."""
        self.acknowledged: list[int] = []
        self.refused = 0
        self.retries = 0
        self._address = address
        self._numbers: Iterator[int] = iter(numbers)
        self._tell = acknowledged
        self._rest = rest
        self._patience = patience

    def run(self, connections: int = 64) -> None:
        """Post everything over `connections` at once."""
        asyncio.run(self._run(connections))

    async def _run(self, connections: int) -> None:
        async with asyncio.timeout(self._patience):
            await asyncio.gather(*(self._client() for _ in range(connections)))

    async def _client(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for number in self._numbers:
            while True:
                try:
                    streams = streams or await asyncio.open_connection(*self._address())
                    done = await self._ask(*streams, number)
                except (OSError, asyncio.IncompleteReadError):
                    done = False
                if done:
                    break
                if streams is not None:
                    streams[1].close()
                streams = None
                self.retries += 1
                await asyncio.sleep(0.01)
            if self._rest:
                await asyncio.sleep(self._rest)
        if streams is not None:
            streams[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(post(AGILE, sms(number)))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            self.refused += 1
            return False
        assert await reader.readexactly(3) == b"+OK"
        self.acknowledged.append(number)
        self._tell(len(self.acknowledged))
        return True


class Steady:
    """POSTs at a steady rate while open, each message once and over a connection of its own.

    `faults` has what did not hear +OK, with what it heard instead.
    """

    def __init__(self, address: tuple[str, int], path: str, rate: int) -> None:
        """`rate` is a second; each POST has a minute."""
        self.faults: list[object] = []
        self._address = address
        self._path = path
        self._rate = rate
        self._ended = threading.Event()
        self._posts: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def sent(self) -> int:
        """How many POSTs there were."""
        return len(self._posts)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def end(self) -> None:
        """Send no more, and wait for the last answer."""
        self._ended.set()
        self._thread.join()
        for one in self._posts:
            one.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._ended.wait(max(0.0, begun + len(self._posts) / self._rate - time.monotonic())):
            self._posts.append(threading.Thread(target=self._send, args=(len(self._posts),), daemon=True))
            self._posts[-1].start()

    def _send(self, number: int) -> None:
        try:
            with socket.create_connection(self._address, 60) as client:
                client.sendall(post(self._path, sms(number), "Connection: close"))
                answer = b"".join(iter(lambda: client.recv(4096), b""))
        except OSError as fault:
            self.faults.append((number, fault))
        else:
            if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"+OK"):
                self.faults.append((number, answer[:60]))
