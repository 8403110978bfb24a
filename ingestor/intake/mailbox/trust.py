"""Whether a mail comes from whom it says: `[mailbox.trust]`, asked once, when the mail comes.

Signatures are judged in `signatures`; here is read what our own mail server wrote at the top, in
Authentication-Results (RFC 8601). All below that is text. Exchange Online writes no name of a server (authres
1.2.0 raises SyntaxError over it): it is known by its place alone.
"""

import re
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from functools import partial
from types import ModuleType
from typing import Final, NamedTuple

from ingestor.archive.items import SenderCheck
from ingestor.errors import ConfigurationError
from ingestor.providers.contract import NEAR_MISSES, MailReader, Readable, Rules, Unreadable
from ingestor.settings import Trust

EXTRA: Final = "'dkimpy[ed25519]>=1.1.4' 'dnspython>=2.3'"
NOT_A_SENDER: Final = "From is not exactly one of our senders"
MENDED: Final = "the mail could be read only after it was mended"
OLD: Final = timedelta(days=3)

NONE: Final = "the mail has no Authentication-Results"
NOT_FIRST: Final = "another header field stands above Authentication-Results"
ANOTHER: Final = "the topmost Authentication-Results is another server's"
UNREADABLE: Final = "Authentication-Results cannot be read"
NOT_PROVEN: Final = "Authentication-Results says no pass for the sender's domain"

_LONGEST = 16384
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_BY_EXCHANGE = re.compile(r"\sby\s+\S+\.(?:outlook\.com|outlook\.cn|office365\.us)\s", re.IGNORECASE)
_ARC = ("arc-seal", "arc-message-signature", "arc-authentication-results")
_SECTION = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^;"])+', re.DOTALL)
_PAIR = re.compile(
    r'\s*([A-Za-z][\w.-]*)(?:\s*/\s*\d+)?\s*=\s*((?:"(?:[^"\\]|\\.)*"|[^\s"])+)(?=\s|\Z)', re.DOTALL
)
_SERVER = re.compile(r'\s*(?:"([^"\\]*)"|([^\s"=]+))(?:\s+\d+)?\s*')

Pairs = list[tuple[str, str]]


class Verdict(NamedTuple):
    """`verified` is None where it cannot be told; `later` says that it may be told in a while."""

    verified: bool | None
    check: SenderCheck
    later: bool = False


class Judge:
    """Judges the mails of one mailbox. Not thread-safe."""

    def __init__(self, trust: Trust, reader: MailReader, rules: Rules) -> None:
        """Raises ConfigurationError where what `trust` needs is not installed."""
        self._trust, self._reader, self._rules = trust, reader, rules
        self._signatures = _signatures() if trust.method == "dkim" else None
        self._keys = self._signatures.Keys(trust.resolvers) if self._signatures is not None else None

    @property
    def strict(self) -> bool:
        """Whether a mail whose sender is not proven must not become an SMS."""
        return self._trust.policy == "require"

    def verdict(
        self, raw: bytes, reading: Readable | Unreadable, received_at: datetime, now: datetime
    ) -> Verdict | None:
        """Return whether the sender of the mail `raw` is proven; None where it names none of ours.

        `received_at` is when our mail server got it; both times are aware.
        """
        if isinstance(reading, Unreadable) and reading.reason in NEAR_MISSES:
            return None
        method = self._trust.method
        sender = self._reader.sender_of(raw, self._rules)
        if sender is None:
            return Verdict(False, SenderCheck(method, NOT_A_SENDER))
        if isinstance(reading, Readable) and "mended" in reading.sms.details:
            return Verdict(False, SenderCheck(method, MENDED))
        aligned = partial(speaks_for, sender, self._rules.senders)
        if self._signatures is not None:
            verified, found = self._signatures.check(
                raw, self._keys, aligned, partial(self._is_sender, sender), received_at,
                old=now - received_at > OLD,
            )  # fmt: skip
            return Verdict(verified, found, later=found.finding == self._signatures.UNANSWERED)
        return Verdict(*_noted(raw, method, self._trust.authserv_id, aligned))

    def admitted(self, reading: Readable | Unreadable, verdict: Verdict) -> Readable | Unreadable:
        """Return what becomes of a mail by `verdict`: under policy = "require" only a proof lets it in."""
        if self.strict and not verdict.verified and isinstance(reading, Readable):
            return unproven(reading, verdict.check.finding)
        return reading

    def _is_sender(self, sender: str, value: bytes) -> bool:
        return self._reader.sender_of(b"From:" + value + b"\r\n", self._rules) == sender


