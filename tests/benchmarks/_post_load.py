"""A load generator in one process: unique Agile POSTs over many connections, and how long each answer took.

    python -m tests.benchmarks._post_load PORT PATH CONNECTIONS SECONDS FIRST-NUMBER

One epoll loop with nothing but a prepared request a connection, so that it does not become what is measured.
It prints a line of JSON.
"""

import json
import select
import socket
import sys
import time
from functools import lru_cache


def request(path: str, number: int, second: int) -> bytes:
    """Return the POST of the SMS called `number`, sent at `second` (of the epoch)."""
    body = b"originator=%%2B39335%07d&destination=%%2B393331234333&date_time=%b&text=message+%d" % (
        number % 10_000_000,
        _written(second),
        number,
    )
    return (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )


@lru_cache(maxsize=2)
def _written(second: int) -> bytes:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(second)).encode()


class _Client:
    """One connection with at most one request on its way."""

    def __init__(self, port: int, poll: select.epoll, clients: "dict[int, _Client]") -> None:
        self.since = time.perf_counter()
        self.closing = False
        self._answer = b""
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = poll
        self._clients = clients
        clients[self._socket.fileno()] = self
        poll.register(self._socket.fileno(), select.EPOLLIN)

    def send(self, data: bytes) -> None:
        """Send a whole request; its time begins."""
        if not self.closing and self._answer:
            self.since = time.perf_counter()
        self._answer = b""
        self._socket.send(data)

    def receive(self) -> bool | None:
        """Return whether the answer is the right one, or None while it is not complete."""
        try:
            piece = self._socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        self._answer += piece
        if not piece:
            self.closing = True
            return False
        if b"\r\n\r\n" not in self._answer:
            return None
        if self._answer.startswith(b"HTTP/1.1 200 ") and not self._answer.endswith(b"+OK"):
            return None
        self.closing = b"onnection: close" in self._answer
        return self._answer.startswith(b"HTTP/1.1 200 ")

    def close(self) -> None:
        """End the connection."""
        del self._clients[self._socket.fileno()]
        self._poll.unregister(self._socket.fileno())
        self._socket.close()


def load(port: int, path: str, connections: int, seconds: float, first: int) -> dict[str, float]:
    """Keep one request in flight on each connection for `seconds`; return what came back and how fast."""
    poll = select.epoll()
    clients: dict[int, _Client] = {}
    waits: list[float] = []
    failed = 0
    number = first
    began = time.perf_counter()
    until = began + seconds
    for _ in range(connections):
        client = _Client(port, poll, clients)
        client.send(request(path, number, int(time.time())))
        number += 1
    while clients:
        for descriptor, _ in poll.poll(30):
            client = clients[descriptor]
            done = client.receive()
            if done is None:
                continue
            if done:
                waits.append(time.perf_counter() - client.since)
            else:
                failed += 1
            if time.perf_counter() >= until:
                client.close()
                continue
            if client.closing:  # gunicorn's plain workers end the connection after each answer
                client.close()
                client = _Client(port, poll, clients)
            client.send(request(path, number, int(time.time())))
            number += 1
    took = time.perf_counter() - began
    waits.sort()
    return {
        "accepted": len(waits),
        "failed": failed,
        "rate": len(waits) / took,
        "median_ms": 1000 * waits[len(waits) // 2] if waits else 0.0,
        "p99_ms": 1000 * waits[int(len(waits) * 0.99)] if waits else 0.0,
    }


if __name__ == "__main__":
    port, path, connections, seconds, first = sys.argv[1:]
    print(json.dumps(load(int(port), path, int(connections), float(seconds), int(first))))
