"""A TCP proxy that breaks connections on purpose: delays, cuts to the byte, resets, swallows."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Plan:
    """What happens to the connections; may be changed while the proxy runs."""

    delay: float = 0.0
    """Seconds each chunk is held back, in each direction (half a round trip)."""
    cut_after: int | None = None
    """Close after so many bytes from the server, counted per connection."""
    reset: bool = False
    """Close with RST, not FIN."""
    cuts_left: int = 1_000_000
    """How many connections are cut; the ones after them pass."""
    blackhole: bool = False
    """Swallow everything in both directions, and keep the connection open."""
    refuse: bool = False
    """Reset every new connection at once."""


class FaultProxy:
    """Passes connections on `port` to `target_port` on loopback, from a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.plan = Plan()
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultProxy"]:
        """Run until the block ends."""
        ready = threading.Event()
        stop = asyncio.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()
            server.close()
            self._abort_all(reset=False)
            await asyncio.sleep(0.01)
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0.01)

        def run() -> None:
            with contextlib.closing(self._loop):
                self._loop.run_until_complete(serve())

        thread = threading.Thread(target=run, name="fault-proxy", daemon=True)
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(10)

    def cut_now(self, *, reset: bool = False) -> None:
        """Cut every connection that is open now."""
        self._loop.call_soon_threadsafe(lambda: self._abort_all(reset=reset))

    def _abort_all(self, *, reset: bool) -> None:
        for writer in list(self._writers):
            _abort(writer, reset=reset)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.plan.refuse:
            _abort(writer, reset=True)
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _abort(writer, reset=True)
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(
                self._pump(reader, back, writer, counted=False), self._pump(there, writer, back, counted=True)
            )
        finally:
            for one in (writer, back):
                self._writers.discard(one)
                one.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, other: asyncio.StreamWriter,
        *, counted: bool,
    ) -> None:  # fmt: skip
        """Pass bytes on; with a delay they travel while more are read, as on a long line."""
        passed = 0
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send_later(queue, sink))
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.plan.blackhole:
                    continue
                limit = self.plan.cut_after if counted and self.plan.cuts_left > 0 else None
                if limit is not None and passed + len(data) >= limit:
                    self.plan.cuts_left -= 1
                    sink.write(data[: max(0, limit - passed)])
                    with contextlib.suppress(OSError):
                        await sink.drain()
                    _abort(sink, reset=self.plan.reset)
                    _abort(other, reset=self.plan.reset)
                    break
                passed += len(data)
                if self.plan.delay:
                    await queue.put((loop.time() + self.plan.delay, data))
                else:
                    sink.write(data)
                    await sink.drain()
        await queue.put((loop.time() + self.plan.delay, b""))
        with contextlib.suppress(OSError):
            await sender
        if not sink.is_closing():
            sink.close()

    @staticmethod
    async def _send_later(queue: "asyncio.Queue[tuple[float, bytes]]", sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            if not data:
                return
            await asyncio.sleep(max(0.0, due - loop.time()))
            sink.write(data)
            await sink.drain()


def _abort(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        connected = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return
    with contextlib.suppress(OSError):
        writer.close()