def speaks_for(sender: str, senders: Collection[str], domain: str) -> bool:
    """Say whether `domain` may speak for the address `sender`: it is his domain, or above it.

    Above it no public suffix may: it is a domain of one of our `senders`, or has two labels that do not look
    like co.uk (RFC 7489 3.2 wants a list of suffixes for that; nobody signs with one).
    """
    own, domain = _domain_of(sender), domain.lower()
    if domain == own or not own.endswith(f".{domain}"):
        return domain == own
    *_, second, last = ("", "", *domain.split("."))
    looks_organised = second != "" and not (len(last) == 2 and len(second) <= 3 and domain.count(".") == 1)
    return looks_organised or domain in map(_domain_of, senders)


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower()


def unproven(reading: Readable, why: str) -> Unreadable:
    """Return what policy = "require" makes of a mail whose sender is not proven, and why he is not."""
    return Unreadable(f"the sender is not proven: {why}", reading.parser, reading.message_id, reading.subject)


def _signatures() -> ModuleType:
    """Return the check of signatures; what it imports costs 15 MB."""
    try:
        from ingestor.intake.mailbox import signatures
    except ImportError as fault:
        raise ConfigurationError(
            f'[mailbox.trust] method = "dkim" needs {fault.name or "a library"}, which is not installed; '
            f"install the extra `trust`: {EXTRA}"
        ) from None
    return signatures


def _noted(
    raw: bytes, method: str, authserv_id: str | None, aligned: Callable[[str], bool]
) -> tuple[bool, SenderCheck]:
    """Return whether the topmost Authentication-Results of the mail `raw` proves its sender, and how.

    Without an `authserv_id` it is Exchange's.
    """
    results = topmost(raw, authserv_id)
    if isinstance(results, str):
        return False, SenderCheck(method, results)
    for (name, result), *properties in results:
        said = dict(properties)
        if result != "pass" or len(said) < len(properties):  # what is said twice says nothing
            continue
        domain = _signer(said) if name == "dkim" else said.get("header.from") if name == "dmarc" else None
        if domain is not None and aligned(domain):
            return True, SenderCheck(method, "pass", domain, said.get("header.s"))
    return False, SenderCheck(method, NOT_PROVEN)


def _signer(said: dict[str, str]) -> str | None:
    """Return the domain that signed; None where its identity is another domain's."""
    identity = said.get("header.i", "").rpartition("@")[2] or None
    domain = said.get("header.d", identity)
    return domain if identity is None or f".{identity}".endswith(f".{domain}") else None


def topmost(raw: bytes, authserv_id: str | None) -> list[Pairs] | str:
    """Return the results of the first Authentication-Results, or in words why it is not believed."""
    for name, value in _fields(raw):
        if name == "authentication-results":
            break
        # The hops within Microsoft, and the chain it may add, come later, hence stand higher.
        by_exchange = name in _ARC or (name == "received" and _BY_EXCHANGE.search(value))
        if authserv_id is None and not by_exchange:
            return NOT_FIRST
    else:
        return NONE
    plain = _without_comments(value) if len(value) <= _LONGEST else None
    if plain is None:
        return UNREADABLE
    first, *others = sections = _SECTION.findall(plain) or [""]
    if authserv_id is not None:
        server = _SERVER.fullmatch(first)
        if server is None or (server[1] or server[2]).lower() != authserv_id.lower():
            return ANOTHER
        sections = others
    results = [_pairs(one) for one in sections if one.strip().lower() not in ("", "none")]
    return [one for one in results if one] if None not in results else UNREADABLE


def _fields(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the header fields in their order, up to the first line that is none; names in lower case."""
    at = 0
    while match := _FIELD.match(raw, at):
        yield match[1].decode("ascii").lower(), match[2].decode("latin-1")
        at = match.end()


def _without_comments(value: str) -> str | None:
    """Return `value` without its comments, which may nest; None where quotes or comments have no end."""
    kept: list[str] = []
    depth, quoted, at = 0, False, 0
    while at < len(value):
        step = 2 if value[at] == "\\" and (quoted or depth) else 1
        character = value[at : at + step]
        at += step
        if character == '"' and not depth:
            quoted = not quoted
        elif character == "(" and not quoted:
            depth += 1
        elif character == ")" and not quoted:
            depth -= 1
            character = " "
        if depth < 0:
            return None
        if depth == 0:
            kept.append(character)
    return None if depth or quoted else "".join(kept)


def _pairs(section: str) -> Pairs | None:
    """Return each `name = value` of a section, in lower case; None where something else stands there."""
    pairs: Pairs = []
    section = section.strip()
    at = 0
    while at < len(section):
        match = _PAIR.match(section, at)
        if match is None:
            return None
        pairs.append((match[1].lower(), re.sub(r'"|\\(?=.)', "", match[2]).lower()))
        at = match.end()
    return pairs
