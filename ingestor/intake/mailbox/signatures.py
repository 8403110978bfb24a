"""DKIM (RFC 6376) when a mail comes: dkimpy does the arithmetic; which signature counts is decided here.

A silent name server is left alone for a while, so that a thousand mails wait for it once.
"""

import logging
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import dkim
import dns.exception
import dns.resolver
import nacl.signing  # dkimpy does without, and then takes a good signature for a bad one
from dkim.util import parse_tag_value

from ingestor.archive.items import SenderCheck
from ingestor.settings.values import split_server

assert nacl.signing  # noqa: S101 - it is imported to be there

LOOK_UP_SECONDS: Final = 3.0
SILENT_SECONDS: Final = 30.0
_SHORTEST, _LONGEST_LIFE, _UNKNOWN = 5.0, 86400.0, 10.0
_MOST_KEYS = 500

UNANSWERED: Final = "no name server answered"
ODD: Final = "the mail is larger, or has more blanks or header fields, than an SMS has"
TWICE: Final = "a header field stands there twice"
UNSIGNED: Final = "the mail has no signature"
OF_OTHERS: Final = "no signature is of the sender's domain"
MALFORMED: Final = "the signature cannot be read"
ALGORITHM: Final = "the signature's algorithm is none that counts"
IN_PART: Final = "the signature covers a part of the body alone (l=)"
EXPIRED: Final = "the signature had expired when the mail came (x=)"
NOT_FROM: Final = "the signature does not cover From"
NOT_CONTENT: Final = "the signature does not cover how the body is to be read (Content-*)"
NO_KEY: Final = "the signature's key is not in the DNS"
REVOKED: Final = "the signature's key is revoked (p=)"
WEAK: Final = "the signature's key has less than 1024 bits"
NO_GOOD_KEY: Final = "the signature's key is not for this signature"
WRONG: Final = "the signature is not that of this mail"
TOO_OLD: Final = "; the mail is too old to tell by that"

_ONCE = frozenset(
    (b"from", b"subject", b"date", b"mime-version", b"content-type", b"content-transfer-encoding")
)
_ALGORITHMS = {b"rsa-sha256": b"rsa", b"ed25519-sha256": b"ed25519"}
_LARGEST, _MOST_FIELDS, _MOST_SIGNATURES, _LONGEST_SIGNATURE, _SMALLEST_KEY = 262144, 1000, 5, 4096, 1024
_MANY_BLANKS = re.compile(rb"[ \t]{1000}")  # dkimpy's patterns take the square of it
_GAP = re.compile(rb"\s{80}")
_SILENT = logging.getLogger("dkimpy.silent")
_SILENT.setLevel(logging.CRITICAL + 1)  # it shows what stands in signatures
_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?"
_SELECTOR = re.compile(_LABEL + rb"(?:\." + _LABEL + rb"){0,3}")
_AS_IT_STANDS = {
    b"content-type": re.compile(
        rb'\s*text/plain\s*(?:;\s*charset\s*=\s*"?(?:us-ascii|utf-8)"?\s*)?', re.IGNORECASE
    ),
    b"content-transfer-encoding": re.compile(rb"(?i)\s*(?:7bit|8bit|binary)\s*"),
    b"content-disposition": re.compile(rb"(?i)\s*inline\s*"),
}
"""With these nobody can make something else of a signed body, whoever wrote them."""

Tags = dict[bytes, bytes]
Finding = tuple[bool | None, SenderCheck]


class Unanswered(Exception):
    """No name server has answered: it is not known whether there is a key."""


class Keys:
    """The keys of signers, out of the DNS. Not thread-safe."""

    def __init__(self, resolvers: tuple[str, ...] = ()) -> None:
        """Ask `resolvers` (ADDRESS or ADDRESS:PORT), or those of /etc/resolv.conf where there is none."""
        self._resolvers = resolvers
        self._known: dict[str, tuple[float, bytes | None]] = {}
        self._silent_until: dict[str, float] = {}

    def of(self, selector: str, domain: str) -> bytes | None:
        """Return the record of a key, strings joined; None where there is none, or two. Raises Unanswered."""
        now = time.monotonic()
        name = f"{selector}._domainkey.{domain}"
        until, record = self._known.get(name, (0.0, None))
        if now < until:
            return record
        if now < self._silent_until.get(domain, 0.0):
            raise Unanswered
        try:
            record, lives = self._asked(name)
        except Unanswered:
            self._silent_until[domain] = time.monotonic() + SILENT_SECONDS
            raise
        while len(self._known) >= _MOST_KEYS:
            del self._known[next(iter(self._known))]
        self._known[name] = now + lives, record
        return record

    def answers(self, domain: str) -> bool:
        """Say whether a name server answers about `domain`, whatever it says."""
        try:
            self._asked(domain)
        except Unanswered:
            return False
        return True

    def _asked(self, name: str) -> tuple[bytes | None, float]:
        """Ask for `name`; return the record, and for how many seconds it is good."""
        try:
            answer = self._resolver().resolve(f"{name}.", "TXT")
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None, _UNKNOWN
        except (dns.exception.DNSException, OSError) as fault:
            raise Unanswered from fault
        records = [b"".join(one.strings) for one in answer]
        found = [one for one in records if b"p=" in one.replace(b" ", b"")]
        lives = min(max(answer.expiration - time.time(), _SHORTEST), _LONGEST_LIFE)
        return (found[0] if len(found) == 1 else None), lives

    def _resolver(self) -> Any:
        """Return a resolver for one question: /etc/resolv.conf may have changed since the last."""
        made = dns.resolver.Resolver(configure=not self._resolvers)
        if self._resolvers:
            ports = dict(split_server(one) for one in self._resolvers)
            made.nameservers, made.nameserver_ports = list(ports), ports
        made.timeout, made.lifetime, made.retry_servfail = LOOK_UP_SECONDS / 3, LOOK_UP_SECONDS, True
        return made


