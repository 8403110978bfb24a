"""A mail server for one test: takes what is sent to it, and may refuse an empty envelope sender."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import NamedTuple


class Taken(NamedTuple):
    """One mail with its envelope."""

    sender: str
    recipients: list[str]
    message: EmailMessage


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP (RFC 5321) as smtplib needs."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.taken: list[Taken] = []
        self.takes_empty_sender = True
        self.away = False

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        if self.server.away:
            self._say("421 not now")
            return
        self._say("220 test")
        sender, recipients = "", list[str]()
        while line := self.rfile.readline().decode().strip():
            verb = line[:4].upper()
            if verb == "MAIL":
                sender = line.partition(":")[2].split()[0]
                refused = sender == "<>" and not self.server.takes_empty_sender
                self._say("550 no empty sender" if refused else "250 ok")
            elif verb == "RCPT":
                recipients.append(line.partition(":")[2].strip("<>"))
                self._say("250 ok")
            elif verb == "DATA":
                self._say("354 go on")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                message = message_from_bytes(content, policy=policy.default)
                assert isinstance(message, EmailMessage)
                self.server.taken.append(Taken(sender, recipients, message))
                sender, recipients = "", []
                self._say("250 taken")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """Run a mail server until the block ends."""
    server = MailServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
