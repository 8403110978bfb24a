"""A client that sends exactly the bytes it is told to, and reads answers without any kindness."""

import re
import socket
import ssl
from types import TracebackType
from typing import NamedTuple, Self

FORM = "application/x-www-form-urlencoded"


class Answered(NamedTuple):
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


def sms(number: int, destination: str = "%2B393331234333") -> bytes:
    """Return the Agile form of the SMS called `number`."""
    return b"originator=%%2B39335%07d&destination=%b&date_time=20260514102301&text=message+%d" % (
        number % 10_000_000,
        destination.encode(),
        number,
    )


def post(path: str, body: bytes, *headers: str, method: str = "POST", content_type: str = FORM) -> bytes:
    """Return the bytes of one well-formed request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Client:
    """One connection to a listener."""

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext | None = None, timeout: float = 20.0
    ) -> None:
        plain = socket.create_connection(address, timeout=timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost") if context else plain
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def flood(self, data: bytes) -> None:
        """Send the same bytes until the server has had enough. Fails where it takes 64 MiB of them."""
        try:
            for _ in range((64 << 20) // len(data)):
                self.send(data)
        except ConnectionError:
            return
        raise AssertionError("the server takes everything")

    def answer(self) -> Answered:
        """Read one answer. Raises ConnectionError where the server ends the connection without one."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) [\w -]+", status_line)
        if match is None:
            raise AssertionError(f"no status line: {status_line!r}")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(match[1])
        length = 0 if status == 100 else int(headers["content-length"])
        while len(self._read) < length:
            self._more()
        body, self._read = self._read[:length], self._read[length:]
        return Answered(status, headers, body)

    def ask(self, data: bytes) -> Answered:
        """Send a request and read its answer."""
        self.send(data)
        return self.answer()

    def rest(self) -> bytes:
        """Return everything until the server ends the connection."""
        while True:
            try:
                piece = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLError):
                piece = b""
            if not piece:
                left, self._read = self._read, b""
                return left
            self._read += piece

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("the server ended the connection")
        self._read += piece