def check(
    raw: bytes, keys: Keys, aligned: Callable[[str], bool], is_sender: Callable[[bytes], bool],
    received_at: datetime, *, old: bool,
) -> Finding:  # fmt: skip
    """Return whether a signature proves the sender of `raw`, None where that cannot be told, and why.

    `aligned` says whether a domain may speak for the sender, `is_sender` whether a From names him. Of a mail
    that is `old` only a good signature tells something: keys change.
    """
    if len(raw) > _LARGEST or _MANY_BLANKS.search(raw):
        return _failed(ODD)
    try:
        mail = dkim.DKIM(raw, logger=_SILENT, minkey=_SMALLEST_KEY)
        fields = [(name.lower(), value) for name, value in mail.headers]
    except Exception:  # noqa: BLE001 - any bytes may come, and dkimpy raises what it likes
        return _failed(MALFORMED)
    names = [name for name, _ in fields]
    if len(fields) > _MOST_FIELDS:
        return _failed(ODD)
    if any(names.count(one) > 1 for one in _ONCE) or not is_sender(dict(fields).get(b"from", b"")):
        return _failed(TWICE)
    signatures = [value for name, value in fields if name == b"dkim-signature"]
    of_sender = [
        (at, tags) for at, value in enumerate(signatures)
        if (tags := _tags(value)) and aligned(tags.get(b"d", b"").decode("latin-1"))
    ]  # fmt: skip
    found = [
        _one(mail, at, tags, fields, keys, received_at, old=old) for at, tags in of_sender[:_MOST_SIGNATURES]
    ]
    if not found:
        return _failed(OF_OTHERS if signatures else UNSIGNED)
    # Any good one proves him; where none is, one that could not be judged might have.
    return max(found, key=lambda one: (one[0] is True, one[0] is None))


def _tags(value: bytes) -> Tags | None:
    if len(value) > _LONGEST_SIGNATURE or _GAP.search(value):
        return None
    try:
        return dict(parse_tag_value(value))
    except Exception:  # noqa: BLE001 - see above
        return None


def _one(
    mail: Any, at: int, tags: Tags, fields: list[tuple[bytes, bytes]], keys: Keys, received_at: datetime, *,
    old: bool,
) -> Finding:  # fmt: skip
    domain = tags[b"d"].decode("latin-1").lower()
    fault = _fault_of_signature(tags, fields, received_at)
    if fault is not None:
        return _failed(fault, domain)
    selector = tags[b"s"].decode("ascii")
    try:
        record = keys.of(selector, domain)
    except Unanswered:
        return None, SenderCheck("dkim", UNANSWERED, domain)
    shown = (domain, selector, record.decode("latin-1")) if record is not None else (domain,)
    fault = NO_KEY if record is None else _fault_of_key(record, tags)
    if fault is None:
        try:
            if mail.verify(at, dnsfunc=lambda _name, timeout: record):  # noqa: ARG005 - as dkimpy calls it
                return True, SenderCheck("dkim", "pass", *shown)
        except Exception:  # noqa: BLE001, S110 - see above
            pass
        fault = WRONG
    return (None, SenderCheck("dkim", fault + TOO_OLD, *shown)) if old else _failed(fault, *shown)


def _fault_of_signature(tags: Tags, fields: list[tuple[bytes, bytes]], received_at: datetime) -> str | None:
    """Return why a signature does not count, whatever its key; None where it may."""
    expires = tags.get(b"x", b"")
    signed = {name.strip().lower() for name in tags.get(b"h", b"").split(b":")}
    if not _SELECTOR.fullmatch(tags.get(b"s", b"")) or (expires and not expires.isdigit()):
        return MALFORMED
    if tags.get(b"a") not in _ALGORITHMS:
        return ALGORITHM
    if b"l" in tags:
        return IN_PART
    if expires and int(expires) <= received_at.timestamp():
        return EXPIRED
    if b"from" not in signed:
        return NOT_FROM
    for name, value in fields:
        if name in _AS_IT_STANDS and name not in signed and not _AS_IT_STANDS[name].fullmatch(value):
            return NOT_CONTENT
    return None


def _fault_of_key(record: bytes, tags: Tags) -> str | None:
    """Return why the key in `record` does not count for the signature with `tags`; None where it does."""
    key = _tags(record)
    if key is None:
        return NO_GOOD_KEY
    if not key.get(b"p"):
        return REVOKED
    flags = [one.strip() for one in key.get(b"t", b"").split(b":")]
    identity = tags.get(b"i", b"@" + tags[b"d"]).rpartition(b"@")[2].lower()
    usable = (
        key.get(b"k", b"rsa") == _ALGORITHMS[tags[b"a"]]
        and b"y" not in flags  # in testing it must be taken for unsigned (RFC 6376 3.6.1)
        and (b"s" not in flags or identity == tags[b"d"].lower())
        and b"sha256" in key.get(b"h", b"sha256")
        and (b"*" in key.get(b"s", b"*") or b"email" in key[b"s"])
    )
    if not usable:
        return NO_GOOD_KEY
    try:
        bits = dkim.evaluate_pk("", record)[1]
    except Exception:  # noqa: BLE001 - see above
        return NO_GOOD_KEY
    return WEAK if key.get(b"k", b"rsa") == b"rsa" and bits < _SMALLEST_KEY else None


def _failed(finding: str, *shown: str) -> Finding:
    return False, SenderCheck("dkim", finding, *shown)
