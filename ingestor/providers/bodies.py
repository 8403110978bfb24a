"""What clients wrap around the body of a POST: a Content-Encoding, a byte order mark, a multipart form.

Each function raises ValueError, with words fit for the quarantine, where a body cannot be taken apart.
"""

import binascii
import json
import re
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable
from contextlib import suppress

from ingestor.providers.charsets import codec_for
from ingestor.providers.contract import Post

LARGEST = 4 << 20
"""What a body may unpack to, in bytes: a thousand results of Infobip's are 1 MiB."""

_MOST_CODINGS = 3
# What clients write there by mistake: the name of a charset too.
_NO_CODING = frozenset(("identity", "none", "7bit", "8bit", "binary"))
_GZIP = b"\x1f\x8b"
_WIDE_MARKS = (BOM_UTF16_LE, BOM_UTF16_BE)

_DELIMITER = re.compile(rb"^--[^\r\n]+", re.MULTILINE)
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_NAME = re.compile(
    rb"^content-disposition:[^\r\n]*[;\s]name(?:\*\s*=\s*[\w-]*'[^'\r\n]*'|\s*=\s*[\"']?)([^\"';\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_CHARSET = re.compile(rb"^content-type:[^\r\n]*charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE | re.MULTILINE)
_ENCODING = re.compile(rb"^content-transfer-encoding:\s*([\w-]+)", re.IGNORECASE | re.MULTILINE)
_DECODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"base64": binascii.a2b_base64,
    b"quoted-printable": binascii.a2b_qp,
}


def opened(post: Post) -> Post:
    """Return `post` with its body as the client wrote it down, in UTF-8 where that was UTF-16 or UTF-32.

    Whatever its header says, a body that begins like gzip is gzip, and one that does not is none: proxies
    unpack a body and leave the header, clients pack it and forget the header.
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


def media_type(content_type: str) -> str:
    """Return the type alone, in lower case; empty where there is none."""
    return content_type.partition(";")[0].partition(",")[0].strip().lower()


def multipart_form(body: bytes, most: int) -> tuple[list[tuple[bytes, bytes]], str | None] | None:
    """Return the fields of a multipart/form-data `body` and the charset that a part declares, if one does.

    None where the body is none, whatever its header says.

    The boundary is read from the body: a client that sets the header by hand names none, or another one
    (RFC 7578; section 4.5 has the charset). More than `most` fields are refused.
    """
    first = _DELIMITER.search(body)
    if first is None:
        return None
    delimiter = first[0].rstrip()
    if body.count(delimiter) > most + 1:
        raise ValueError(f"the form has more than {most} fields")
    fields, charset = [], None
    for part in re.split(
        rb"(?:\A|\r?\n)%b(?:--)?[ \t]*(?:\r?\n|\Z)" % re.escape(delimiter), body[first.start() :]
    ):
        head, *rest = _EMPTY_LINE.split(part, maxsplit=1)
        head = _FOLD.sub(b"", head)
        name, encoding, declared = _NAME.search(head), _ENCODING.search(head), _CHARSET.search(head)
        if name is not None:
            value = rest[0] if rest else b""
            decode = _DECODERS.get(encoding[1].lower()) if encoding else None
            fields.append((name[1], decode(value) if decode else value))
        charset = charset or (declared[1].decode() if declared else None)
    return (fields, charset) if fields else None


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
