"""A small OAuth2 authorisation server on loopback: tokens with a short life, and every refusal at will.

RFC 6749 (client credentials, refresh token, authorization code with PKCE), RFC 8628 (device code), RFC 7523
(assertions, whose signature, audience, subject and times it checks), RFC 7662 (introspection, for Dovecot).
"""

import base64
import contextlib
import hashlib
import itertools
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

CLIENT = "client-1"
SECRET = "the client's secret"
_GRANT = "urn:ietf:params:oauth:grant-type:"


class Refusal(Exception):
    """What the server says instead of a token."""

    def __init__(self, error: str, description: str = "", status: int = 400, **headers: str) -> None:
        """Say `error` with HTTP `status`."""
        super().__init__(error)
        self.body = {"error": error, "error_description": description}
        self.status, self.headers = status, headers


@dataclass
class AuthorizationServer:
    """Its tokens are for `username`; whatever it is told here counts from the next question on."""

    username: str = "demo"
    life: int | None = 3600
    """Seconds that a token lives; None: the answer does not say, and they live a minute."""
    rotates: bool = True
    """Each use of a refresh token gives another, and the first use of that one ends the one before."""
    refusals: list[Refusal] = field(default_factory=list)
    """What the next questions for tokens get, one each."""
    skew: float = 0.0
    """Seconds by which the clock of its Date header is before ours."""
    pending: list[str] = field(default_factory=list)
    """What a device code says before the person has logged in, one each."""
    gives_refresh_token: bool = True
    public_key: rsa.RSAPublicKey | None = None
    """Of who signs assertions."""
    subjects: frozenset[str] = frozenset({"demo"})
    """The mailboxes that a service account may act for."""
    delay: float = 0.0

    def __post_init__(self) -> None:
        """Open the port."""
        self.asked: list[dict[str, str]] = []
        """Every form for tokens, in order."""
        self.introspected: list[bool] = []
        """Whether each token that was asked about was good."""
        self.tokens: dict[str, float] = {}
        self.refresh_tokens: dict[str, str | None] = {}
        """Each good one, and the one it follows."""
        self.codes: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate((timestamp or time.time()) + outer.skew, usegmt=True)

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                form = dict(parse_qsl(self.rfile.read(size).decode(), keep_blank_values=True))
                status, body, headers = outer.answer(urlsplit(self.path).path, form)
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        class Server(ThreadingHTTPServer):
            daemon_threads, block_on_close = True, False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["AuthorizationServer"]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)

    def answer(self, path: str, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any], Mapping[str, str]]:
        """Return status, body and headers of an answer."""
        if path == "/introspect":
            good = self.tokens.get(form["token"], 0.0) > time.time()
            self.introspected.append(good)
            return 200, {"active": good, "username": self.username}, {}
        if path == "/device":
            code = {"device_code": "device", "user_code": "ABCD-1234", "interval": 5, "expires_in": 900}
            return 200, {**code, "verification_uri": f"{self.url}/activate"}, {}
        time.sleep(self.delay)
        with self._lock:
            self.asked.append(dict(form))
            try:
                if self.refusals:
                    raise self.refusals.pop(0)
                return 200, self._token(form), {}
            except Refusal as refusal:
                return refusal.status, refusal.body, refusal.headers

    def _token(self, form: Mapping[str, str]) -> dict[str, Any]:
        grant = form["grant_type"].removeprefix(_GRANT)
        if grant == "jwt-bearer":
            self._check(form["assertion"], self.subjects)
            return self._made(None)
        if form.get("client_id") != CLIENT:
            raise Refusal("unauthorized_client")
        if "client_assertion" in form:
            self._check(form["client_assertion"], frozenset({CLIENT}))
        elif form.get("client_secret", SECRET) != SECRET:
            raise Refusal("invalid_client", "AADSTS7000215: Invalid client secret provided.", 401)
        if grant == "client_credentials":
            return self._made(None)
        if grant == "device_code":
            if self.pending:
                raise Refusal(self.pending.pop(0))
            return self._made("")
        if grant == "authorization_code":
            challenge = self.codes.pop(form["code"], "")
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            if challenge != base64.urlsafe_b64encode(digest).decode().rstrip("="):
                raise Refusal("invalid_grant")
            return self._made("")
        used = form["refresh_token"]
        if used not in self.refresh_tokens:
            raise Refusal("invalid_grant", "AADSTS700082: The refresh token has expired.")
        before = self.refresh_tokens[used]
        if before:  # its successor is in use, so it has arrived
            self.refresh_tokens.pop(before, None)
        return self._made(used)

    def _made(self, follows: str | None) -> dict[str, Any]:
        """Return a new token, and a refresh token where the flow has one (`follows` is not None)."""
        token = f"access-{next(self._numbers)}-{secrets.token_urlsafe(8)}"
        self.tokens[token] = time.time() + (60 if self.life is None else self.life)
        made: dict[str, Any] = {"access_token": token, "token_type": "Bearer"}
        if self.life is not None:
            made["expires_in"] = self.life
        if follows is not None and self.gives_refresh_token and (self.rotates or not follows):
            made["refresh_token"] = f"refresh-{next(self._numbers)}-{secrets.token_urlsafe(8)}"
            self.refresh_tokens[made["refresh_token"]] = follows or None
        return made

    def authorize(self, url: str) -> str:
        """Be the browser of a person who agrees: return the address that it ends on."""
        asked = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked["code_challenge"]
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def _check(self, assertion: str, subjects: frozenset[str]) -> None:
        """Raise Refusal unless a JWT is signed by `public_key`, for us, for one of `subjects`, and of now."""
        header, claims, signature = assertion.split(".")
        says, claimed = json.loads(_decoded(header)), json.loads(_decoded(claims))
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        how = pss if says["alg"] == "PS256" else padding.PKCS1v15()
        assert self.public_key is not None
        try:
            self.public_key.verify(_decoded(signature), f"{header}.{claims}".encode(), how, hashes.SHA256())
        except InvalidSignature:
            raise Refusal("invalid_grant", "Invalid JWT Signature.") from None
        if claimed["aud"] != f"{self.url}/token":
            raise Refusal("invalid_grant", "Invalid JWT: wrong audience")
        if claimed["sub"] not in subjects:
            raise Refusal("unauthorized_client", "Client is unauthorized to retrieve access tokens.", 401)
        if not claimed["iat"] - 60 <= time.time() + self.skew <= claimed["exp"]:
            raise Refusal("invalid_grant", "Invalid JWT: Token must be a short-lived token")


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def key_and_certificate(ends: timedelta) -> tuple[rsa.RSAPrivateKey, bytes]:
    """Return a key, and it in PEM with a certificate that ends so long from now."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ingestor")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=400)).not_valid_after(now + ends)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key, private + certificate.public_bytes(serialization.Encoding.PEM)
