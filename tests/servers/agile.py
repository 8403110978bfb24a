"""A fake Agile that does whatever a test asks: both answers, every code, delays, resets, silence."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ingestor.demo.agile import FakeAgile, Handler

Behaviour = Callable[["ScriptedAgile", Handler, dict[str, Any]], None]


class ScriptedAgile(FakeAgile):
    """Each request meets the next behaviour of `script`; when it is used up, `then` (good behaviour)."""

    def __init__(self, *script: Behaviour, then: Behaviour | None = None) -> None:
        """Begin with `script`."""
        super().__init__()
        self.script = list(script)
        self.then = then
        self.behaving = threading.Lock()

    def __enter__(self) -> "ScriptedAgile":
        """Begin to answer."""
        super().__enter__()
        return self

    def accept(self, handler: Handler, request: dict[str, Any]) -> None:
        """Let the next behaviour answer."""
        with self.behaving:
            behaviour = self.script.pop(0) if self.script else self.then
        if behaviour is None:
            super().accept(handler, request)
        else:
            behaviour(self, handler, request)

    @property
    def real(self) -> list[dict[str, Any]]:
        """The requests that were no simulation."""
        return [one for one in self.requests if not one["simulation"]]

    def times_sent(self) -> Counter[tuple[str, str]]:
        """Return how often each (number, text) was really sent."""
        messages = (message for request in self.real for message in request["messages"])
        return Counter((one["destinations"][0], one["body"]) for one in messages)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed hang up; nobody needs to read of it."""


def newer(accepted: bool = True, code: int = 200) -> Behaviour:
    """Answer in the newer form, with HTTP 200."""

    def behave(_: ScriptedAgile, handler: Handler, request: dict[str, Any]) -> None:
        message = request["messages"][0]
        result = {"destination": message["destinations"][0], "id": message["ids"][0]}
        results = [{**result, "accepted": accepted, "statusCode": code}]
        handler.reply(200, {"globalId": request["globalId"], "accepted": accepted, "results": results})

    return behave


def refusal(code: int, status: int = 400, **headers: str) -> Behaviour:
    """Answer with an error of Agile's documented form: `fail` for 4xx, `error` for 5xx."""
    answer: dict[str, Any] = {"status": "fail", "data": {"body": "refused"}, "code": code}
    if status >= 500:
        answer = {"status": "error", "message": "Number check service unavailable", "code": code}
    return lambda _, handler, __: handler.reply(status, answer, **headers)


def plain(status: int, body: Any = b"<html>", **headers: str) -> Behaviour:
    """Answer with anything."""
    return lambda _, handler, __: handler.reply(status, body, **headers)


def reset(after: int) -> Behaviour:
    """Reset the connection after `after` bytes of the answer."""

    def behave(_: ScriptedAgile, handler: Handler, __: dict[str, Any]) -> None:
        handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"processedMessages": 1'[:after])
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    return behave


def late(seconds: float, behaviour: Behaviour | None = None) -> Behaviour:
    """Answer after a while."""

    def behave(server: ScriptedAgile, handler: Handler, request: dict[str, Any]) -> None:
        time.sleep(seconds)
        if behaviour is None:
            FakeAgile.accept(server, handler, request)
        else:
            behaviour(server, handler, request)

    return behave


def silent(_: ScriptedAgile, handler: Handler, __: dict[str, Any]) -> None:
    """Say nothing until the client hangs up."""
    handler.connection.recv(1)
    handler.close_connection = True


def drip(_: ScriptedAgile, handler: Handler, __: dict[str, Any]) -> None:
    """Answer a byte at a time, without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
    for _number in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
