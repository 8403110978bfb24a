"""What an opaque S/MIME signature (smime.p7m) holds, read without judging the signature.

    ContentInfo ::= SEQUENCE { signedData, [0] SignedData }
    SignedData ::= SEQUENCE { version, digestAlgorithms, SEQUENCE { data, [0] OCTET STRING }, ... }

Source: RFC 5652, sections 3, 5.1 and 5.2. Mail programs write BER: lengths may be left open, and the
octets may come in chunks (X.690, 8.1.3 and 8.7).
"""

import base64

_SIGNED_DATA = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
_SEQUENCE, _CONTEXT_0, _OCTETS, _OCTETS_IN_CHUNKS = 0x30, 0xA0, 0x04, 0x24
_CONSTRUCTED = 0x20
_DEEPEST = 32


def signed_content(data: bytes) -> bytes | None:
    """Return the MIME entity that is signed in `data`, or None where there is none to be read.

    `data` is DER or BER, or PEM of it. What is encrypted cannot be read.
    """
    try:
        return _content(_from_pem(data))
    except (ValueError, IndexError):
        return None


def _from_pem(data: bytes) -> bytes:
    if not data.lstrip().startswith(b"-----BEGIN"):
        return data
    return base64.b64decode(b"".join(data.strip().splitlines()[1:-1]))


def _content(data: bytes) -> bytes | None:
    at = _inside(data, 0, _SEQUENCE)
    after_kind = _after(data, at)
    if data[at:after_kind] != _SIGNED_DATA:
        return None
    at = _inside(data, _inside(data, after_kind, _CONTEXT_0), _SEQUENCE)
    at = _after(data, _after(data, at))  # the version, the algorithms
    at = _after(data, _inside(data, at, _SEQUENCE))  # the kind of content
    return b"".join(_chunks(data, _inside(data, at, _CONTEXT_0)))


def _element(data: bytes, at: int) -> tuple[int, int, int | None]:
    """Return the tag of the element at `at`, where its contents begin and end (None where that is open)."""
    tag, length, at = data[at], data[at + 1], at + 2
    if length == 0x80:
        return tag, at, None
    if length > 0x80:
        size = length & 0x7F
        if size > 4:
            raise ValueError("a length of more than four bytes")
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    return tag, at, at + length


def _inside(data: bytes, at: int, expected: int) -> int:
    tag, start, _ = _element(data, at)
    if tag != expected:
        raise ValueError("another element")
    return start


def _after(data: bytes, at: int, depth: int = 0) -> int:
    """Return where the element that follows the one at `at` begins."""
    tag, start, end = _element(data, at)
    if end is not None:
        return end
    if depth == _DEEPEST or not tag & _CONSTRUCTED:
        raise ValueError("nested too deeply, or an open end where none may be")
    while data[start : start + 2] != b"\0\0":
        start = _after(data, start, depth + 1)
    return start + 2


def _chunks(data: bytes, at: int, depth: int = 0) -> list[bytes]:
    """Return the octets of the string at `at`, piece by piece."""
    tag, start, end = _element(data, at)
    if tag == _OCTETS and end is not None:
        return [data[start:end]]
    if tag != _OCTETS_IN_CHUNKS or depth == _DEEPEST:
        raise ValueError("no string of octets")
    found: list[bytes] = []
    while data[start : start + 2] != b"\0\0" if end is None else start < end:
        found += _chunks(data, start, depth + 1)
        start = _after(data, start)
    return found
