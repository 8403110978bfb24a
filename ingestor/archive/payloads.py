"""Raw bytes on their way in and out: compressed before the database sees them, exact when they come back.

zstd level 3 before the insert is faster than no compression on both databases: rows stay below the size
where PostgreSQL moves them out of the table and SQLite needs overflow pages.
"""

import hashlib
import threading
from collections.abc import Mapping

import zstandard

from ingestor.archive.entries import Payload

LEVEL = 3
MAX_BYTES = 1 << 30

# A form POST of an ordinary SMS: compressing it saves a few bytes and costs as much as reading it. Its frame
# (RFC 8878, section 3.1.1) is a header with one byte of size, and one last block of bytes as they are.
_SHORT = 256
_HEAD = b"\x28\xb5\x2f\xfd\x20"

_local = threading.local()


def pack(
    raw: bytes,
    content_type: str | None = None,
    dictionary: tuple[int, bytes] | None = None,
    *,
    size: int | None = None,
) -> Payload:
    """Return `raw` as a payload, compressed; with `dictionary` (its id and bytes) against that one.

    `size` is that of the whole where `raw` is only its beginning.
    """
    return Payload(
        raw=None,
        size=len(raw) if size is None else size,
        sha256=hashlib.sha256(raw).digest(),
        content_type=content_type,
        compressed=compress(raw, dictionary),
        dictionary_id=dictionary[0] if dictionary else None,
    )


def compress(raw: bytes, dictionary: tuple[int, bytes] | None = None) -> bytes:
    """Return `raw` as one zstd frame; safe to call from several threads."""
    if dictionary is None and len(raw) < _SHORT:
        return _HEAD + bytes((len(raw),)) + (len(raw) << 3 | 1).to_bytes(3, "little") + raw
    number = dictionary[0] if dictionary else 0
    compressors: dict[int, zstandard.ZstdCompressor] | None = getattr(_local, "compressors", None)
    if compressors is None:
        compressors = _local.compressors = {}
    compressor = compressors.get(number)
    if compressor is None:
        given = zstandard.ZstdCompressionDict(dictionary[1]) if dictionary else None
        compressor = compressors[number] = zstandard.ZstdCompressor(level=LEVEL, dict_data=given)
    return compressor.compress(raw)


def unpack(
    compressed: bytes, dictionary_id: int | None = None, dictionaries: Mapping[int, bytes] | None = None
) -> bytes:
    """Return the raw bytes of a stored payload; `dictionaries` are the archive's own, by id.

    Raises ValueError where the bytes are damaged or the dictionary is missing.
    """
    given = None
    if dictionary_id is not None:
        if dictionaries is None or dictionary_id not in dictionaries:
            raise ValueError(f"dictionary {dictionary_id} of this payload is missing from the archive")
        given = zstandard.ZstdCompressionDict(dictionaries[dictionary_id])
    try:
        return zstandard.ZstdDecompressor(dict_data=given).decompress(compressed, max_output_size=MAX_BYTES)
    except zstandard.ZstdError as error:
        raise ValueError("the stored payload is damaged") from error
