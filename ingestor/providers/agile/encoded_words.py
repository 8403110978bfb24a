"""Header text: encoded words (RFC 2047), raw 8-bit bytes and folding, read into plain text."""

import binascii
import re

from ingestor.providers.charsets import decode_text

# Blanks inside an encoded word are forbidden and common. The lengths bound the work on hostile fields.
_WORD = re.compile(rb"=\?([!->@-~]{1,60})\?([bBqQ])\?([^?\r\n]{0,1000})\?=")
_BETWEEN_WORDS = re.compile(rb"[ \t\r\n]*+")
_LONGEST = 8192


def decode_header(value: bytes) -> str:
    """Return the header `value` decoded and unfolded, without blanks at its ends.

    Bytes outside ASCII are read as UTF-8, else as Windows-1252. At most 8 KiB are looked at.
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
