"""Raw bytes on their way in and out."""

from hashlib import sha256

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingestor.archive.payloads import PackedPieces, compress, pack, shipped, unpack

NUMBER, DICTIONARY = shipped()
OLD = zstandard.ZstdCompressor(level=3)
OLD_WITH_DICTIONARY = zstandard.ZstdCompressor(level=3, dict_data=zstandard.ZstdCompressionDict(DICTIONARY))


@given(raw=st.binary(max_size=300))
def test_a_payload_is_a_whole_zstd_frame(raw: bytes) -> None:
    """It opens with any zstd, says its own size, and is hardly longer than what it holds."""
    frame = compress(raw)
    assert unpack(frame) == raw
    assert zstandard.frame_content_size(frame) == len(raw)
    assert len(frame) <= len(raw) + 20


def test_a_short_post_is_framed_and_a_longer_one_shrinks() -> None:
    """Where the tables of the format gain some bytes alone, none are made."""
    form = b"originator=%2B393351234567&destination=%2B393331234333&date_time=20260514102301&text="
    for words in (b"News+ON", b"lab+123+%C3%A8+%E2%82%AC4+%F0%9F%98%80+riga%0Aseconda"):
        assert form + words in compress(form + words)
    text = b"+".join(b"Domani+alle+%d+o+alle+%d" % (hour, hour + 3) for hour in range(8, 14))
    assert len(compress(form + text)) < len(form + text) * 0.8


@given(raw=st.binary(max_size=3000))
def test_payloads_of_the_library_before_this_one_are_read(raw: bytes) -> None:
    """Archives are full of frames that the package `zstandard` made, with the dictionary and without."""
    assert unpack(OLD.compress(raw)) == raw
    assert unpack(OLD_WITH_DICTIONARY.compress(raw), NUMBER, {NUMBER: DICTIONARY}) == raw


@given(pieces=st.lists(st.binary(min_size=1, max_size=500), min_size=1))
def test_pieces_make_the_same_payload(pieces: list[bytes]) -> None:
    """A mail that is never in memory as a whole is kept as one that is."""
    raw = b"".join(pieces)
    packed = PackedPieces(len(raw))
    for piece in pieces:
        packed.feed(piece)
    made, whole = packed.payload(len(raw)), pack(raw)
    assert unpack(made.compressed or b"") == raw
    assert (made.size, made.sha256) == (whole.size, whole.sha256)
    assert zstandard.frame_content_size(made.compressed or b"") == len(raw)


@pytest.mark.parametrize("damaged", [b"", b"odd", compress(b"x" * 500)[:-1], compress(b"x") + b"y"])
def test_damaged_bytes_are_said_to_be_damaged(damaged: bytes) -> None:
    """Cut off, of another kind, or with more behind them: never a payload that only looks whole."""
    with pytest.raises(ValueError, match="damaged"):
        unpack(damaged)


def test_the_dictionary_is_the_one_that_was_trained_on_made_up_mails() -> None:
    """An erasure takes nothing out of a dictionary: another one needs a look at what it was trained on."""
    assert (
        sha256(DICTIONARY).hexdigest() == "e3df63fd2e1ba67f377292706811787095945ebee03020a31fb1f0b24818367a"
    )
