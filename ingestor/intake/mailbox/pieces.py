"""A mail too large to be parsed, made an item without ever being one string: 30 MB cost 30 MB, not 150."""

from collections.abc import Iterator
from typing import Final

from ingestor.archive.items import Payload
from ingestor.archive.payloads import PackedPieces
from ingestor.archive.rows import ContentKey

PIECE_BYTES: Final = 1024 * 1024
"""What is asked for in one partial FETCH."""


def pack_pieces(pieces: list[bytes], size: int) -> tuple[Payload, bytes]:
    """Return the payload and the content key of the mail that `pieces` make up, and empty the list.

    `size` is that of the whole mail where `pieces` are only its beginning. The payload is what
    `payloads.pack`, the key what `mail_content_key` makes of the same bytes.
    """
    packed, key = PackedPieces(sum(map(len, pieces))), ContentKey()
    for piece in _consumed(pieces):
        packed.feed(piece)
        key.feed(piece)
    return packed.payload(size), key.digest()


def _consumed(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield each piece and let go of it."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()
