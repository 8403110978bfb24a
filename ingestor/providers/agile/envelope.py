"""Whose mail is it? Decided from From and Subject alone, before anything else is looked at.

    From: Agile Telecom <smsin@agiletelecom.com>
    Subject: Agile Telecom -- SMS received

From is read in one pass whose time is linear in its length. The standard library's reader recurses on
comments and has answered differently from release to release (3.11.7 has no `strict` yet); what is asked here
is small: how many addresses there are, and which.
"""

import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from ingestor.numbers import INVISIBLE
from ingestor.providers.agile.header import Header, decode_header
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
    OTHER = 0
    CONTAINED = 1
    EXACT = 2


class Envelope(NamedTuple):
    """What From and Subject say.

    `sender` is the one From address, where there is exactly one; `known`: it is one of the senders; `named`:
    From names one of them anywhere (a display name, a comment, a second address).
    """

    sender: str | None
    known: bool
    named: bool
    subject: Subject

    @property
    def ours(self) -> bool:
        return self.known and self.subject is Subject.EXACT

    @property
    def suspected(self) -> bool:
        """Whether the whole mail has to be looked at before it may be left alone."""
        return self.named or self.subject is not Subject.OTHER


def read_envelope(header: Header, rules: Rules) -> Envelope:
    """Say what a mail's `header` has of Agile's.

    Ours has one From field with one address, one of `rules.senders`, and the subject `Agile Telecom -- SMS
    received`, decoded and unfolded, with a hyphen, two, an en dash or an em dash.
    """
    given = header.only(b"from")
    if given is not None and len(given) <= _CACHED_LENGTH:
        sender, known, named = _from(rules.senders, given)
    else:
        sender, known, named = _from.__wrapped__(rules.senders, *header.values_of(b"from"))
    first = header.first.get(b"subject")
    if first is None:
        return Envelope(sender, known, named, Subject.OTHER)
    if known and len(first) <= _CACHED_LENGTH and _subject(first, rules.subjects) is Subject.EXACT:
        return Envelope(sender, known, named, Subject.EXACT)
    for value in (first,) if len(header.first) == len(header.every) else header.values_of(b"subject"):
        if rules.subjects or b"=?" in value or b"elecom" in value or b"ELECOM" in value:
            subject_of = _subject if len(value) <= _CACHED_LENGTH else _subject.__wrapped__
            if subject_of(value, rules.subjects) is not Subject.OTHER:
                return Envelope(sender, known, named, Subject.CONTAINED)
    return Envelope(sender, known, named, Subject.OTHER)


@lru_cache(maxsize=512)
def _subject(value: bytes, further: tuple[str, ...]) -> Subject:
    shown = " ".join(decode_header(value).split())
    if _EXACT.fullmatch(shown):
        return Subject.EXACT
    folded = shown.casefold()
    ours = SOMEWHERE.search(folded) or any(one in folded for one in further)
    return Subject.CONTAINED if ours else Subject.OTHER


@lru_cache(maxsize=2048)
def _from(senders: frozenset[str], *values: bytes) -> tuple[str | None, bool, bool]:
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


# An ordinary display name and one address, or one address alone.
_ORDINARY = re.compile(
    r"""\s*+(?:[^][<>@,;:"()\\]*+<([^<>@,;:"()\\\s]++@[^<>@,;:"()\\\s]++)>
          |"[^"\\]*+"\s*+<([^<>@,;:"()\\\s]++@[^<>@,;:"()\\\s]++)>
          |([^<>@,;:"()\\\s]++@[^<>@,;:"()\\\s]++))\s*+""",
    re.VERBOSE,
)

_BARE_CR = re.compile(r"\r(?![\r\n])")
_WITH_AT = re.compile(r"""[^\s<>()\[\],;:"'@]{0,64}+@[^\s<>()\[\],;:"']*+""")


