"""Mail addresses of a From field, read in one pass whose time is linear in the field's length.

The standard library's reader recurses on comments and has answered differently from release to release;
what is asked here is small: how many addresses there are, and which.
"""

import re

# An ordinary display name and one address, or one address alone.
_ORDINARY = re.compile(
    r"""\s*+(?:[^<>@,;:"()\\]*+<([^<>@,;:"()\\\s]++@[^<>@,;:"()\\\s]++)>
          |"[^"\\]*+"\s*+<([^<>@,;:"()\\\s]++@[^<>@,;:"()\\\s]++)>
          |([^<>@,;:"()\\\s]++@[^<>@,;:"()\\\s]++))\s*+""",
    re.VERBOSE,
)


def addresses_of(field: str) -> list[str]:
    """Return the addresses in `field` (a From value, still folded), as written.

    A display name is never an address, unless it holds an @ outside quotes: then readers disagree about
    who the sender is, and it counts as a further one.
    """
    match = _ORDINARY.fullmatch(field)
    if match:
        return [match[match.lastindex or 0]]
    return _Walk().over(field)


class _Walk:
    """One pass over a field; `angle` is what stood between < and > in the current mailbox."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.words: list[str] = []
        self.angle: str | None = None

    def over(self, field: str) -> list[str]:
        at, end = 0, len(field)
        while at < end:
            character = field[at]
            if character == '"':
                at = _after_quotes(field, at)
                self.words.append('""')
                continue
            if character == "(":
                at = _after_comment(field, at)
                continue
            if character == "<":
                at = self._take_angle(field, at)
                continue
            if character in ",;":
                self._end_mailbox()
            elif character == ":":
                self.words.clear()
            else:
                self.words.append(character)
            at += 1
        self._end_mailbox()
        return self.found

    def _take_angle(self, field: str, at: int) -> int:
        if self.angle is not None:
            self.found.append(self.angle)
        close = field.find(">", at)
        close = close if close >= 0 else len(field)
        self.angle = _joined(_without_comments(field[at + 1 : close]))
        return close + 1

    def _end_mailbox(self) -> None:
        words = _joined("".join(self.words))
        if self.angle is not None:
            self.found.append(self.angle)
            if "@" in words and words.lower() != self.angle.lower():
                self.found.append(words)
        elif words:
            self.found.append(words)
        self.words.clear()
        self.angle = None


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
