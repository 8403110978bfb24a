"""Mail addresses of a From field, read in one pass whose time is linear in the field's length.

The standard library's reader recurses on comments and has answered differently from release to release;
what is asked here is small: how many addresses there are, and which.
"""

import re

from ingestor.providers.agile.encoded_words import decode_header

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
        """Note the addresses in a `text` that is none itself."""
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
