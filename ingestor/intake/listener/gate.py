"""The gate: which request may come in, and as whom. It decides from the head alone and gives no hints."""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from ingestor.http import Headers, Refusal
from ingestor.settings.models import Endpoint, Webhook

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

_PROBES = frozenset({b"GET", b"HEAD"})
_TELLS_OF_A_PROXY = (b"x-forwarded", b"forwarded", b"via", b"x-real-ip")


NO_HTTPS = Refusal(HTTPStatus.FORBIDDEN, "not by HTTPS")
WRONG_NETWORK = Refusal(HTTPStatus.FORBIDDEN, "network not in allow_from")
WRONG_PATH = Refusal(HTTPStatus.NOT_FOUND, "wrong path")
WRONG_METHOD = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "wrong method")
NO_LOGIN = Refusal(HTTPStatus.UNAUTHORIZED, "no login yet", expected=True)
WRONG_LOGIN = Refusal(HTTPStatus.UNAUTHORIZED, "wrong login")
NOT_DURABLE = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "neither database nor spool takes it")

HEALTH = b"/healthz"  # a balancer asks there


@dataclass(frozen=True, slots=True)
class Peer:
    address: Address
    text: str
    encrypted: bool
    loopback: bool
    trusted: bool


@dataclass(frozen=True, slots=True)
class Entrance:
    """One endpoint. `name` is its provider and its place in the configuration: no secret."""

    name: str
    provider: str
    path: bytes = field(repr=False)
    allow_from: Networks
    logins: tuple[bytes, ...] | None = field(repr=False)


class Admission(NamedTuple):
    """A request that may come in: through which endpoint (None: it only asks for health), and from where."""

    entrance: Entrance | None
    client: str


class Gate:
    """The endpoints and proxies of the configuration, ready to judge requests."""

    def __init__(self, webhook: Webhook, passwords: Callable[[Endpoint], Iterable[str]]) -> None:
        """`passwords` gives the accepted passwords of an endpoint that has a basic_username."""
        self._proxies = tuple(webhook.trusted_proxies)
        self._entrances = tuple(
            Entrance(
                name=name, provider=endpoint.provider, path=endpoint.path.encode(),
                allow_from=tuple(endpoint.allow_from),
                logins=None if endpoint.basic_username is None else tuple(
                    login for password in passwords(endpoint)
                    for login in _spellings(f"{endpoint.basic_username}:{password}")
                ),
            )
            for name, endpoint in webhook.named
        )  # fmt: skip

    def peer(self, address: str, *, encrypted: bool) -> Peer:
        """Return what is known about the other end of a connection from `address`."""
        known = _address(address)
        if known is None:
            raise ValueError("no network address")
        return Peer(known, str(known), encrypted, known.is_loopback, _within(known, self._proxies))

    def judge(self, method: bytes, target: bytes, headers: Headers, peer: Peer) -> Admission | Refusal:
        """Return whether the request may come in. `target` is the path, without the query string."""
        if target == HEALTH and method in _PROBES:
            near = _direct(headers) and (peer.loopback or peer.trusted)
            return Admission(None, peer.text) if near else WRONG_PATH
        if not _by_https(headers, peer):
            return NO_HTTPS
        entrance = None
        for candidate in self._entrances:  # all of them, always: the time must not tell how near a guess was
            if hmac.compare_digest(candidate.path, target):
                entrance = candidate
        if entrance is None:
            return WRONG_PATH
        if method != b"POST":
            return WRONG_METHOD
        client = self._client(headers, peer) if peer.trusted else peer.address
        if entrance.allow_from and not _within(client, entrance.allow_from):
            return WRONG_NETWORK
        if entrance.logins is not None:
            presented = headers.get(b"authorization")
            if presented is None:  # wget, LWP and urllib log in only when they are asked to
                return NO_LOGIN
            if not _logged_in(presented, entrance.logins):
                return WRONG_LOGIN
        return Admission(entrance, str(client) if peer.trusted else peer.text)

    def client_of(self, headers: Headers, peer: Peer) -> str:
        """Return the address that a request with these headers came from, as far as trusted proxies say."""
        return str(self._client(headers, peer)) if peer.trusted else peer.text

    def _client(self, headers: Headers, proxy: Peer) -> Address:
        """Return the rightmost hop that is no trusted proxy: everything left of it anybody can write."""
        client = proxy.address
        for hop in reversed(headers.get(b"x-forwarded-for", b"").split(b",")):
            address = _hop(hop)
            if address is None:
                return client
            client = address
            if not _within(client, self._proxies):
                return client
        return client


def _by_https(headers: Headers, peer: Peer) -> bool:
    """Say whether nobody on the way could read the request: TLS to us, or a trusted proxy that says so.

    A direct request from this machine is fine, too.
    """
    if peer.trusted:
        said = headers.get(b"x-forwarded-proto")
        if said is not None:
            return all(hop.strip().lower() == b"https" for hop in said.split(b","))
    if peer.encrypted:
        return True
    if not peer.loopback:
        return False
    return _direct(headers)


def _direct(headers: Headers) -> bool:
    for name in headers:  # noqa: SIM110 - a generator costs as much as the whole rest of this function
        if name.startswith(_TELLS_OF_A_PROXY):
            return False
    return True


def _spellings(login: str) -> tuple[bytes, ...]:
    """Return the bytes of a login as clients send them: RFC 7617 says UTF-8, `requests` sends Latin-1."""
    written = login.encode()
    return (written,) if written.isascii() else (written, login.encode("latin-1", "replace"))


def _logged_in(authorization: bytes, logins: Iterable[bytes]) -> bool:
    scheme, _, encoded = authorization.partition(b" ")
    try:
        presented = b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        presented = b""
    known = False
    for login in logins:  # all of them, always
        known |= hmac.compare_digest(login, presented)
    return known and scheme.lower() == b"basic"


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks if network.version == address.version)


@lru_cache(maxsize=1024)
def _address(written: str) -> Address | None:
    try:
        address = ip_address(written.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _hop(written: bytes) -> Address | None:
    """Return the address in one element of X-Forwarded-For; some proxies write a port behind it."""
    text = written.strip().decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return _address(text)
