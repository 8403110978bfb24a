"""The header block of a mail as bytes: where it ends, and what stands in a field.

Nothing here is a full parser: a field is looked up by name, so that a mail of somebody else costs
microseconds and a hundred Received lines cost nothing.
"""

import re
from functools import lru_cache
from typing import NamedTuple


class Header(NamedTuple):
    """A header block with one line end before it, so that every field name follows a line end.

    `lower` is the same block in lower case; offsets into both are equal.
    """

    block: bytes
    lower: bytes


def split_mail(raw: bytes) -> tuple[bytes, int]:
    """Return the header block of `raw` (up to its last line end) and where the body begins.

    The header ends at the first empty line, whatever else stands in it; a mail without one is all header.
    Line ends may be CRLF, LF, or mixed.
    """
    start = 0
    if raw[:1] in b"\r\n":  # b"" too, and then there is nothing to skip
        start = len(raw) - len(raw.lstrip(b"\r\n"))
    crlf = raw.find(b"\n\r\n", start)
    bare = raw.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(raw))
    if bare >= 0:
        return raw[start : bare + 1], bare + 2
    if crlf >= 0:
        return raw[start : crlf + 1], crlf + 3
    return raw[start:], len(raw)


def read_header(block: bytes) -> Header:
    """Return `block` ready for look-ups."""
    block = b"\n" + block
    return Header(block, block.lower())


def first_value(header: Header, name: bytes) -> bytes | None:
    """Return the first value of the field `name` (lower case, like `b"subject"`), still folded, or None."""
    value = only_value(header, name)
    if value is None:
        values = all_values(header, name)
        return values[0] if values else None
    return value


def only_value(header: Header, name: bytes) -> bytes | None:
    """Return the value of the field `name` where it plainly occurs once, else None (see `all_values`)."""
    block, lower = header
    start = b"\n" + name
    at = lower.find(start)
    after = at + len(start)
    if at < 0 or lower[after : after + 1] != b":" or lower.find(start, after) >= 0:
        return None
    return _value_at(block, after + 1)


def all_values(header: Header, name: bytes) -> list[bytes]:
    """Return every value of the field `name`, still folded; blanks before the colon are allowed."""
    block, lower = header
    return [_value_at(block, match.end()) for match in _named(name).finditer(lower)]


@lru_cache(maxsize=16)
def _named(name: bytes) -> re.Pattern[bytes]:
    return re.compile(b"\n" + re.escape(name) + rb"[ \t]*:")


def _value_at(block: bytes, start: int) -> bytes:
    end = block.find(b"\n", start)
    while end >= 0 and block[end + 1 : end + 2] in (b" ", b"\t"):
        end = block.find(b"\n", end + 1)
    return block[start : end if end >= 0 else len(block)]
