"""One connection: its bytes, with a deadline on every wait, and imaplib's protocol over them.

Our own bytes do what imaplib's buffered file cannot: a line split over two packets is waited for, bytes that
came together with IDLE's continuation are seen, a cut connection says so, a dribbling server meets a
deadline, and another thread can end any wait.
"""

import contextlib
import errno
import imaplib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

from imapclient import IMAPClient, SocketTimeout

from ingestor.errors import ConfigurationError, MailboxUnavailable
from ingestor.intake.mailbox.context import Bell, Stopped, Timing, ready
from ingestor.settings import Mailbox

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


_CERTIFICATE: Final = {  # by X509_V_ERR_… of OpenSSL
    9: ("is not good yet", "look at this machine's clock"),
    10: ("has ended", "it must be renewed on the server"),
    62: ("is for another name", "correct `host`"),
    64: ("is for another name", "correct `host`: the name in the certificate, no address"),
}
_UNTRUSTED: Final = "is not trusted", "set ca_file to its authority, or mend the certificate"


class Flooded(MailboxUnavailable):
    """The server sends without end."""


class Wire(imaplib.IMAP4):
    """One connection: commands and answers over bytes of our own. Each fault of it is a MailboxUnavailable.

    `open`, `read`, `readline`, `send` and `shutdown` are methods that imaplib documents as to be overridden.
    """

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, local_only: bool,
        timing: Timing, stop: Bell,
    ) -> None:  # fmt: skip
        self.host = host
        self.port = port
        self.sock: Any = None
        self._encrypt_at_once = tls
        self._local_only = local_only
        self._timing = timing
        self._stop = stop
        self._buffer = bytearray()
        self._deadline = 0.0
        self._received = 0
        self._lines = 0
        self._bound = LARGEST_ANSWER  # bytes that may come before the next command
        self.hurry = False
        """Wait for bytes only as long as `Timing.hurried` says."""
        super().__init__(host, port)

    @property
    def debug(self) -> int:
        """Always 0. imapclient sets 5, and each literal is then formatted for a debug log: half its time."""
        return 0

    @debug.setter
    def debug(self, value: int) -> None:
        pass

    def open(self, *_: Any) -> None:
        """Connect; imaplib calls this. The times allowed are those of Timing, not its own."""
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as fault:
            raise self.fault(f"the name cannot be looked up ({_reason(fault)})") from None
        self.sock = self._connected(addresses)
        self._deadline = time.monotonic() + self._timing.connect
        if self._local_only and not ip_address(self.sock.getpeername()[0]).is_loopback:
            self.sock.close()
            raise self.fault('security = "plain" would send the password readable; use tls')
        _tune(self.sock)
        if self._encrypt_at_once is not None:
            self._secure(self._encrypt_at_once)

    def starttls(self, ssl_context: ssl.SSLContext | None = None) -> Any:
        """Switch to TLS. Unencrypted bytes after the answer are an injection (CVE-2011-0411) and refused."""
        if ssl_context is None:
            raise ValueError("a verifying context is needed")
        answer, words = self._simple_command("STARTTLS")
        if answer != "OK":
            raise self.fault("it refuses STARTTLS; the password was not sent")
        if self._buffer:
            raise self.fault("unencrypted bytes follow its STARTTLS answer; somebody may be in the line")
        self._secure(ssl_context)
        self._tls_established = True
        self._get_capabilities()
        return answer, words

    def begin_idle(self) -> bytes:
        """Enter IDLE and return its tag, once the server has agreed.

        News may come before that (Outlook does so); imapclient's own `idle` gives up there.
        """
        tag: bytes = self._command("IDLE")
        while self._get_response() is not None:
            if self.tagged_commands[tag] is not None:
                raise self.error("IDLE command error: it is refused")
        return tag

    def end_idle(self, tag: bytes) -> None:
        """Leave IDLE. What was pushed meanwhile is not kept, and bounded: a server may push without end."""
        self.send(b"DONE\r\n")
        self._bound = LARGEST_PUSH
        try:
            while not self.tagged_commands[tag]:
                self._get_response()
                if "BYE" in self.untagged_responses:
                    raise self.abort("BYE")
                self.untagged_responses.clear()
        finally:
            self._bound = LARGEST_ANSWER
        status, words = self.tagged_commands.pop(tag) or ("BAD", [b""])
        if status != "OK":
            raise self.error(words[-1])

    def fault(self, what: str) -> MailboxUnavailable:
        return MailboxUnavailable(f"{self.host}:{self.port}: {what}")

    def _flooded(self) -> Flooded:
        return Flooded(f"{self.host}:{self.port}: it sends more than was asked for")

    def _connected(self, addresses: list[Any]) -> socket.socket:
        """Return a connection to the first address that answers; each gets its share of the time."""
        fault = "its name has no address"
        for family, kind, protocol, _, address in addresses:
            self._deadline = time.monotonic() + self._timing.connect / len(addresses)
            connecting = socket.socket(family, kind, protocol)
            connecting.setblocking(False)
            error = connecting.connect_ex(address)
            try:
                if error == errno.EINPROGRESS:
                    self.sock = connecting
                    self._wait(select.POLLOUT)
                    error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            except TimeoutError as late:
                error = late.errno or errno.ETIMEDOUT
            except BaseException:
                connecting.close()
                raise
            if not error:
                return connecting
            connecting.close()
            fault = os.strerror(error).lower()
        raise self.fault(fault)

    def _secure(self, context: ssl.SSLContext) -> None:
        """Put TLS on the socket. The certificate is always verified."""
        try:
            self.sock = context.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._retry(self.sock.do_handshake, select.POLLIN)
        except BaseException as fault:
            self.sock.close()
            if isinstance(fault, ssl.SSLCertVerificationError):
                what, fix = _CERTIFICATE.get(fault.verify_code, _UNTRUSTED)
                raise self.fault(f"its certificate {what} ({fault.verify_message}); {fix}") from None
            if isinstance(fault, OSError):
                raise self.fault(
                    f"no TLS ({_reason(fault)}); is this the right port for the setting of `security`?"
                ) from None
            raise

    def readline(self) -> bytes:
        searched = 0
        # The end is looked for within the bound only: the packet that goes beyond it may bring the end, too.
        while (end := self._buffer.find(b"\n", searched, LONGEST_LINE)) < 0:
            searched = len(self._buffer)
            if searched >= LONGEST_LINE:
                raise self.fault(f"it sends a line of more than {LONGEST_LINE} bytes")
            self._receive()
        self._lines += 1
        if self._lines > MOST_LINES:
            raise self._flooded()
        return self._take(end + 1)

    def read(self, size: int) -> bytes:
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
        """Send a command or a part of one; the deadline of the command that it belongs to starts anew."""
        self._deadline = time.monotonic() + self._timing.command / (4 if self.hurry else 1)
        self._received = self._lines = 0
        left = memoryview(data)
        while left:
            left = left[self._transfer(partial(self.sock.send, left), select.POLLOUT) :]
        if _QUICK_ACK is not None:
            # A server that writes an answer in two pieces waits 40 ms for our ACK of the first one (its
            # Nagle, our delayed ACK). The kernel forgets the wish now and then.
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def shutdown(self) -> None:
        if self.sock is not None:
            self.sock.close()

    def wait_for_news(self, seconds: float) -> bool:
        """Wait `seconds` for bytes from the server, or the connection's end: True. Raises Stopped."""
        pending = self.sock.pending() if isinstance(self.sock, ssl.SSLSocket) else 0
        if self._buffer or pending:
            return True
        readable = ready(seconds, self.sock, self._stop)
        if self._stop.fileno() in readable:
            raise Stopped
        return self.sock.fileno() in readable

    def _receive(self) -> None:
        data = self._transfer(partial(self.sock.recv, _PIECE), select.POLLIN)
        if not data:
            raise self.fault("it closed the connection")
        self._received += len(data)
        if self._received > self._bound:
            raise self._flooded()
        self._buffer += data

    def _transfer(self, action: Callable[[], Any], events: int) -> Any:
        try:
            return self._retry(action, events)
        except OSError as fault:
            raise self.fault(_reason(fault)) from None

    def _retry(self, action: Callable[[], Any], events: int) -> Any:
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
        poll.register(self.sock, events)
        poll.register(self._stop, select.POLLIN)
        possible = {number for number, _ in poll.poll(left * 1000)}
        if self._stop.fileno() in possible:
            raise Stopped
        if not possible:
            raise TimeoutError(
                errno.ETIMEDOUT,
                f"no answer for {silence:g} s" if left == silence else "it takes longer than we wait",
            )


