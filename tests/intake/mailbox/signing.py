"""Signed mails for the tests of trust: keys made once, and the records that go with them."""

import base64
from functools import cache
from typing import Any

import dkim
import nacl.encoding
import nacl.signing
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.intake.mailbox.desk import mail

AGILE = "agiletelecom.com"
HEADERS = [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Content-Type"]


@cache
def rsa_key(bits: int = 1024, number: int = 0) -> tuple[bytes, bytes]:
    """Return a private key in PEM and its DNS record; another `number` is another key."""
    key = rsa.generate_private_key(65537, bits) if bits >= 1024 else _short_key()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def _short_key() -> rsa.RSAPrivateKey:
    """Return a key of 512 bits, which no library makes any more."""
    p = 0xE4F1A1D6F6B3F0F0A0D9F9A6B9C7D3E5F1A3B5C7D9EBFD0F21436587A9CBED11
    q = 0xC7D5B9A1F3E7D1C5B9AD918577695B4D3F312315070F1D2B394755637180A1B9
    while pow(2, p - 1, p) != 1 or p % 65537 == 1:
        p += 2
    while pow(2, q - 1, q) != 1 or q % 65537 == 1:
        q += 2
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@cache
def ed25519_key() -> tuple[bytes, bytes]:
    """Return a private key as dkimpy takes it, and its DNS record."""
    key = nacl.signing.SigningKey.generate()
    encode = nacl.encoding.Base64Encoder
    return key.encode(encode), b"v=DKIM1; k=ed25519; p=" + key.verify_key.encode(encode)


def signed(
    raw: bytes | None = None, *, key: bytes | None = None, selector: str = "s1", domain: str = AGILE,
    headers: list[bytes] = HEADERS, forms: str = "relaxed/relaxed", **more: Any,
) -> bytes:  # fmt: skip
    """Return a mail (SMS 1) with a signature on top."""
    raw = mail(1) if raw is None else raw
    private = rsa_key()[0] if key is None else key
    signature: bytes = dkim.sign(
        raw, selector.encode(), domain.encode(), private, include_headers=headers,
        canonicalize=tuple(forms.encode().split(b"/")), **more,
    )  # fmt: skip
    return signature + raw


def retagged(raw: bytes, tags: bytes, key: bytes | None = None) -> bytes:
    """Return the mail `raw` with further `tags` in its topmost signature, which is made anew for them.

    dkimpy writes no x=; what it signs is the field with an empty b=.
    """
    private = rsa_key()[0] if key is None else key
    at = raw.index(b"b=", raw.index(b"bh=") + 3)
    end = raw.index(b"\r\n", raw.index(b"=", at + 3))
    while raw[end + 2 : end + 3] in (b" ", b"\t"):
        end = raw.index(b"\r\n", end + 2)
    field = raw[:at] + tags + b"; b="
    mail_itself = dkim.DKIM(field + raw[end:])
    [(name, value), *_] = mail_itself.headers
    fields = dkim.util.parse_tag_value(value)
    policy = dkim.CanonicalizationPolicy.from_c_value(fields[b"c"])
    hasher = dkim.HASH_ALGORITHMS[fields[b"a"]]()
    names = [one.strip().lower() for one in fields[b"h"].split(b":")]
    dkim.hash_headers(
        hasher, policy, policy.canonicalize_headers(mail_itself.headers), names, (name, value), fields
    )
    signature = dkim.RSASSA_PKCS1_v1_5_sign(hasher, dkim.parse_pem_private_key(private))
    return field + base64.b64encode(signature) + raw[end:]
