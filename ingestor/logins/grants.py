"""What a token endpoint is asked for, by the mailbox's flow, and the signed assertions of keys.

RFC 6749 (4.4 client credentials, 6 refresh token), RFC 7521 and 7523 (assertions). msal and google-auth would
sign the same twenty lines' worth: `cryptography` alone is loaded, and only where there is a key.
"""

import base64
import binascii
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ingestor.errors import ConfigurationError
from ingestor.settings import Mailbox, OAuth, kept_secret, login_key

ASSERTION_SECONDS: Final = 600
_JWT_CLIENT: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXTRA: Final = "a key needs the package `cryptography`: pip install 'agile-sms-ingestor[oauth]'"


def oauth_of(mailbox: Mailbox) -> OAuth:
    """Return the mailbox's table. Raises ConfigurationError where it logs in otherwise."""
    if mailbox.oauth is None:
        raise ConfigurationError(
            f"mailbox {mailbox.name} has no [mailbox.oauth]; OPERATING.md, `Logins by OAuth2`, shows one"
        )
    return mailbox.oauth


def request_of(mailbox: Mailbox, oauth: OAuth, refresh_token: str, now: float) -> dict[str, str]:
    """Return the form that gives the mailbox a token. Raises ConfigurationError where a secret is missing."""
    if oauth.flow == "service_account":
        key = _google_key(mailbox, login_key(oauth) or b"")
        claims = {
            "iss": key["client_email"], "sub": mailbox.username, "scope": oauth.scopes,
            "aud": oauth.endpoint("token"),
        }  # fmt: skip
        header = {"alg": "RS256", "kid": key.get("private_key_id", "")}
        signed = assertion(mailbox, header, claims, key["private_key"].encode(), now)
        return {"grant_type": _JWT_GRANT, "assertion": signed}
    form = client_of(mailbox, oauth, now)
    if oauth.scopes and not (oauth.provider == "google" and oauth.needs_person):
        form["scope"] = oauth.scopes
    if not oauth.needs_person:
        return {"grant_type": "client_credentials", **form}
    return {"grant_type": "refresh_token", "refresh_token": refresh_token, **form}


def client_of(mailbox: Mailbox, oauth: OAuth, now: float) -> dict[str, str]:
    """Return the fields that say which application asks, with its secret or an assertion of its key."""
    form = {"client_id": oauth.client_id or ""}
    if (secret := kept_secret(oauth.secret_credential, oauth.secret_file)) is not None:
        return {**form, "client_secret": secret}
    if (pem := login_key(oauth)) is None:
        return form
    claims = {
        "iss": oauth.client_id, "sub": oauth.client_id, "aud": oauth.endpoint("token"),
        "jti": str(uuid.uuid4()),
    }  # fmt: skip
    # As Microsoft asks for it: learn.microsoft.com, "Application authentication certificate credentials".
    header = {"alg": "PS256", "x5t#S256": _base64(_thumbprint(mailbox, pem))}
    signed = assertion(mailbox, header, claims, pem, now)
    return {**form, "client_assertion_type": _JWT_CLIENT, "client_assertion": signed}


def assertion(
    mailbox: Mailbox, header: Mapping[str, Any], claims: Mapping[str, Any], pem: bytes, now: float
) -> str:
    """Return `claims` as a JWT signed by the private key in `pem`: PS256 or RS256, as `header` says."""
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError:
        raise ConfigurationError(f"mailbox {mailbox.name}: {_EXTRA}") from None
    try:
        key = serialization.load_pem_private_key(_armoured(b"[A-Z ]*PRIVATE KEY", pem), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigurationError(
            f"mailbox {mailbox.name}: the key holds no RSA private key in PEM without a password"
        )
    times = {"iat": int(now), "nbf": int(now), "exp": int(now) + ASSERTION_SECONDS}
    parts = (json.dumps(part).encode() for part in ({"typ": "JWT", **header}, {**claims, **times}))
    signed = ".".join(map(_base64, parts))
    sha256 = hashes.SHA256()
    pss = padding.PSS(padding.MGF1(sha256), sha256.digest_size)
    how = pss if header["alg"] == "PS256" else padding.PKCS1v15()
    return f"{signed}.{_base64(key.sign(signed.encode(), how, sha256))}"


def certificate_end(pem: bytes) -> datetime | None:
    """Return when the certificate in `pem` ends (aware UTC), None where there is none that can be read."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(_armoured(b"CERTIFICATE", pem))
        return certificate.not_valid_after_utc.astimezone(UTC)
    except ValueError:
        return None


def _thumbprint(mailbox: Mailbox, pem: bytes) -> bytes:
    lines = _armoured(b"CERTIFICATE", pem).split(b"-----")
    try:
        return hashlib.sha256(binascii.a2b_base64(lines[2])).digest()
    except (IndexError, ValueError):
        raise ConfigurationError(
            f"mailbox {mailbox.name}: the key needs its certificate beside it, in PEM"
        ) from None


def _armoured(label: bytes, pem: bytes) -> bytes:
    found = re.search(rb"-----BEGIN (%b)-----.*?-----END \1-----" % label, pem, re.DOTALL)
    return found[0] + b"\n" if found else b""


def _google_key(mailbox: Mailbox, content: bytes) -> Mapping[str, str]:
    try:
        key = json.loads(content)
        if all(isinstance(key[one], str) for one in ("client_email", "private_key")):
            return dict(key)
    except (ValueError, TypeError, KeyError):
        pass
    raise ConfigurationError(
        f"mailbox {mailbox.name}: the key is not the JSON that Google gives for a service account"
    )


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
