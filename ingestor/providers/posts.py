"""What every provider's POST reader needs: the body as the client wrote it, and its text and JSON storable.

Hostile input raises nothing but the ValueError a function speaks of, whose words are fit for the quarantine.
"""

import json
import math
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import quote

from ingestor.providers import PROVIDERS
from ingestor.providers.charsets import codec_for, decode_text
from ingestor.providers.contract import Post, Rules
from ingestor.record import storable, stored_text

TEST_DESTINATION = "+99900000000"
"""Where `ingestor webhook test` sends its sample: country code 999 is reserved and belongs to nobody, so
such a POST is never an SMS of ours, whatever the numbers in the configuration."""

NOT_OUR_NUMBER = "the destination is not one of our numbers"
A_TEST = "a test sent by `ingestor webhook test`, not an SMS"

LARGEST = 4 << 20
"""What a body may unpack to, in bytes: a thousand results of Infobip's are 1 MiB."""

_MOST_CODINGS = 3
# What clients write there by mistake: the name of a charset too.
_NO_CODING = frozenset(("identity", "none", "7bit", "8bit", "binary"))
_GZIP = b"\x1f\x8b"
_WIDE_MARKS = (BOM_UTF16_LE, BOM_UTF16_BE)

_DEEPEST = 16
_WIDE = ("utf-16", "utf16", "utf-32", "utf32", "ucs-2", "unicode")
_TOO_DEEP = "(nested too deeply; the raw payload has it)"
_LARGEST_INTEGER = 2**63 - 1
_ENVELOPE = "message/http; kept=ingestor"
_AS_IT_CAME = ("utf-8", "surrogateescape")


def opened(post: Post) -> Post:
    """Return `post` with its body as the client wrote it down, in UTF-8 where that was UTF-16 or UTF-32.

    A body that begins like gzip is gzip, and one that does not is none: proxies unpack a body and leave the
    header, clients pack it and forget the header.
    """
    body = post.body
    if post.content_encoding or body.startswith(_GZIP):
        body = _unpacked(body, post.content_encoding)
    if body.startswith(BOM_UTF8):
        body = body.removeprefix(BOM_UTF8)
    elif body.startswith(_WIDE_MARKS) or b"\0" in body[:4]:
        charset = json.detect_encoding(body)
        if charset != "utf-8":
            body = body.decode(charset, "replace").encode()
    return post if body is post.body else post._replace(body=body, content_encoding="")


def _unpacked(body: bytes, content_encoding: str) -> bytes:
    codings = [name.strip().lower() for name in content_encoding.split(",") if name.strip()]
    if len(codings) > _MOST_CODINGS:
        raise ValueError("the body has too many Content-Encodings")
    for coding in reversed(codings):
        if coding == "deflate":
            body = _undeflated(body)
        elif coding in {"gzip", "x-gzip"}:
            body = _gunzipped(body)
        elif coding not in _NO_CODING and codec_for(coding) is None:
            raise ValueError("the Content-Encoding of the body is neither gzip nor deflate")
    return _gunzipped(body)


def _gunzipped(body: bytes) -> bytes:
    """Undo gzip, of several members too (RFC 1952, section 2.2)."""
    plain, rest = b"", body
    try:
        while rest.startswith(_GZIP):
            piece, rest = _inflated(rest, wbits=31, most=LARGEST - len(plain))
            plain += piece
    except zlib.error:
        raise ValueError("the compressed body is damaged or cut off") from None
    return plain if rest is not body else body


def _undeflated(body: bytes) -> bytes:
    """Undo deflate: zlib's format, or the bare one that some take it for (RFC 9110, section 8.4.1.2)."""
    for wbits in (15, -15):
        with suppress(zlib.error):
            return _inflated(body, wbits=wbits, most=LARGEST)[0]
    return body


def _inflated(body: bytes, *, wbits: int, most: int) -> tuple[bytes, bytes]:
    """Return what the first member of `body` unpacks to, and what stands behind it. Raises zlib.error."""
    unpacking = zlib.decompressobj(wbits)
    plain = unpacking.decompress(body, most + 1)
    if len(plain) > most:
        raise ValueError(f"the body unpacks to more than {LARGEST >> 20} MiB")
    if not unpacking.eof:
        raise zlib.error
    return plain, unpacking.unused_data


def test_post(provider: str, now: datetime) -> Post:
    """Return the documented sample of `provider`, addressed to TEST_DESTINATION, as if it arrived `now`."""
    known = PROVIDERS[provider]
    folder = resources.files("ingestor.providers").joinpath(known.folder, "samples")
    folder = folder if known.posts else folder.joinpath("reports")
    about = json.loads(folder.joinpath("documented.json").read_text("utf-8"))
    body = folder.joinpath("documented.body").read_bytes()
    written = about["readings"][0]["destination_raw"]
    number = TEST_DESTINATION if written.startswith("+") else TEST_DESTINATION.removeprefix("+")
    for form in (written, quote(written)):
        body = body.replace(form.encode(), (number if form == written else quote(number)).encode())
    return Post(body, b"", about["content_type"], now)


def require_ours(destination: str, rules: Rules) -> None:
    """Raise ValueError, with the reason for the quarantine, where `destination` (normalised) is not ours."""
    if destination == TEST_DESTINATION:
        raise ValueError(A_TEST)
    if rules.numbers and destination not in rules.numbers:
        raise ValueError(NOT_OUR_NUMBER)


