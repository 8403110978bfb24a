"""Whose mail is it? Decided from From and Subject alone, before anything else is looked at."""

import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from ingestor.numbers import INVISIBLE
from ingestor.providers.agile.addresses import addresses_of
from ingestor.providers.agile.encoded_words import decode_header
from ingestor.providers.agile.header import Header
from ingestor.providers.contract import Rules

_EXACT = re.compile(r"Agile Telecom ?(?:--?|\N{EN DASH}|\N{EM DASH}) ?SMS received")
# Of the dash an export leaves what it can: nothing, a question mark, three letters, &ndash;, =E2=80=93.
SOMEWHERE = re.compile(r"agile[\W_]*telecom.{0,24}?sms[\W_]*received")
"""Our subject with anything before it, behind it and between; of a subject in lower case."""
_AROUND = " \t\u00a0\u202f'<>" + INVISIBLE
_SCHEME = re.compile("(?:smtp|mailto):", re.IGNORECASE)
_LONGEST_FROM = 65536  # beyond it there is no telling who the sender is
_CACHED_LENGTH = 1000  # nobody fills the caches with megabytes


class Subject(IntEnum):
    """How much of our subject a mail's subject is."""

    OTHER = 0
    CONTAINED = 1
    EXACT = 2


class Envelope(NamedTuple):
    """What From and Subject say.

    `sender` is the one From address, where there is exactly one; `known` says that it is one of the senders,
    `named` that From names one of them anywhere (a display name, a comment, a second address).
    """

    sender: str | None
    known: bool
    named: bool
    subject: Subject

    @property
    def ours(self) -> bool:
        """Whether both are exactly what Agile sends."""
        return self.known and self.subject is Subject.EXACT

    @property
    def suspected(self) -> bool:
        """Whether the whole mail has to be looked at before it may be left alone."""
        return self.named or self.subject is not Subject.OTHER


def read_envelope(header: Header, rules: Rules) -> Envelope:
    """Say what a mail's `header` has of Agile's.

    Ours has one From field with exactly one address, one of `rules.senders`, and the subject `Agile Telecom
    -- SMS received`, decoded and unfolded, with a hyphen, two, an en dash or an em dash.
    """
    given = header.only(b"from")
    if given is not None and len(given) <= _CACHED_LENGTH:
        sender, known, named = _from(rules.senders, given)
    else:
        sender, known, named = _from.__wrapped__(rules.senders, *header.values_of(b"from"))
    subject = header.first.get(b"subject")
    if subject is None:
        return Envelope(sender, known, named, Subject.OTHER)
    if known and len(subject) <= _CACHED_LENGTH and _is_exact(subject):
        return Envelope(sender, known, named, Subject.EXACT)
    alone = len(header.first) == len(header.every)
    for value in (subject,) if alone else header.values_of(b"subject"):
        if rules.subjects or b"=?" in value or b"elecom" in value or b"ELECOM" in value:
            if len(value) <= _CACHED_LENGTH and _is_exact(value):
                return Envelope(sender, known, named, Subject.CONTAINED)
            shown = " ".join(decode_header(value).split()).casefold()
            if SOMEWHERE.search(shown) or any(one in shown for one in rules.subjects):
                return Envelope(sender, known, named, Subject.CONTAINED)
    return Envelope(sender, known, named, Subject.OTHER)


@lru_cache(maxsize=512)
def _is_exact(value: bytes) -> bool:
    return _EXACT.fullmatch(" ".join(decode_header(value).split())) is not None


@lru_cache(maxsize=2048)
def _from(senders: frozenset[str], *values: bytes) -> tuple[str | None, bool, bool]:
    """Return the one address of the From `values`, whether it is one of `senders`, whether one is named."""
    shown = b"\n".join(values)
    named = any(sender.encode() in shown.lower() for sender in senders)
    if not named and b"=?" in shown:
        named = any(sender in decode_header(value).lower() for value in values[:10] for sender in senders)
    if len(values) != 1 or len(shown) > _LONGEST_FROM:
        return None, False, named
    found = [_bare(address) for address in addresses_of(values[0].decode("latin-1"))]
    if len(found) != 1 or not found[0].isprintable():
        return None, False, named
    return found[0], found[0].lower() in senders, named


def _bare(address: str) -> str:
    """Return an `address` without what is no part of it: quotes, a scheme, and blanks that nobody sees."""
    if not address.isascii():
        address = address.encode("latin-1").decode("utf-8", "replace")
    return _SCHEME.sub("", address.strip(_AROUND))
