"""The header of a mail as bytes: where it ends, the few fields that matter here, and their text.

One pass picks the fields by name, so that a mail of somebody else costs microseconds and a hundred Received
lines cost nothing. A line that is no field is passed over.
"""

import binascii
import re
from itertools import islice
from typing import NamedTuple

from ingestor.providers.charsets import decode_text

_NO_HEADER = b"\r\n\0\xef\xbb\xbf"
_BEFORE = frozenset((b"\r", b"\n", b"\0", b"\xef"))
_END = re.compile(rb"\n\r?\n")

# Spelled out instead of re.IGNORECASE, which is several times slower, and led by a look at the first letter,
# which costs a third less than whole words alone. Blanks before the colon are obsolete, not wrong (RFC 5322,
# 4.5).
_FIELD = re.compile(
    rb"\n((?=[FfSsDdMmCc])(?:[Ff][Rr][Oo][Mm]|[Ss][Uu][Bb][Jj][Ee][Cc][Tt]|[Dd][Aa][Tt][Ee]"
    rb"|[Mm][Ee][Ss][Ss][Aa][Gg][Ee]-[Ii][Dd]|[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[A-Za-z-]++))"
    rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)"
)

_NO_FIELD = re.compile(rb"\n(?=[^\n])(?![!-9;-~]++[ \t]*:|[ \t\r]|>*From )")
_FROM_OF_A_BLOCK = re.compile(rb"\n(?=From[ \t]*:[^\n@]*\n)", re.IGNORECASE)
_HIDDEN_FROM = re.compile(rb"\r[Ff][Rr][Oo][Mm][ \t]*+:")
_FROM_AND_SUBJECT = frozenset((b"from", b"subject"))
_LONGEST_HEADER = 65536
_MOST_ENDS = 20


class Header(NamedTuple):
    """From, Subject, Date, Message-ID and Content-* by lower-case name: raw values, folded as they came.

    `first` has the first value of each name; `every` has all of them in their order.
    """

    first: dict[bytes, bytes]
    every: list[tuple[bytes, bytes]]

    def only(self, name: bytes) -> bytes | None:
        """Return the value of `name` where it occurs exactly once."""
        value = self.first.get(name)
        if value is not None and len(self.first) != len(self.every) and len(self.values_of(name)) > 1:
            return None
        return value

    def values_of(self, name: bytes) -> list[bytes]:
        return [value for other, value in self.every if other == name]


def split_mail(raw: bytes) -> tuple[Header, int]:
    """Return the header of `raw` and the offset of its body.

    The header ends at the first empty line; a mail without one is all header. Line ends may be CRLF, LF, or
    mixed; empty lines, NULs and a byte order mark before the header are passed over.
    """
    if raw[:1] in _BEFORE:
        inside = raw.lstrip(_NO_HEADER)
        header, body_at = split_mail(inside)
        return header, body_at + len(raw) - len(inside)
    end = _END.search(raw)
    if end is None:
        return read_header(raw), len(raw)
    return read_header(raw[: end.start() + 1]), end.end()


def hides_a_from(raw: bytes, end: int) -> bool:
    """Say whether a From stands behind a CR that ends no line: to some readers it is one more field."""
    return raw.find(b"\r", 0, end) >= 0 and _HIDDEN_FROM.search(raw, 0, end) is not None


def other_ends(raw: bytes, end: int) -> list[tuple[Header, int]]:
    """Return where before `end` the header of `raw` may end instead: that header, and the body's offset.

    A line that can be no field ends it, and where the line between was lost, or holds a blank (the last field
    goes on there: RFC 5322), the block's own From, no address. Each stands behind a From and a Subject.
    """
    found = []
    for pattern in (_NO_FIELD, _FROM_OF_A_BLOCK):
        for match in islice(pattern.finditer(raw, 0, min(end - 1, _LONGEST_HEADER)), _MOST_ENDS):
            header = read_header(raw[: match.start() + 1])
            if _FROM_AND_SUBJECT.issubset(header.first):
                found.append((header, match.end()))
                break
    return found


def read_header(block: bytes) -> Header:
    every = [(name.lower(), value) for name, value in _FIELD.findall(b"\n" + block)]
    first = dict(every)
    if len(first) != len(every):
        first = dict(reversed(every))
    return Header(first, every)


# Blanks inside an encoded word are forbidden and common. The lengths bound the work on hostile fields.
_WORD = re.compile(rb"=\?([!->@-~]{1,60})\?([bBqQ])\?([^?\r\n]{0,1000})\?=")
_BETWEEN_WORDS = re.compile(rb"[ \t\r\n]*+")
_LONGEST = 8192


def decode_header(value: bytes) -> str:
    """Return the header `value` decoded and unfolded; bytes beyond ASCII are UTF-8, else Windows-1252.

    At most 8 KiB are looked at.
    """
    value = value[:_LONGEST]
    if b"\n" in value or b"\r" in value:
        value = value.replace(b"\r", b"").replace(b"\n", b"")
    if b"=?" not in value:
        return decode_text(value, None).text.strip()
    pieces: list[tuple[bytes, str | None]] = []
    at = 0
    for match in _WORD.finditer(value):
        between = value[at : match.start()]
        if between and not (pieces and pieces[-1][1] and _BETWEEN_WORDS.fullmatch(between)):
            pieces.append((between, None))
        charset = match[1].partition(b"*")[0].decode("ascii").lower()
        _append(pieces, _payload(match[2], match[3]), charset)
        at = match.end()
    pieces.append((value[at:], None))
    return "".join(decode_text(data, charset).text for data, charset in pieces).strip()


def _append(pieces: list[tuple[bytes, str | None]], data: bytes, charset: str) -> None:
    # Mailers cut a character's bytes in two words, so neighbours of one charset are decoded together.
    if pieces and pieces[-1][1] == charset:
        pieces[-1] = (pieces[-1][0] + data, charset)
    else:
        pieces.append((data, charset))


def _payload(kind: bytes, encoded: bytes) -> bytes:
    if kind in b"qQ":
        return binascii.a2b_qp(encoded, header=True)
    try:
        return binascii.a2b_base64(encoded + b"==")
    except binascii.Error:
        return encoded
