"""LIST and SEARCH answers, in whatever words: one line that cannot be read hides no other."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from imapclient import imap_utf7
from imapclient.exceptions import ProtocolError

LARGEST_NUMBER: Final = 2**63 - 1
"""What both databases hold; RFC 3501 9 gives UIDs and UIDVALIDITY 32 bits."""

_LINE = re.compile(rb'\([^)]*\) (?:"\\?([^"])"|""|NIL) (.+)', re.DOTALL | re.IGNORECASE)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Listed:
    """A folder as the server names it on the wire, and its separator (empty: it has none)."""

    wire: bytes
    separator: str


def listed_folders(answer: Sequence[Any]) -> dict[str, Listed]:
    """Return the folders of a LIST answer, as imaplib hands it out, by the name that people know.

    A name that is no modified UTF-7 (a lone `&`, as older servers have them) is known by its own bytes.
    """
    found: dict[str, Listed] = {}
    for line in _lines(answer):
        match = _LINE.match(line)
        if match is None:
            continue
        wire = match[2]
        if quoted := _QUOTED.match(wire):
            wire = re.sub(rb"\\(.)", rb"\1", quoted[1])
        found.setdefault(_readable(wire), Listed(wire, (match[1] or b"").decode("latin-1")))
    return found


def searched_uids(answer: Sequence[Any]) -> set[int]:
    """Return the numbers of a SEARCH answer in one untagged line or many, without those no UID can be.

    Raises ProtocolError where it holds anything else: what was meant might be a mail.
    """
    uids: set[int] = set()
    for line in answer:
        for word in (line or b"").partition(b"(")[0].split():  # (MODSEQ n) may follow
            if not word.isdigit():
                raise ProtocolError("a SEARCH answer holds what is no number")
            uids.add(bounded_number(word) or 0)
    return uids - {0}


def bounded_number(digits: object) -> int | None:
    """Return the number that a server sent as `digits`, None where no archive can hold it or it is none."""
    if isinstance(digits, bytes):
        digits = int(digits) if len(digits) < 20 and digits.isdigit() else None
    return digits if isinstance(digits, int) and 0 <= digits <= LARGEST_NUMBER else None


def _lines(answer: Sequence[Any]) -> Iterator[bytes]:
    """Yield each line whole: imaplib splits one whose name comes as a literal."""
    for part in answer:
        if isinstance(part, tuple):
            yield re.sub(rb"\{\d+\}\Z", b"", part[0]) + part[1]
        elif part:
            yield part


def _readable(wire: bytes) -> str:
    try:
        return str(imap_utf7.decode(wire))
    except (ValueError, LookupError):
        return wire.decode("utf-8", "backslashreplace")
