"""imaplib's protocol over our own connection.

imaplib documents `open`, `read`, `readline`, `send` and `shutdown` as methods to override.
"""

import imaplib
import ssl
from typing import Any

from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.stream import LARGEST_ANSWER, LARGEST_PUSH, Stream


class Wire(imaplib.IMAP4):
    """The commands and answers of one connection. `stream` is connected here."""

    def __init__(self, stream: Stream, *, tls: ssl.SSLContext | None, local_only: bool) -> None:
        self.stream = stream
        self._encrypt_at_once = tls
        self._local_only = local_only
        super().__init__(stream.host, stream.port)

    @property
    def debug(self) -> int:
        """Always 0. imapclient sets 5, and each literal is then formatted for a debug log: half its time."""
        return 0

    @debug.setter
    def debug(self, value: int) -> None:
        pass

    def fault(self, what: str) -> MailboxUnavailable:
        """Return the exception that says `what` of this server."""
        return self.stream.fault(what)

    def open(
        self,
        host: str = "",
        port: int = 993,
        timeout: float | None = None,  # noqa: ARG002 - imaplib's signature; Timing rules here
    ) -> None:
        """Connect, with TLS where it is wanted from the first byte on."""
        self.host, self.port = host, port
        self.stream.connect(local_only=self._local_only)
        if self._encrypt_at_once is not None:
            self.stream.secure(self._encrypt_at_once)
        self.sock = self.stream.socket

    def starttls(self, ssl_context: ssl.SSLContext | None = None) -> Any:
        """Switch to TLS. Unencrypted bytes after the answer are an injection (CVE-2011-0411) and refused."""
        if ssl_context is None:
            raise ValueError("a verifying context is needed")
        answer, words = self._simple_command("STARTTLS")
        if answer != "OK":
            raise self.fault("it refuses STARTTLS; the password was not sent")
        if self.stream.unread:
            raise self.fault("unencrypted bytes follow its STARTTLS answer; somebody may be in the line")
        self.stream.secure(ssl_context)
        self.sock = self.stream.socket
        self._tls_established = True
        self._get_capabilities()
        return answer, words

    def begin_idle(self) -> bytes:
        """Enter IDLE and return its tag, once the server has agreed.

        News may come before the agreement (Outlook does that); imapclient's own `idle` gives up there.
        """
        tag: bytes = self._command("IDLE")
        while self._get_response() is not None:
            if self.tagged_commands[tag] is not None:
                raise self.error("IDLE command error: it is refused")
        return tag

    def end_idle(self, tag: bytes) -> None:
        """Leave IDLE. What was pushed meanwhile is not kept, and bounded: a server may push without end."""
        self.send(b"DONE\r\n")
        self.stream.bound = LARGEST_PUSH
        try:
            while not self.tagged_commands[tag]:
                self._get_response()
                if "BYE" in self.untagged_responses:
                    raise self.abort("BYE")
                self.untagged_responses.clear()
        finally:
            self.stream.bound = LARGEST_ANSWER
        status, words = self.tagged_commands.pop(tag) or ("BAD", [b""])
        if status != "OK":
            raise self.error(words[-1])

    def readline(self) -> bytes:
        """Return the next line with its end."""
        return self.stream.readline()

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        return self.stream.read(size)

    def send(self, data: Any) -> None:
        """Send `data`, which is a command or a part of one."""
        self.stream.send(data)

    def shutdown(self) -> None:
        """Close the connection without any farewell."""
        self.stream.close()
