"""Tells from content, never from a name, what a stream is."""

import re
from enum import StrEnum

from ingestor.intake.files.foreign import refusal
from ingestor.intake.files.separators import LOOKAHEAD, is_header_line, next_separator, separator_end

HEAD = LOOKAHEAD + 1024
"""How many first bytes `sniff` wants to see."""

EMLX = re.compile(rb"(\d{1,10})[ \t]*\r?\n")
"""The first line of a mail of Apple Mail: its length."""

DBOX = re.compile(rb"2 M([0-9a-f]{1,4}) C[0-9a-f]{1,16}(?: [^\n]{0,200})?\n")
"""The first line of a dbox file: how long the header before each mail is, and when the file was made."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Kind(StrEnum):
    """What a stream holds."""

    MBOX = "mbox"
    MAIL = "mail"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    ZIP = "zip"
    TAR = "tar"
    EMLX = "emlx"
    DBOX = "dbox"
    REFUSED = "refused"
    EMPTY = "empty"
    UNKNOWN = "unknown"


COMPRESSED = frozenset({Kind.GZIP, Kind.BZIP2, Kind.XZ, Kind.ZSTD})

_MAGIC = (
    (b"\x1f\x8b\x08", Kind.GZIP),
    (b"\xfd7zXZ\0", Kind.XZ),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"PK\x03\x04", Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),
    (b"PK\x07\x08", Kind.ZIP),
)
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")


def sniff(head: bytes) -> Kind:
    """Return what begins with `head` (up to `HEAD` bytes; fewer only when the stream is shorter)."""
    if not head:
        return Kind.EMPTY
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"BZh") and head[4:10] in _BZIP2_BLOCKS:
        return Kind.BZIP2
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return Kind.ZSTD  # a skippable frame, as pzstd puts in front
    if _is_tar(head):
        return Kind.TAR
    if DBOX.match(head):
        return Kind.DBOX
    if (line := EMLX.match(head)) and (is_header_line(head, line.end(), len(head)) or not head[line.end() :]):
        return Kind.EMLX
    if refusal(head):
        return Kind.REFUSED
    return _text_kind(head.removeprefix(BYTE_ORDER_MARK))


def _is_tar(head: bytes) -> bool:
    """Check the header's sum: old tar files have no magic."""
    block = head[:512]
    if len(block) < 512 or not block[0]:
        return False
    try:
        stated = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block) - sum(block[148:156]) + 8 * 0x20


def _text_kind(text: bytes) -> Kind:
    """Tell mbox, mail and neither apart; empty lines and NULs in front are forgiven."""
    start = len(text) - len(text.lstrip(b"\r\n\0"))
    text = text[start:]
    if not text:
        return Kind.EMPTY if start == 0 else Kind.MBOX
    if text.startswith(b"From ") and separator_end(text, 0, len(text)):
        return Kind.MBOX
    # A damaged head must not turn a whole mailbox into one mail, or into nothing.
    if _holds_separator(text):
        return Kind.MBOX
    return Kind.MAIL if is_header_line(text, 0, len(text)) else Kind.UNKNOWN


def _holds_separator(text: bytes) -> bool:
    at, end = 0, 0
    while at >= 0:
        at, end = next_separator(text, end, len(text))
        if (
            at >= 0
            and text[max(0, at - 3) : at].endswith((b"\n\n", b"\n\r\n"))
            and is_header_line(text, end, len(text))
        ):
            return True
    return False
