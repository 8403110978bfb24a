"""Mails inside mails: certified mail, spam reports, opaque signatures, forwards and journal reports.

Told by their marks alone; whether that is to be believed is for the caller to judge.
"""

import base64
import re
from email.message import Message

from ingestor.providers.agile.header import Header, split_mail
from ingestor.providers.agile.slow_lane import ATTACHED_MAIL, decoded_payload, leaves_of

DEEPEST = 3

PEC = "certified mail (PEC)"
PEC_ANOMALY = "certified mail (PEC), anomaly envelope"

CERTIFIED = frozenset((PEC, PEC_ANOMALY))
"""Wrappers that a certified mailbox puts around each mail, with the sender named in its own From."""

_MOST = 10
_SIGNED_TYPES = frozenset(("application/pkcs7-mime", "application/x-pkcs7-mime"))
_ANOMALY = re.compile(rb"\s*ANOMALIA MESSAGGIO\b", re.IGNORECASE)
# RFC 6109, 2.2: what each envelope says of itself, however a client names what is in it.
_CARRIED = re.compile(
    rb"^X-Trasporto[ \t]*:[ \t]*(?:posta-certificata|errore)\b", re.IGNORECASE | re.MULTILINE
)
_JOURNAL = re.compile(rb"^X-MS-Journal-Report[ \t]*:", re.IGNORECASE | re.MULTILINE)
_JOURNAL_TEXT = re.compile(rb"\s*Sender:[^\n]*\n(?:[^\n]*\n){0,50}?(?:Recipient|To):", re.IGNORECASE)


def inner_mails(raw: bytes, header: Header, body_at: int) -> list[tuple[bytes, str]]:
    """Return the mails inside the mail `raw` with this `header`, at most ten, and what is around each.

    What is signed (the signature is not judged) is only the body of a mail: it keeps the fields around it.
    """
    leaves = leaves_of(header, raw[body_at:])
    if isinstance(leaves, str):
        return []
    found: list[tuple[bytes, str]] = []
    for leaf in leaves:
        if len(found) == _MOST:
            break
        name = (leaf.get_filename() or "").lower()
        if leaf.get_content_type() in _SIGNED_TYPES or name.endswith(".p7m"):
            content = signed_content(decoded_payload(leaf)[0] or b"")
            if content:
                found.append((_with_body(header, content), "S/MIME signature"))
        elif _is_mail(leaf, name):
            wrapper = _wrapper(leaf, name, header, raw[:body_at], leaves[0])
            found.append((decoded_payload(leaf)[0] or b"", wrapper))
    return found


def _is_mail(leaf: Message, name: str) -> bool:
    return (
        leaf.get_content_type() == ATTACHED_MAIL
        or leaf.get_param("x-spam-type") is not None
        or (name.endswith(".eml") and leaf.get_content_maintype() in {"application", "text"})
    )


def _wrapper(leaf: Message, name: str, header: Header, head: bytes, first: Message) -> str:
    if leaf.get_param("x-spam-type") is not None or "before SpamAssassin" in str(leaf["Content-Description"]):
        return "spam report"
    if name == "postacert.eml" or _CARRIED.search(head):
        return PEC_ANOMALY if _ANOMALY.match(header.first.get(b"subject", b"")) else PEC
    text = first.get_payload(decode=True) if first.get_content_type() == "text/plain" else None
    if _JOURNAL.search(head) or (isinstance(text, bytes) and _JOURNAL_TEXT.match(text)):
        return "journal report"
    return "forwarded mail"


def _with_body(header: Header, entity: bytes) -> bytes:
    """Return a signed `entity` as a mail: it describes its body itself, all else is said by `header`."""
    own, body_at = split_mail(entity)
    fields = [field for field in header.every if not field[0].startswith(b"content-")]
    fields += [field for field in own.every if field[0].startswith(b"content-")]
    lines = b"".join(name + b":" + value.rstrip(b"\r") + b"\n" for name, value in fields)
    return lines + b"\n" + entity[body_at:]


_SIGNED_DATA = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
_SEQUENCE, _CONTEXT_0, _OCTETS, _OCTETS_IN_CHUNKS = 0x30, 0xA0, 0x04, 0x24
_CONSTRUCTED = 0x20
_DEEPEST_ELEMENT = 32


def signed_content(data: bytes) -> bytes | None:
    """Return the MIME entity that is signed in `data` (DER, BER, or PEM of it), if it can be read."""
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
    tag, start, end = _element(data, at)
    if end is not None:
        return end
    if depth == _DEEPEST_ELEMENT or not tag & _CONSTRUCTED:
        raise ValueError("nested too deeply, or an open end where none may be")
    while data[start : start + 2] != b"\0\0":
        start = _after(data, start, depth + 1)
    return start + 2


def _chunks(data: bytes, at: int, depth: int = 0) -> list[bytes]:
    tag, start, end = _element(data, at)
    if tag == _OCTETS and end is not None:
        return [data[start:end]]
    if tag != _OCTETS_IN_CHUNKS or depth == _DEEPEST_ELEMENT:
        raise ValueError("no string of octets")
    found: list[bytes] = []
    while data[start : start + 2] != b"\0\0" if end is None else start < end:
        found += _chunks(data, start, depth + 1)
        start = _after(data, start)
    return found
