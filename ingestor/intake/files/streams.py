"""Byte streams: plain, and behind gzip, bzip2, xz and zstd, with bounds that end a decompression bomb."""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ingestor.errors import InputUnreadable
from ingestor.intake.files.walk import HEAD, Kind

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_DEPTH = 5
"""Containers and compressions inside one another; `.tar.gz` in a zip is three."""

MAX_RATIO = 250
"""Real mailboxes shrink to a twentieth; a gzip bomb grows to the thousandfold."""

FRAME_COST = 256
"""Bytes that each frame of a compressed stream counts as: a million empty ones took a minute."""

FREE_BYTES = 64 << 20
"""The ratio is not looked at before this many bytes came out."""

MAX_TOTAL = 1 << 40  # bytes that one input file may grow to

_READ = 1 << 17
_WINDOW = 27
_MEMORY = 1 << _WINDOW  # 128 MiB: xz -9 takes 65, zstd --long=27 takes 128


class BombSuspected(InputUnreadable):
    """A bound on depth, ratio or total was met: the whole input file is given up, not only one member."""


class Budget:
    """How much came out of one input file, against what was read of it."""

    def __init__(self, name: str, size: int | None) -> None:
        """`size` is the size of the file, None when it is not known (a pipe)."""
        self._name = name
        self._size = size
        self._given = 0
        self.taken = 0

    def take(self, count: int) -> None:
        self.taken += count

    def give(self, count: int) -> None:
        """Count bytes that came out of a decompressor or an archive. Raises `BombSuspected`."""
        self._given += count
        if self._given <= FREE_BYTES:
            return
        taken = self.taken if self._size is None else min(self.taken, self._size)
        if self._given > MAX_RATIO * taken:
            raise BombSuspected(
                f"{self._name} grows to more than {MAX_RATIO} times its size when it is unpacked; it looks "
                "like a decompression bomb. If you trust it, unpack it yourself and import the result"
            )
        if self._given > MAX_TOTAL:
            raise BombSuspected(f"{self._name} holds more than {MAX_TOTAL >> 40} TiB; import it in parts")

    def check_depth(self, depth: int) -> None:
        """Refuse `depth` layers of archives and compressions. Raises `BombSuspected`."""
        if depth > MAX_DEPTH:
            raise BombSuspected(
                f"{self._name} holds archives in archives more than {MAX_DEPTH} deep; unpack it yourself and "
                "import the result"
            )


class Stream:
    """A forward-only stream with a look at its beginning."""

    def __init__(self, source: Any) -> None:
        """`source` has `read(count)`, and better `readinto(view)` as well."""
        self._source = source
        self._into = getattr(source, "readinto", None)
        self._head = b""
        self._at = 0
        self._ended = False
        self.consumed = 0

    def head(self, count: int = HEAD) -> bytes:
        """Return up to `count` first bytes without consuming them. Only before the first read."""
        while len(self._head) < count and not self._ended:
            piece = self._source.read(count - len(self._head))
            self._ended = not piece
            self._head += piece
        return self._head[:count]

    def whole(self, *, consume: bool = True) -> bytes | None:
        """Return everything if its end was seen in the head; else None, and nothing is consumed."""
        if not self._ended:
            return None
        rest = self._head[self._at :]
        if not consume:
            return rest
        self._head, self._at = b"", 0
        self.consumed += len(rest)
        return rest

    def skip(self, count: int) -> None:
        """Leave out the first `count` bytes of what `head` returned."""
        self._at += count
        self.consumed += count

    def readinto(self, view: memoryview) -> int:
        """Fill `view` from its start, return how many bytes were read, 0 at the end."""
        if self._at >= len(self._head) and self._into is not None and not self._ended:
            got: int = self._into(view)
            self._ended = got == 0
            self.consumed += got
            return got
        if self._at < len(self._head):
            piece = self._head[self._at : self._at + len(view)]
            self._at += len(piece)
            if self._at >= len(self._head):
                self._head, self._at = b"", 0
        elif self._ended:
            return 0
        else:
            piece = self._source.read(min(len(view), 1 << 20))
            self._ended = not piece
        view[: len(piece)] = piece
        self.consumed += len(piece)
        return len(piece)

    def read(self, count: int = -1) -> bytes:
        """Return up to `count` bytes (all of them for -1); fewer only at the end."""
        parts = []
        while count != 0:
            buffer = bytearray(min(count, _READ) if count > 0 else _READ)
            got = self.readinto(memoryview(buffer))
            if not got:
                break
            parts.append(bytes(buffer[:got]))
            count -= got if count > 0 else 0
        return b"".join(parts)


