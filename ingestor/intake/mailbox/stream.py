"""A connection's bytes: a deadline on every wait, and an end to any wait from another thread.

What imaplib's buffered file cannot do: a line split over two packets is waited for, bytes that came together
with IDLE's continuation are seen, a cut connection says so, and a dribbling server meets a deadline.
"""

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.waiting import Bell, Stopped, Timing, ready

LONGEST_LINE: Final = 1_000_000
"""What imaplib allows; our searches stay far below it."""

LARGEST_LITERAL: Final = 4 * 1024 * 1024
"""Four times the largest piece we ever ask for: RFC822.SIZE may be wrong, memory may not."""

LARGEST_ANSWER: Final = 32 * 1024 * 1024
"""All that one command may bring. Only a server that lies about sizes, or is hostile, meets it."""

LARGEST_PUSH: Final = 512 * 1024
"""All that may come between DONE and the end of IDLE: the EXPUNGEs of 40,000 mails."""

MOST_LINES: Final = 300_000
"""Lines that one command may bring; imaplib keeps each."""

_PIECE = 64 * 1024
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)  # Linux has it


class Flooded(MailboxUnavailable):
    """The server sends without end."""


class Stream:
    """A TCP connection, with TLS or to be given it. Every fault of it is a MailboxUnavailable."""

    def __init__(self, host: str, port: int, *, timing: Timing, stop: Bell) -> None:
        self.host = host
        self.port = port
        self.socket: Any = None
        self._timing = timing
        self._stop = stop
        self._buffer = bytearray()
        self._deadline = 0.0
        self._received = 0
        self._lines = 0
        self.bound = LARGEST_ANSWER
        """Bytes that may come before the next command."""
        self.hurry = False
        """Wait for bytes only as long as `Timing.hurried` says."""

    def fault(self, what: str) -> MailboxUnavailable:
        return MailboxUnavailable(f"{self.host}:{self.port}: {what}")

    def flooded(self) -> Flooded:
        return Flooded(f"{self.host}:{self.port}: it sends more than was asked for")

    def connect(self, *, local_only: bool) -> None:
        """Connect; with `local_only` to nothing but this machine."""
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as fault:
            raise self.fault(f"the name cannot be looked up ({_reason(fault)})") from None
        self.socket = self._connected(addresses)
        self._deadline = time.monotonic() + self._timing.connect
        if local_only and not ip_address(self.socket.getpeername()[0]).is_loopback:
            self.socket.close()
            raise self.fault('security = "plain" would send the password readable; use tls')
        _tune(self.socket)

    def _connected(self, addresses: list[Any]) -> socket.socket:
        """Return a connection to the first address that answers; each gets its share of the time."""
        fault = "its name has no address"
        for family, kind, protocol, _, address in addresses:
            self._deadline = time.monotonic() + self._timing.connect / len(addresses)
            connecting = socket.socket(family, kind, protocol)
            connecting.setblocking(False)
            try:
                self._await(connecting, connecting.connect_ex(address))
            except OSError as refusal:
                connecting.close()
                fault = os.strerror(refusal.errno or 0).lower()
            except BaseException:
                connecting.close()
                raise
            else:
                return connecting
        raise self.fault(fault)

    def _await(self, connecting: socket.socket, error: int) -> None:
        if error == errno.EINPROGRESS:
            self.socket = connecting
            self._wait(select.POLLOUT)
            error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def secure(self, context: ssl.SSLContext) -> None:
        """Put TLS on the socket. The certificate is always verified."""
        try:
            self.socket = context.wrap_socket(
                self.socket, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._retry(self.socket.do_handshake, select.POLLIN)
        except ssl.SSLCertVerificationError as fault:
            self.socket.close()
            raise self.fault(
                f"its certificate is not trusted ({fault.verify_message}); "
                "set ca_file to its authority, or mend the certificate"
            ) from None
        except OSError as fault:
            self.socket.close()
            raise self.fault(
                f"no TLS ({_reason(fault)}); is this the right port for the setting of `security`?"
            ) from None
        except BaseException:
            self.socket.close()
            raise

    def readline(self) -> bytes:
        """Return the next line with its end."""
        searched = 0
        # The end is looked for within the bound only: the packet that goes beyond it may bring the end, too.
        while (end := self._buffer.find(b"\n", searched, LONGEST_LINE)) < 0:
            searched = len(self._buffer)
            if searched >= LONGEST_LINE:
                raise self.fault(f"it sends a line of more than {LONGEST_LINE} bytes")
            self._receive()
        self._lines += 1
        if self._lines > MOST_LINES:
            raise self.flooded()
        return self._take(end + 1)

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        if size > LARGEST_LITERAL:
            raise self.fault(f"it sends {size} bytes where less was asked for")
        while len(self._buffer) < size:
            self._receive()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        with memoryview(self._buffer) as whole, whole[:size] as part:
            data = bytes(part)
        del self._buffer[:size]
        return data

    def send(self, data: Any) -> None:
        """Send `data`; the deadline of the command that it belongs to starts anew."""
        self._deadline = time.monotonic() + self._timing.command / (4 if self.hurry else 1)
        self._received = self._lines = 0
        left = memoryview(data)
        while left:
            left = left[self._transfer(partial(self.socket.send, left), select.POLLOUT) :]
        if _QUICK_ACK is not None:
            # A server that writes an answer in two pieces waits 40 ms for our ACK of the first one (its
            # Nagle, our delayed ACK). The kernel forgets the wish now and then.
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def close(self) -> None:
        """Close without any farewell."""
        if self.socket is not None:
            self.socket.close()

    @property
    def unread(self) -> bool:
        """Whether there are bytes that no `readline` or `read` has taken."""
        return bool(self._buffer)

    def wait_for_news(self, seconds: float) -> bool:
        """Wait for bytes from the server or the end of `seconds`; True when it is bytes (or the end of the
        connection), which the next command will then meet. Raises Stopped."""
        pending = self.socket.pending() if isinstance(self.socket, ssl.SSLSocket) else 0
        if self._buffer or pending:
            return True
        readable = ready(seconds, self.socket, self._stop)
        if self._stop.fileno() in readable:
            raise Stopped
        return self.socket.fileno() in readable

    def _receive(self) -> None:
        data = self._transfer(partial(self.socket.recv, _PIECE), select.POLLIN)
        if not data:
            raise self.fault("it closed the connection")
        self._received += len(data)
        if self._received > self.bound:
            raise self.flooded()
        self._buffer += data

    def _transfer(self, action: Callable[[], Any], events: int) -> Any:
        try:
            return self._retry(action, events)
        except OSError as fault:
            raise self.fault(_reason(fault)) from None

    def _retry(self, action: Callable[[], Any], events: int) -> Any:
        """Do `action` on the socket, waiting as often as it would block."""
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except BlockingIOError:
                self._wait(events)

    def _wait(self, events: int) -> None:
        """Wait until the socket is ready for `events`. Raises TimeoutError, or Stopped when asked to stop."""
        silence = min(self._timing.silence, self._timing.hurried) if self.hurry else self._timing.silence
        left = max(0.0, min(silence, self._deadline - time.monotonic()))
        poll = select.poll()
        poll.register(self.socket, events)
        poll.register(self._stop, select.POLLIN)
        possible = {number for number, _ in poll.poll(left * 1000)}
        if self._stop.fileno() in possible:
            raise Stopped
        if not possible:
            raise TimeoutError(
                errno.ETIMEDOUT,
                f"no answer for {silence:g} s" if left == silence else "it takes longer than we wait",
            )


def _reason(fault: OSError) -> str:
    """Return the fault in words that name nothing but the fault."""
    if isinstance(fault, ssl.SSLError):
        return f"TLS: {(fault.reason or 'broken off').lower().replace('_', ' ')}"
    return (fault.strerror or type(fault).__name__).lower()


def _tune(connected: socket.socket) -> None:
    """Notice dead peers, and send each small command at once.

    Without TCP_NODELAY search, store and append wait 40 ms for a delayed ACK each: they are two small writes.
    """
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 120_000),
    ):  # fmt: skip
        if hasattr(socket, name):  # not every system has each
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
