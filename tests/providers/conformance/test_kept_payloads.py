"""What is kept of a POST must give back the same POST, to the byte, for a better parser to read."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ingestor.providers.contract import Post
from ingestor.providers.posts import payload_of, post_of

ARRIVED = datetime(2026, 11, 22, 8, tzinfo=UTC)

queries = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80).map(str.encode)
content_types = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60) | st.just(
    "message/http; kept=ingestor"
)


@given(
    body=st.binary(),
    query=queries,
    content_type=content_types,
    encoding=st.sampled_from(["", "gzip", "br, x"]),
)
def test_a_kept_post_comes_back_whole(body: bytes, query: bytes, content_type: str, encoding: str) -> None:
    """Body, query string, content type and encoding survive the way into one payload and back."""
    post = Post(body, query, content_type, ARRIVED, encoding)

    assert post_of(*payload_of(post), ARRIVED) == post


@given(body=st.binary())
def test_without_a_query_string_the_kept_bytes_are_the_body(body: bytes) -> None:
    """The usual POST is kept exactly as its body arrived, with its own content type."""
    assert payload_of(Post(body, b"", "text/plain", ARRIVED)) == (body, "text/plain")
