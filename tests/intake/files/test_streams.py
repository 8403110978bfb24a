"""Compressed streams: whole, cut off, damaged, and too good to be true."""

import io
import random

import pytest
import zstandard

from ingestor.errors import InputUnreadable
from ingestor.intake.files import streams
from ingestor.intake.files.streams import BombSuspected, Budget, Decompressed, Stream
from ingestor.intake.files.walk import Kind, sniff
from tests.intake.files.containers import COMPRESS

KINDS = {"gz": Kind.GZIP, "bz2": Kind.BZIP2, "xz": Kind.XZ, "zst": Kind.ZSTD}
DATA = random.Random(1).randbytes(300_000) + b"From a line that repeats\n" * 40_000


def opened(data: bytes, kind: Kind) -> Stream:
    """Return the inside of `data`."""
    budget = Budget("x", None)

    class Counted(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            piece = super().read(count)
            budget.take(len(piece))
            return piece

    return Stream(Decompressed(Stream(Counted(data)), kind, "x", budget))


@pytest.mark.parametrize("name", COMPRESS)
def test_it_comes_out_as_it_went_in(name: str) -> None:
    """Every compression is told from its content and read whole, several streams in a row included."""
    packed = COMPRESS[name](DATA) + COMPRESS[name](b"the second") + COMPRESS[name](b"")
    assert sniff(packed[:600]) is KINDS[name]
    assert opened(packed, KINDS[name]).read() == DATA + b"the second"


@pytest.mark.parametrize("name", COMPRESS)
def test_what_stands_behind_a_run_of_nuls_is_read(name: str) -> None:
    """A tape pads to its block, and more may follow: however long the run is, the next stream is found."""
    packed = COMPRESS[name](b"one") + bytes(300_000) + COMPRESS[name](b"two") + bytes(300_000)
    assert opened(packed, KINDS[name]).read() == b"onetwo"


@pytest.mark.parametrize("cut", [1, 5, 50_000])
@pytest.mark.parametrize("name", COMPRESS)
def test_a_cut_off_stream_is_told_from_a_whole_one(name: str, cut: int) -> None:
    """What was read before the cut is given out, and then one line says that the end is missing."""
    stream = opened(COMPRESS[name](DATA)[:-cut], KINDS[name])
    with pytest.raises(InputUnreadable, match="ends in the middle"):
        stream.read()


@pytest.mark.parametrize("name", COMPRESS)
def test_damage_is_told(name: str) -> None:
    """Garbage behind the data, and a flipped byte in it, are never silent."""
    packed = COMPRESS[name](DATA)
    with pytest.raises(InputUnreadable, match="damaged"):
        opened(packed + b"garbage", KINDS[name]).read()
    flipped = packed[:150_000] + bytes([packed[150_000] ^ 0x40]) + packed[150_001:]
    with pytest.raises(InputUnreadable, match=r"damaged|middle"):
        opened(flipped, KINDS[name]).read()


@pytest.mark.parametrize("name", COMPRESS)
def test_a_bomb_ends_early(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that grows beyond all measure is given up soon after the free bytes, in bounded pieces."""
    monkeypatch.setattr(streams, "FREE_BYTES", 2 << 20)
    stream = opened(COMPRESS[name](bytes(20 << 20)), KINDS[name])
    with pytest.raises(BombSuspected, match="grows to more than"):
        stream.read()
    assert stream.consumed < 10 << 20


def test_bombs_in_bombs_are_measured_against_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers below the bound each are above it together."""
    monkeypatch.setattr(streams, "FREE_BYTES", 2 << 20)
    inner = b"".join(random.Random(i).randbytes(64) + bytes(10_000) for i in range(500))
    budget = Budget("x", None)

    class Counted(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            piece = super().read(count)
            budget.take(len(piece))
            return piece

    once = COMPRESS["gz"](inner)
    again = Stream(Counted(COMPRESS["xz"](once * 3)))
    stream = Stream(Decompressed(Stream(Decompressed(again, Kind.XZ, "x", budget)), Kind.GZIP, "x", budget))
    assert len(inner) / len(once) < 250
    with pytest.raises(BombSuspected):
        stream.read()


def test_an_xz_header_cannot_ask_for_all_memory() -> None:
    """A dictionary size beyond the bound is refused before it is allocated."""
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    packed = lzma.compress(b"x", filters=filters)
    with pytest.raises(InputUnreadable):
        opened(packed, Kind.XZ).read()


def test_a_zstd_window_cannot_ask_for_all_memory() -> None:
    """A window of 1 GiB is refused; one of 128 MiB, as `zstd --long=27` writes it, is read."""
    for window, fits in ((27, True), (30, False)):
        parameters = zstandard.ZstdCompressionParameters(window_log=window)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        packed = packer.compress(b"x") + packer.flush()
        if fits:
            assert opened(packed, Kind.ZSTD).read() == b"x"
        else:
            with pytest.raises(InputUnreadable, match="zstd"):
                opened(packed, Kind.ZSTD).read()


def test_skippable_zstd_frames_are_skipped() -> None:
    """`pzstd` writes such a frame in front of each; one at the very end, or cut off, is told from that."""
    skippable = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"
    packed = COMPRESS["zst"](b"one")
    assert opened(skippable + packed + skippable + packed + skippable, Kind.ZSTD).read() == b"oneone"
    with pytest.raises(InputUnreadable, match="ends in the middle"):
        opened(packed + skippable[:-2], Kind.ZSTD).read()


def test_a_head_is_not_consumed() -> None:
    """Looking at the beginning changes nothing about what is read."""
    stream = Stream(io.BytesIO(b"0123456789"))
    assert stream.head(4) == b"0123"
    assert stream.whole() is None
    assert stream.read(6) == b"012345"
    assert stream.read() == b"6789"
    assert stream.consumed == 10
