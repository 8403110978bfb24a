"""Raw bytes on their way in and out."""

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingestor.archive.payloads import compress, unpack


@given(raw=st.binary(max_size=300))
def test_a_short_payload_is_a_whole_zstd_frame(raw: bytes) -> None:
    """Whatever was too short to be worth compressing opens with any zstd, and says its own size."""
    frame = compress(raw)
    assert unpack(frame) == raw
    assert zstandard.frame_content_size(frame) == len(raw)
    assert len(frame) <= len(raw) + 20