@lru_cache(maxsize=64)
def declared_charset(content_type: str) -> str | None:
    """Return the charset parameter of a Content-Type, if it has one.

    UTF-16 and UTF-32 are none: what is written in them is UTF-8 once it is `opened`, and the values of a form
    never are (https://url.spec.whatwg.org/#concept-urlencoded-parser).
    """
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip("\"'")[:40]
            return None if charset.lower().startswith(_WIDE) else charset or None
    return None


def decode(raw: bytes, charset: str | None) -> tuple[str, str]:
    """Return `raw` as text and the charset that fitted, by the same ladder as a mail's body.

    Latin-1 posts are real. What could not be read is a lone surrogate, which a `Cleaner` replaces and counts.
    """
    if charset is None and raw.isascii():
        return raw.decode("ascii"), "utf-8"
    text, fitted, reason = decode_text(raw, charset)
    if raw.isascii() and text.isascii():
        return text, "utf-8"
    return text, charset.lower() if charset and reason == "declared" else fitted


class Cleaner:
    """Makes strings storable and counts the characters that had to be replaced."""

    __slots__ = ("replaced",)

    def __init__(self) -> None:
        self.replaced = 0

    def string(self, text: str) -> str:
        cleaned, count = storable(text)
        self.replaced += count
        return cleaned

    def text(self, text: str) -> str:
        return stored_text(self.string(text))

    def note(self, details: dict[str, Any], charset: str) -> None:
        """Note in `details` the charset that fitted and what was replaced; a provider's own field stays."""
        details.setdefault("charset", charset)
        if self.replaced:
            details.setdefault("replaced_characters", self.replaced)

    def keep_odd(
        self, details: dict[str, Any], document: Mapping[str, Any], name: str,
        reader: Callable[[Any], str | None],
    ) -> None:  # fmt: skip
        """Keep the field `name` of `document` in `details` where its column's `reader` gets nothing."""
        value = document.get(name)
        if value is not None and reader(value) is None:
            details[name] = self.value(value)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value that both databases can hold: no NUL, no lone surrogate, no huge number."""
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, Mapping | list) and depth >= _DEEPEST:
            return _TOO_DEEP
        if isinstance(value, Mapping):
            return {self.string(key): self.value(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, depth + 1) for inner in value]
        if isinstance(value, int) and not -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
            return str(value)
        return value


def read_json(post: Post) -> tuple[Any, str]:
    """Return the JSON document of a POST and the charset it was in. Raises ValueError, without a word of it.

    A field that is named twice is refused too: readers differ about which one counts (RFC 8259, section 4).
    """
    text, charset = decode(opened(post).body, declared_charset(post.content_type))
    try:
        document = json.loads(
            text,
            strict=False,  # a line end inside a string, as those who build JSON by hand leave it
            parse_float=_finite,
            parse_constant=str,
            object_pairs_hook=_unambiguous,
        )
    except _NamedTwice:
        raise ValueError("the JSON names a field twice") from None
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    return document, charset


class _NamedTwice(Exception):
    """An object of the document has two fields of one name."""


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _NamedTwice
    return fields


def _finite(written: str) -> float | str:
    number = float(written)
    return number if math.isfinite(number) else written


def as_string(value: Any) -> str | None:
    """Return a JSON string, or a JSON integer as the string it looks like; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def required(fields: Mapping[str, Any], key: str) -> str:
    """Return a field that must be there and not blank, as `as_string` sees it. Raises ValueError."""
    value = as_string(fields.get(key))
    if value is None or not value.strip():
        raise ValueError(f"{key} is missing")
    return value


def string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def counted(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0x7FFF:
        return value
    return None


def payload_of(post: Post) -> tuple[bytes, str]:
    """Return what is kept of `post` as its raw payload, and the content type of that. Undone by `post_of`.

    The body as it came; where the query string or a Content-Encoding says something too, a `message/http`
    that holds them byte for byte, because a payload is one piece.
    """
    if not post.query and not post.content_encoding and not post.content_type.startswith(_ENVELOPE):
        return post.body, post.content_type
    head = b"POST /?%b HTTP/1.1\r\nContent-Type: %b\r\n" % (
        post.query,
        post.content_type.encode(*_AS_IT_CAME),
    )
    if post.content_encoding:
        head += b"Content-Encoding: %b\r\n" % post.content_encoding.encode(*_AS_IT_CAME)
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(post.body), post.body), _ENVELOPE


def post_of(raw: bytes, content_type: str | None, arrived_at: datetime) -> Post:
    """Return the POST of which `payload_of` made this payload, to be read once more by today's parser."""
    if content_type != _ENVELOPE:
        return Post(body=raw, query=b"", content_type=content_type or "", arrived_at=arrived_at)
    head, _, body = raw.partition(b"\r\n\r\n")
    request, *lines = head.split(b"\r\n")
    fields = {name: value for name, _, value in (line.partition(b": ") for line in lines)}
    return Post(
        body=body, arrived_at=arrived_at,
        query=request.removeprefix(b"POST /?").removesuffix(b" HTTP/1.1"),
        content_type=fields[b"Content-Type"].decode(*_AS_IT_CAME),
        content_encoding=fields.get(b"Content-Encoding", b"").decode(*_AS_IT_CAME),
    )  # fmt: skip