def addresses_of(field: str) -> list[str]:
    """Return the addresses in `field` (a From value, still folded), as written.

    A quoted display name is never an address. What holds an @ in any other place (a display name without
    quotes, a comment, the name of a group) is one to some readers: it counts as a further address, unless it
    is the one address again. What holds none is no address beside one (`Telecom, Agile <...>`). Around a CR
    that ends no line each reader sees another sender: there is none.
    """
    match = _ORDINARY.fullmatch(field)
    if match and "\r" not in field.strip():
        return [match[match.lastindex or 0]]
    if _BARE_CR.search(field.rstrip()):
        return []
    return _Walk().over(field)


class _Walk:
    """One pass over a field; `angle` is what stood between < and > in the current mailbox.

    `before` counts the words before it, `bare` are words alone, without an @; `quoted` is what stood in
    quotes before it, `named` the addresses that stood where none belongs.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.bare: list[str] = []
        self.words: list[str] = []
        self.quoted: list[str] = []
        self.named: list[str] = []
        self.angle: str | None = None
        self.before = 0

    def over(self, field: str) -> list[str]:
        at, end = 0, len(field)
        while at < end:
            character = field[at]
            if character == '"':
                start, at = at, _after_quotes(field, at)
                self.words.append('""')
                self.quoted.append(field[start + 1 : at - 1])
                continue
            if character == "(":
                start, at = at, _after_comment(field, at)
                self._name(field[start + 1 : at - 1])
                continue
            if character == "<":
                at = self._take_angle(field, at)
                continue
            if character in ",;":
                self._end_mailbox()
            elif character == ":":
                self._name(" ".join(("".join(self.words), *self.quoted)))
                self.words.clear()
                self.quoted.clear()
                self.before = 0
            else:
                self.words.append(character)
            at += 1
        self._end_mailbox()
        self.found = self.found or self.bare
        if len(self.found) == 1:
            self.found += [name for name in self.named if name.lower() != self.found[0].lower()]
        return self.found

    def _name(self, text: str) -> None:
        self.named += _addresses_in(text)

    def _take_angle(self, field: str, at: int) -> int:
        if self.angle is not None:
            self.found.append(self.angle)
        self.before = len(self.words)
        close = field.find(">", at)
        close = close if close >= 0 else len(field)
        inside = field[at + 1 : close]
        if "(" in inside:
            self._name(inside[inside.index("(") :])
        self.angle = _joined(_without_comments(inside)).removeprefix("mailto:")
        return close + 1

    def _end_mailbox(self) -> None:
        words = _joined("".join(self.words))
        if self.angle is not None:
            self.found.append(self.angle)
            behind = "".join(self.words[self.before :])
            if "=?" in behind or '"' in behind:  # no name stands there
                self.found.append(behind)
            elif {one.lower() for one in _addresses_in(words)} - {self.angle.lower()}:
                self.found.append(words)
        elif words:
            (self.found if "@" in words or "=?" in words else self.bare).append(words)
            self._name(" ".join(self.quoted))
        self.words.clear()
        self.quoted.clear()
        self.angle = None


def _addresses_in(text: str) -> list[str]:
    """Return what looks like an address in a `text` that should be none, encoded words read too."""
    if "=?" in text:
        text = decode_header(text.encode("latin-1"))
    return _WITH_AT.findall(text) if "@" in text else []


def _after_quotes(field: str, at: int) -> int:
    at += 1
    while at < len(field) and field[at] != '"':
        at += 2 if field[at] == "\\" else 1
    return at + 1


def _after_comment(field: str, at: int) -> int:
    depth = 0
    while at < len(field):
        character = field[at]
        if character == "\\":
            at += 1
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return at


def _without_comments(text: str) -> str:
    kept = []
    at = 0
    while at < len(text):
        if text[at] == "(":
            at = _after_comment(text, at)
        else:
            kept.append(text[at])
            at += 1
    return "".join(kept)


def _joined(text: str) -> str:
    """Return `text` without the blanks that folding may put around the dots and the @ of an address."""
    for mark in "@.":
        text = mark.join(piece.strip() for piece in text.split(mark))
    return text
