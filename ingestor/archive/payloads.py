"""Raw bytes on their way in and out: compressed before the database sees them, exact when they come back.

zstd level 3 before the insert is faster than no compression on both databases: rows stay below the size
where PostgreSQL moves them out of the table and SQLite needs overflow pages.

Mails are packed with a dictionary that ships with the program: they halve in size once more, and pack faster.
It was trained on generated sample mails, never on anybody's own: a dictionary holds pieces of what it was
trained on, and its table is one that nothing is ever erased from. The bytes of a number never change; a
better dictionary gets a new number, and old payloads keep theirs.
"""

import hashlib
import sys
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from ingestor.archive.items import Payload

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd  # the same library, for a Python that has none of its own

if TYPE_CHECKING:
    from sqlalchemy import Engine

LEVEL = 3
_SMALL, _LEVEL_OF_SMALL = 160, -5
MAX_BYTES = 1 << 30
_TRAINED = b"\x37\xa4\x30\xec"

SHIPPED = 1
"""The number of the shipped dictionary in the table `dictionaries`."""

Dictionary = tuple[int, bytes]
"""Its number in the table `dictionaries`, and its bytes."""


def pack(
    raw: bytes | bytearray, content_type: str | None = None, dictionary: Dictionary | None = None
) -> Payload:
    """Return `raw` as a payload, compressed; with `dictionary` against that one."""
    number = dictionary[0] if dictionary else None
    sha256 = hashlib.sha256(raw).digest()
    return Payload(content_type, len(raw), sha256, number, compress(raw, dictionary))


def compress(raw: bytes | bytearray, dictionary: Dictionary | None = None) -> bytes:
    """Return `raw` as one zstd frame; safe to call from several threads.

    A short POST (96 bytes) would shrink to 91, at the price of 5 % of its way into an SQLite archive: zstd
    makes tables for it, of which the processor's cache is full afterwards. Without them it has 105. (One of
    143: 124, or 152 in 0.8 µs instead of 4.9.)
    """
    level = _LEVEL_OF_SMALL if dictionary is None and len(raw) <= _SMALL else LEVEL
    return _compressor(level, dictionary).compress(raw, zstd.ZstdCompressor.FLUSH_FRAME)


@lru_cache(maxsize=8)
def _compressor(level: int, dictionary: Dictionary | None) -> zstd.ZstdCompressor:
    """Return the one compressor for both: a new one a mail costs 12 µs, the same one again 1.3."""
    return zstd.ZstdCompressor(level, zstd_dict=_loaded(dictionary[1]) if dictionary else None)


@lru_cache(maxsize=8)
def _loaded(dictionary: bytes) -> zstd.ZstdDict:
    """Return a dictionary to work with; one that was not trained is any bytes without zstd's mark."""
    return zstd.ZstdDict(dictionary, is_raw=not dictionary.startswith(_TRAINED))


class PackedPieces:
    """Packs a payload that comes in pieces, without ever holding the whole."""

    def __init__(self, size: int) -> None:
        """`size` is that of all pieces together."""
        self._compressor = zstd.ZstdCompressor(LEVEL)
        self._compressor.set_pledged_input_size(size)
        self._sha256 = hashlib.sha256()
        self._compressed: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._sha256.update(piece)
        self._compressed.append(self._compressor.compress(piece))

    def payload(self, size: int) -> Payload:
        """Return what `pack` makes of the same bytes; `size` is that of the whole mail."""
        self._compressed.append(self._compressor.flush())
        return Payload(None, size, self._sha256.digest(), None, b"".join(self._compressed))


def unpack(
    compressed: bytes, dictionary_id: int | None = None, dictionaries: Mapping[int, bytes] | None = None
) -> bytes:
    """Return the raw bytes of a stored payload. Raises ValueError where it is damaged."""
    given = None
    if dictionary_id is not None:
        if dictionaries is None or dictionary_id not in dictionaries:
            raise ValueError(f"dictionary {dictionary_id} of this payload is missing from the archive")
        given = _loaded(dictionaries[dictionary_id])
    # One for each payload: this library's reads a single frame. It costs 8 µs.
    decompressor = zstd.ZstdDecompressor(given)
    try:
        raw = decompressor.decompress(compressed, MAX_BYTES)
    except zstd.ZstdError as error:
        raise ValueError("the stored payload is damaged") from error
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("the stored payload is damaged")
    return raw


@cache
def shipped() -> Dictionary:
    """Return the dictionary that new payloads are packed with."""
    return SHIPPED, files("ingestor.archive").joinpath(f"mails-{SHIPPED}.zdict").read_bytes()


def usable_dictionary(engine: "Engine") -> Dictionary | None:
    """Return what payloads for this archive may be packed with, kept there from now on.

    None where another program's dictionary has this number: then payloads go without.
    """
    # The processes of an import pack, too, and stay small without the database library.
    from datetime import UTC, datetime

    from sqlalchemy import select

    from ingestor.archive.columns import insert_once
    from ingestor.archive.engine import reading, writing
    from ingestor.archive.tables import dictionaries

    number, content = shipped()
    stands = select(dictionaries.c.bytes).where(dictionaries.c.id == number)
    with reading(engine) as connection:
        found = connection.execute(stands).scalar()
    if found is None:
        with writing(engine) as connection:
            row = {"id": number, "bytes": content, "created_at": datetime.now(UTC)}
            insert_once(connection, dictionaries, row)
            found = connection.execute(stands).scalar_one()
    return (number, content) if bytes(found) == content else None
