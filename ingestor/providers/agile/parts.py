"""What both lanes hand on: the transfer-decoded bytes of one text part and how it calls itself."""

import binascii
import re
from typing import NamedTuple


class Part(NamedTuple):
    """One text part of a mail. `data` is None where its base64 is broken."""

    data: bytes | None
    charset: str | None
    html: bool
    flowed: bool
    delete_space: bool
    encoding: str


IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
ENCODINGS = IDENTITY | {"quoted-printable", "base64"}

_COMMENT = re.compile(r"\([^()]*\)")
_NO_LETTERS = re.compile(r"[^a-z0-9]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
# RFC 2045, 6.7: blanks at a line's end were added on the way (3), and a line end stands as it is (4); who
# encodes a part of it as well means one line end.
_QUOTED_LINE_END = re.compile(rb"(?:=0[Dd])?(?:=0[Aa])?+(?<![ \t])[ \t]*+(?=\r?\n|\Z)")
_QUOTED = re.compile(rb"=(?:[89A-Fa-f][0-9A-Fa-f]|3[Dd]|[ \t]*(?:\r?\n|\Z))")
# Sendmail breaks longer lines behind 989 bytes and a "!", Postfix behind 990 (long ago) or 998.
_BROKEN_BEHIND = (990, 998)


def encoding_of(field: str) -> str:
    """Return the transfer encoding that a Content-Transfer-Encoding `field` means, else its first word.

    Comments are allowed (RFC 2045, 3); semicolons, quotes and other spellings are not, and occur.
    """
    words = _COMMENT.sub(" ", field).strip("\"'; \t\r\n").lower().split(";")[0].strip()
    plain = _NO_LETTERS.sub("", words)
    for known, encoding in (("quotedprintable", "quoted-printable"), ("base64", "base64")):
        if plain.startswith(known):
            return encoding
    return words


def transfer_decoded(data: bytes, encoding: str) -> bytes | None:
    """Return `data` without its transfer `encoding` (one of `ENCODINGS`), or None for broken base64.

    Base64 is read strictly, blanks, line ends and a footer behind it apart: a lenient reader makes other
    text out of a body with one character lost, and half a text out of a body that was cut.
    """
    if encoding == "base64":
        whole = _from_base64(data.translate(None, b"\r\n \t"))
        return whole if whole is not None else _from_base64(_before_footer(data)) or None
    if encoding == "quoted-printable" and not _is_plain(data):
        if b"=0" in data or b" \r" in data or b" \n" in data or b"\t" in data or data[-1:] == b" ":
            data = _QUOTED_LINE_END.sub(b"", data)
        return binascii.a2b_qp(data)
    return data if len(data) < _BROKEN_BEHIND[0] else _rejoined(data)


def undeclared(data: bytes) -> bytes:
    """Return what is not the base64 it is called: quoted-printable where it is quoted, else as it is."""
    return binascii.a2b_qp(data) if data.isascii() and _QUOTED.search(data) else data


def _is_plain(data: bytes) -> bool:
    """Say whether `data` was never quoted: it holds bytes that must have been, and none that was."""
    return not data.isascii() and not _QUOTED.search(data)


def _from_base64(data: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error:
        return None


def _before_footer(data: bytes) -> bytes:
    """Return the lines of base64 that open `data`: equally long, the last one shorter or padded.

    A footer begins with an empty line, a ruling or several words: else it is a damaged line of base64.
    """
    lines: list[bytes] = []
    for line in map(bytes.strip, data.strip().splitlines()):
        if not _BASE64.fullmatch(line) or (lines and len(line) > len(lines[0])):
            is_footer = not line or (line[:1] in b"-_=*" or b" " in line)
            return b"".join(lines) if is_footer else b"="
        lines.append(line)
        if line.endswith(b"=") or len(line) < len(lines[0]):
            break
    return b"".join(lines)


def _rejoined(data: bytes) -> bytes:
    """Return `data` without the line ends that a relay put in: CR LF and a blank, at its limit exactly."""
    lines: list[bytes] = []
    length = 0
    for line in data.split(b"\n"):
        if length in _BROKEN_BEHIND and line.startswith(b" "):
            before = lines[-1].removesuffix(b"\r")
            lines[-1] = (before.removesuffix(b"!") if length == _BROKEN_BEHIND[0] else before) + line[1:]
        else:
            lines.append(line)
        length = len(line.removesuffix(b"\r"))
    return b"\n".join(lines)
