"""The few answers that ever leave, as bytes: what each provider wants to hear, and bare refusals."""

import time
from email.utils import formatdate
from http import HTTPStatus

from ingestor.intake.listener.gate import Refusal
from ingestor.providers.contract import Answer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answers:
    """Answers rendered once a second, because of their Date header, and then only looked up."""

    def __init__(self) -> None:
        self._rendered: dict[tuple[Answer, bool], bytes] = {}
        self.tick()

    def tick(self) -> None:
        """Take the time of day anew."""
        self._date = formatdate(time.time(), usegmt=True)
        self._rendered.clear()

    def accepted(self, answer: Answer, *, close: bool) -> bytes:
        """Return the answer of a provider whose payload is durable."""
        rendered = self._rendered.get((answer, close))
        if rendered is None:
            rendered = self._rendered[answer, close] = self._render(
                HTTPStatus(answer.status),
                f"Content-Type: {answer.content_type}\r\n",
                answer.body,
                close=close,
            )
        return rendered

    def refused(self, refusal: Refusal) -> bytes:
        """Return the answer to a refused request: a status, no body, no Allow, and the connection ends."""
        challenge = 'WWW-Authenticate: Basic realm="webhook"\r\n' if refusal.status == 401 else ""
        return self._render(refusal.status, challenge, b"", close=True)

    def _render(self, status: HTTPStatus, header: str, body: bytes, *, close: bool) -> bytes:
        return (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: {self._date}\r\n{header}"
            f"Content-Length: {len(body)}\r\nConnection: {'close' if close else 'keep-alive'}\r\n\r\n"
        ).encode() + body