class Client(IMAPClient):  # type: ignore[misc]  # imapclient ships no types
    """imapclient over our own wire, given to it through the hook that its own test client uses."""

    def __init__(self, wire: Wire, *, encrypted: bool) -> None:
        self._wire = wire
        # A read timeout of 0 keeps the socket non-blocking: the wire does the waiting.
        super().__init__(wire.host, wire.port, ssl=encrypted, timeout=SocketTimeout(None, 0.0))

    def _create_IMAP4(self) -> Wire:  # noqa: N802 - imapclient's name
        return self._wire

    def _normalise_folder(self, folder_name: str | bytes) -> Any:
        """Quote a folder name; bytes are the server's own spelling, and go back as they came."""
        if isinstance(folder_name, bytes):
            return b'"' + folder_name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        return super()._normalise_folder(folder_name)


def tls_context(mailbox: Mailbox) -> ssl.SSLContext:
    """Return what certificates are verified with. Raises ConfigurationError where the CA file is unusable."""
    if mailbox.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(mailbox.ca_file))
    except OSError as fault:  # ssl.SSLError is one, too
        raise ConfigurationError(
            f"mailbox {mailbox.name}: ca_file {mailbox.ca_file} cannot be used "
            f"({'it is no PEM certificate' if isinstance(fault, ssl.SSLError) else fault.strerror})"
        ) from None


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