@contextmanager
def damage(name: str, what: str) -> Iterator[None]:
    """Turn what the decompressors raise on damaged input into `InputUnreadable`."""
    try:
        yield
    except InputUnreadable:
        raise
    except EOFError:
        raise InputUnreadable(f"{name} ends in the middle of its {what} data; get a whole copy") from None
    except MemoryError:
        raise InputUnreadable(f"{name} needs more memory to decompress than is allowed here") from None
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError) as error:
        raise InputUnreadable(f"{name} is damaged ({what}: {error}); get a whole copy") from None


class _Gzip:
    """zlib's decoder as bz2's and lzma's are. The standard library's GzipFile reads a name byte by byte."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    def decompress(self, data: bytes, count: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, count)


class Decompressed:
    """The inside of compressed streams in a row; every byte goes through the budget.

    The standard library's file classes take garbage behind the data for the end of a bzip2 file, have no
    bound on memory where an xz header asks for 4 GiB, and count no empty streams.
    """

    def __init__(
        self, source: Stream, kind: Kind, name: str, budget: Budget,
        new_decoder: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        """`new_decoder` reads what is in no container of `kind`."""
        self._source = source
        self._kind = kind
        self._name = name
        self._budget = budget
        self._new_decoder = new_decoder or _DECODERS[kind]
        self._decoder = self._new_decoder()

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes, none only at the end. Raises `InputUnreadable`, `BombSuspected`."""
        with damage(self._name, self._kind.value):
            piece = self._read(count)
        self._budget.give(len(piece))
        return piece

    def _read(self, count: int) -> bytes:
        while True:
            data, is_last = b"", False
            if self._decoder.eof:
                rest = self._decoder.unused_data or self._source.read(_READ)
                while rest and not (data := rest.lstrip(b"\0")):  # what a tape or a block device adds
                    rest = self._source.read(_READ)
                if not rest:
                    return b""
                self._budget.give(FRAME_COST)
                self._decoder = self._new_decoder()
            elif self._decoder.needs_input:
                data = self._source.read(_READ)
                is_last = not data
            piece: bytes = self._decoder.decompress(data, count)
            if piece:
                return piece
            if is_last:
                raise EOFError


_DECODERS: dict[Kind, Callable[[], Any]] = {
    Kind.GZIP: _Gzip,
    Kind.BZIP2: bz2.BZ2Decompressor,
    Kind.XZ: lambda: lzma.LZMADecompressor(memlimit=_MEMORY),
    Kind.ZSTD: lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW}),
}


def zip_lzma(source: Stream) -> Callable[[], Any]:
    """Return what makes the decoder of an LZMA member of a zip archive, whose head is read from `source`.

    Raises ValueError where it asks for too much memory. Layout: APPNOTE.TXT, section 5.8.8.
    """
    head = source.read(4)
    properties = source.read(int.from_bytes(head[2:4], "little"))
    if len(head) < 4 or len(properties) != 5 or properties[0] >= 9 * 5 * 5:
        raise ValueError("its LZMA head is no such")
    parameters, dictionary = properties[0], int.from_bytes(properties[1:], "little")
    if dictionary > _MEMORY:
        raise ValueError("it needs more memory to decompress than is allowed here")
    chain = {
        "id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": parameters % 9,
        "lp": parameters // 9 % 5, "pb": parameters // 45,
    }  # fmt: skip
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])
