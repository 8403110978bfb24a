"""A mail in pieces is the same item as the whole mail."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from ingestor.archive.payloads import unpack
from ingestor.archive.rows import mail_content_key
from ingestor.intake.mailbox.fetch import pack_pieces


@given(st.lists(st.text("ab\r\n", max_size=12).map(str.encode), min_size=1, max_size=8))
def test_pieces_are_packed_as_their_whole_would_be(pieces: list[bytes]) -> None:
    """Content key, hash and bytes of a mail in pieces are those of the mail, wherever it was cut."""
    whole = b"".join(pieces)

    payload, key = pack_pieces(list(pieces), len(whole))

    assert key == mail_content_key(whole)
    assert payload.sha256 == hashlib.sha256(whole).digest()
    assert payload.compressed is not None
    assert unpack(payload.compressed) == whole
