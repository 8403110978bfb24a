"""A crowd of providers: many connections that post messages until each is acknowledged."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

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
