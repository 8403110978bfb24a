"""A mail too large to be parsed, made an item without ever being one string: 30 MB cost 30 MB, not 150."""

import hashlib
from collections.abc import Iterator
from typing import Final

import zstandard

from ingestor.archive.entries import NO_DAY, Payload, mail_day
from ingestor.archive.payloads import LEVEL

PIECE_BYTES: Final = 1024 * 1024
"""What is asked for in one partial FETCH."""


def pack_pieces(pieces: list[bytes], size: int) -> tuple[Payload, bytes]:
    """Return the payload and the content key of the mail that `pieces` make up, and empty the list.

    `size` is that of the whole mail where `pieces` are only its beginning. The payload is what
    `payloads.pack`, the key what `mail_content_key` makes of the same bytes.
    """
    day = mail_day(pieces[0]) if pieces else NO_DAY
    kept = sum(map(len, pieces))
    raw_digest = hashlib.sha256()
    key_digest = hashlib.sha256()
    compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=kept)
    compressed: list[bytes] = []
    held = b""  # line ends at the end so far: dropped if nothing follows
    for piece in _consumed(pieces):
        raw_digest.update(piece)
        compressed.append(compressor.compress(piece))
        body = (held + piece).rstrip(b"\r\n")
        held = (held + piece)[len(body) :]
        key_digest.update(body.replace(b"\r\n", b"\n"))
    compressed.append(compressor.flush())
    payload = Payload(raw=None, size=size, sha256=raw_digest.digest(), compressed=b"".join(compressed))
    return payload, day + key_digest.digest()


def _consumed(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield each piece and let go of it."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()
