"""The client of Agile's REST API: one message a request, one connection a request.

A connection that was used before may be closed by the server just when the next request is written, and then
nobody knows whether that was read. With a connection of its own a request has two phases: what fails before
the first byte was written was not sent, what fails after it may have been.
"""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from http.client import HTTPException
from typing import Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from ingestor.errors import ConfigurationError, ProviderUnavailable
from ingestor.providers.agile import Agile, Api
from ingestor.replies.verdicts import Fate, Verdict, credit_of, understood, verdict_of
from ingestor.settings import Settings, kept_secret

_LARGEST_ANSWER: Final = 65536
Answered = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body of an answer."""
_FAULTS: Final = (HTTPError, HTTPException, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one number, with every parameter of Agile's REST document."""

    id: str
    """Both `globalId` and `ids[0]`: reports name it."""
    number: str = field(repr=False)
    sender: str
    body: str = field(repr=False)
    max_id_len: int = 64
    concatenated: bool = True
    unicode: bool = True
    delivery: bool = True
    simulation: bool = False
    hex_body: bool = False
    udh: str | None = None
    scheduling: str | None = None
    """`yyyy-MM-dd HH:mm:ss.SSSZ`"""

    def request(self) -> dict[str, Any]:
        """Return the request body."""
        message: dict[str, Any] = {
            "ids": [self.id],
            "destinations": [self.number],
            "sender": self.sender,
            "body": self.body,
        }
        if self.hex_body:
            message["hexBody"] = True
        if self.udh is not None:
            message["udhData"] = self.udh
        if self.scheduling is not None:
            message["scheduling"] = self.scheduling
        return {
            "globalId": self.id,
            "maxIdLen": self.max_id_len,
            "enableConcatenated": self.concatenated,
            "enableUnicode": self.unicode,
            "enableDelivery": self.delivery,
            "simulation": self.simulation,
            "messages": [message],
        }


class AgileClient:
    """Sends requests, no faster than the rate allows; for one thread at a time."""

    def __init__(self, api: Api, headers: Mapping[str, str]) -> None:
        """Connect to nothing yet; `headers` are the way in."""
        self._api, self._headers = api, headers
        self._next = time.monotonic()
        self.longest_seconds: float = api.connect_seconds + api.answer_seconds
        """After how long a request is over, however it went, but for a name that is never resolved."""
        self._url = parse_url(api.base_url)
        self._tls = ssl.create_default_context(cafile=api.ca_file) if self._url.scheme == "https" else None

    def send(self, message: Message) -> Verdict:
        """Send `message` once and return what became of it; nothing is raised and nothing tried again."""
        body = json.dumps(message.request(), ensure_ascii=False).encode()
        answer = self._request("POST", "sms/send", body)
        return answer if isinstance(answer, Verdict) else self._verdict(*answer)

    def _verdict(self, status: int, headers: Mapping[str, str], body: bytes) -> Verdict:
        return verdict_of(status, headers, body, datetime.now(UTC), retry_5xx=self._api.retry_5xx)

    def credit(self) -> Decimal:
        """Return what is left of the account, in EUR. Raises ProviderUnavailable where it cannot be had."""
        answer = self._request("GET", "sms/credit", None)
        if not isinstance(answer, Verdict):
            status, _, body = answer
            credit = credit_of(understood(body)) if status == 200 else None
            if credit is not None:
                return credit
            answer = self._verdict(*answer)
        words = answer.words.removesuffix("; it may have been sent")
        raise ProviderUnavailable(f"Agile does not tell the credit: {words}")

    def _request(self, method: str, path: str, body: bytes | None) -> Answered | Verdict:
        """Make one request in its two phases; return the answer, or what became of it where none came."""
        self._keep_pace()
        connection = self._connection()
        try:
            try:
                connection.connect()
            except _FAULTS as fault:
                return Verdict(Fate.NOT_SENT, f"never sent: {_reason(fault)}")
            assert connection.sock is not None  # noqa: S101 - connect() has made it, or raised
            connection.timeout = self._api.answer_seconds
            connection.sock.settimeout(self._api.answer_seconds)
            # A socket's own time-out begins anew with each byte; a server that drips would hold us for ever.
            ending = threading.Timer(self._api.answer_seconds, _hang_up, (connection.sock,))
            ending.daemon = True
            ending.start()
            try:
                return self._exchange(connection, method, path, body)
            except _FAULTS as fault:
                return Verdict(Fate.UNKNOWN, f"no answer came ({_reason(fault)}); it may have been sent")
            finally:
                ending.cancel()
        finally:
            connection.close()

    def _exchange(self, connection: HTTPConnection, method: str, path: str, body: bytes | None) -> Answered:
        headers = {"Accept": "application/json", "User-Agent": "ingestor", **self._headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        target = f"{(self._url.path or '').rstrip('/')}/{path}"
        connection.request(method, target, body, headers, preload_content=False)
        response = connection.getresponse()
        answer = response.read(_LARGEST_ANSWER + 1)
        if len(answer) > _LARGEST_ANSWER:
            answer = b""  # whatever it is, it is no answer of Agile's
        return response.status, response.headers, answer

    def _connection(self) -> HTTPConnection:
        host, port = str(self._url.host), self._url.port
        seconds = self._api.connect_seconds
        if self._tls is None:
            return HTTPConnection(host, port, timeout=seconds)
        return HTTPSConnection(host, port, timeout=seconds, ssl_context=self._tls)

    def _keep_pace(self) -> None:
        now = time.monotonic()
        if self._next > now:
            time.sleep(self._next - now)
        self._next = max(self._next, now) + 1 / self._api.rate


def _hang_up(connected: socket.socket) -> None:
    """End a connection that another thread reads from; TLS's own shutdown is not made for that."""
    try:
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
    except OSError:
        return  # it has just ended


def _reason(fault: BaseException) -> str:
    """Return why, without addresses of objects and without a word of the request."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    if isinstance(fault, TimeoutError):
        return "time-out"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return type(fault).__name__


def client_of(settings: Settings) -> AgileClient:
    """Return a client, its key or password fetched with the rights of now. Raises ConfigurationError."""
    api = settings.section(Agile).api
    if api is None:
        raise ConfigurationError(
            "there is no [agile.api] in the configuration, so nothing can be sent; `ingestor config example` "
            "shows it"
        )
    try:
        return AgileClient(api, way_in(api))
    except OSError as fault:
        raise ConfigurationError(f"agile.api.ca_file: cannot be used: {fault.strerror or fault}") from None


def way_in(api: Api) -> dict[str, str]:
    """Return the headers that let us in: a key, or Basic authentication (RFC 7617) in UTF-8."""
    key = kept_secret(api.api_key_credential, api.api_key_file)
    if key is not None:
        return {"X-Api-Key": key}
    password = kept_secret(api.password_credential, api.password_file)
    if password is None:  # the schema asks for one way in
        raise ConfigurationError("agile.api has no key and no password")
    pair = base64.b64encode(f"{api.username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}
