"""The slow lane: whatever the fast lane finds odd goes through mail-parser.

mail-parser (over the standard library) decides on the structure; the bytes of the parts come untouched, for
the charset ladder to read. It gets the fields alone that describe the body: its Received and address readers
are the sender's to feed.
"""

import email
import logging
import re
from collections.abc import Iterator
from email.errors import CloseBoundaryNotFoundDefect
from email.message import Message
from email.policy import Compat32

from ingestor.providers.agile.header import Header
from ingestor.providers.agile.parts import (
    ENCODINGS,
    Part,
    as_it_is,
    encoding_of,
    transfer_decoded,
    undeclared,
)

ATTACHED_MAIL = "application/x-attached-mail"

_KNOWN = frozenset(
    ["text", "multipart", "message", "application", "image", "audio", "video", "font", "model"]
)
_ATTACHED = re.compile(r"\s*message/(?:rfc822|global|news)(?![\w.+-])", re.IGNORECASE)
_WELL_FORMED = re.compile(rf"\s*(?:{'|'.join(_KNOWN)})/[\w.+-]+\s*(?:;|\Z)", re.IGNORECASE)
_TEXT = re.compile("text|plain|html|xhtml[+]xml", re.IGNORECASE)
_TEXT_TYPE = re.compile(rf"\s*application/(?:{_TEXT.pattern})\s*(?:;|\Z)", re.IGNORECASE)
_TYPE = re.compile(r"""[\s"']*([\w.+-]+)(?:\s*[/\\]\s*([\w.+-]+))?["']?""")
_NO_SEMICOLON = re.compile(r"[^;\s]\s+(?:charset|boundary|format|delsp|name)\s*=", re.IGNORECASE)
_PARAMETER = re.compile(r"[\s,;:]+(charset|boundary|format|delsp|name)\s*[=:]\s*", re.IGNORECASE)

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"
_MARKUP = re.compile(rb"<[^<>]*>|&nbsp;|\s+")
_HTML = re.compile(rb"<(?:html|body|table|div|p|br)\b[^<>]*>", re.IGNORECASE)
_MOVED_BODY = re.compile(r"(?:ATT|Untitled attachment )\d{3,6}(?:\.+(?:txt|bin|(html?)))?", re.IGNORECASE)

_ALTERNATIVE = "X-Part-Of-An-Alternative"  # a note of ours

_CONTENT_FIELD = re.compile(rb"^content-[^\n]*(?:\n[ \t][^\n]*)*", re.IGNORECASE | re.MULTILINE)
_MULTIPART = re.compile(rb"multipart/", re.IGNORECASE)

# Bounds on hostile structure, measured: the standard library reads a parameter list in quadratic time and
# asks every open multipart about every line. A real mail is far below all of them.
_MOST_MULTIPARTS = 30
_MOST_DELIMITERS = 1000
_MOST_LINES_TIMES_MULTIPARTS = 600_000
_LONGEST_CONTENT_FIELD = 4000


def slow_parts(header: Header, body: bytes) -> list[Part] | str:
    """Return the text parts of a mail, best first (plain, HTML, other text), or why there is none."""
    leaves = leaves_of(header, body)
    if isinstance(leaves, str):
        return leaves
    shown = [leaf for leaf in leaves if _is_shown(leaf)]
    parts = sorted((part for leaf in shown for part in _parts(leaf)), key=lambda rated: rated[0])
    # Exchange moves a body into ATT00001.txt, attached behind an empty part, a disclaimer or nothing. A file
    # of another name is the text only where there is none but an empty one.
    empty = parts and all(part.data is not None and not _MARKUP.sub(b"", part.data) for _, part in parts)
    for leaf in leaves:
        if leaf not in shown and (empty or _MOVED_BODY.fullmatch(leaf.get_filename() or "")):
            parts += _parts(leaf)
    return [part for _, part in parts] or "the mail has no text part"


def leaves_of(header: Header, body: bytes) -> list[Message] | str:
    """Return the parts of a mail that hold content, in their order, or why it is not taken apart.

    An attached mail is one of them, of the type `ATTACHED_MAIL`, its bytes the payload.
    """
    fields = b"".join(
        name + b":" + _lf(value) + b"\n" for name, value in header.every if name.startswith(b"content-")
    )
    source = fields + b"\n" + body
    reason = _beyond_reason(source)
    if reason:
        return reason
    message = _parsed(source)
    if isinstance(message, str):
        return message
    leaves = list(_leaves(message))
    never_closed = any(isinstance(defect, CloseBoundaryNotFoundDefect) for defect in message.defects)
    if leaves and never_closed and not body.endswith((b"\n", b"\r")):
        del leaves[-1]
        return leaves or "the mail ends inside its text"
    return leaves


def _lf(value: bytes) -> bytes:
    """Return `value` without the CR of its line ends; a lone CR would end the header for the reader."""
    return value.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b" ")


def _beyond_reason(source: bytes) -> str | None:
    multiparts = len(_MULTIPART.findall(source))
    if multiparts > _MOST_MULTIPARTS:
        return f"more than {_MOST_MULTIPARTS} multiparts, nested or in a row"
    if multiparts and source.count(b"\n--") > _MOST_DELIMITERS:
        return f"more than {_MOST_DELIMITERS} parts"
    lines = source.count(b"\n") + source.count(b"\r")
    if lines * multiparts > _MOST_LINES_TIMES_MULTIPARTS:
        return "too many lines in nested multiparts"
    for match in _CONTENT_FIELD.finditer(source):
        if match.end() - match.start() > _LONGEST_CONTENT_FIELD:
            return "a field that describes the body is longer than 4000 bytes"
    return None


def _parsed(source: bytes) -> Message | str:
    # Imported here: most mails never need it, and it costs a tenth of a second. Its records quote the mail,
    # and logs must not.
    logging.getLogger("mailparser").setLevel(logging.CRITICAL)
    import mailparser
    from mailparser.exceptions import MailParserRecursionError

    try:
        message = mailparser.MailParser(email.message_from_bytes(source, policy=_LENIENT)).message
    except (MailParserRecursionError, RecursionError):
        return "the parts are nested too deeply"
    except Exception:  # noqa: BLE001 - it decodes attachments and file names we never look at
        message = None
    return message if isinstance(message, Message) else email.message_from_bytes(source, policy=_LENIENT)


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that hold content, in their order, without those of attached mails."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_type() == "multipart/alternative" or _ALTERNATIVE in part:
            for inner in _inside(part):
                inner[_ALTERNATIVE] = "yes"
        if part.get_content_maintype() == "message":
            if part.get_content_type() == "message/rfc822" and part.is_multipart():
                yield _attached(part)  # in a multipart/digest, where nothing says so
        elif not part.is_multipart():
            yield part
        else:
            waiting.extend(reversed(_inside(part)))


def _inside(part: Message) -> list[Message]:
    children = part.get_payload()
    return [child for child in children if isinstance(child, Message)] if isinstance(children, list) else []


def _attached(part: Message) -> Message:
    leaf = Message(_LENIENT)
    leaf["Content-Type"] = ATTACHED_MAIL
    mail = b"".join(child.as_bytes() for child in _inside(part))
    leaf.set_payload(mail.decode("ascii", "surrogateescape"))
    return leaf


def _is_shown(leaf: Message) -> bool:
    return leaf.get_content_maintype() == "text" and leaf.get_content_disposition() != "attachment"


def _parts(leaf: Message) -> Iterator[tuple[int, Part]]:
    """Yield the part that a text leaf is, with its rank, and what else it may have been meant to be."""
    subtype = leaf.get_content_subtype()
    if leaf.get_content_maintype() != "text":
        moved = _MOVED_BODY.fullmatch(leaf.get_filename() or "")
        if moved is None:
            return
        subtype = "html" if moved[1] else "plain"
    flowed = subtype != "html" and str(leaf.get_param("format", "")).lower() == "flowed"
    delete_space = str(leaf.get_param("delsp", "")).lower() == "yes"
    charset = leaf.get_content_charset() or None
    rank = {"plain": 0, "html": 1}.get(subtype, 2)
    data, encoding = decoded_payload(leaf)
    if data:
        data, encoding = as_it_is(data, encoding)
    again = subtype == "html" and _ALTERNATIVE in leaf
    part = Part(data, charset, subtype == "html", flowed, delete_space, encoding, again)
    yield rank, part
    as_it_came = _payload(leaf)
    if data is None and b":" in as_it_came:  # base64 has none: never encoded, or otherwise
        yield rank, part._replace(data=undeclared(as_it_came), encoding="")
    elif data and encoding != "base64" and looks_encoded(as_it_came):
        yield rank, part._replace(data=transfer_decoded(as_it_came, "base64"), encoding="base64")
    elif data and subtype != "html" and looks_like_html(data):
        yield 1, part._replace(html=True, again=True)


def looks_encoded(data: bytes) -> bool:
    """Say whether `data` is base64 although nothing says so."""
    return bool(data.strip()) and not data.translate(None, _BASE64)


def looks_like_html(data: bytes) -> bool:
    return b"<" in data and _HTML.search(data) is not None


def decoded_payload(leaf: Message) -> tuple[bytes | None, str]:
    """Return the bytes of `leaf` (None for broken base64) and the transfer encoding they were in."""
    encoding = encoding_of(str(leaf.get("Content-Transfer-Encoding", "")))
    if encoding not in ENCODINGS:
        return _payload(leaf), encoding
    del leaf["Content-Transfer-Encoding"]  # what is left to decode is then nothing
    return transfer_decoded(_payload(leaf), encoding), encoding


def _payload(leaf: Message) -> bytes:
    data = leaf.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


class _Lenient(Compat32):
    """Reads a header as the standard library does, but Content-Type as mail programs do."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, meant_type(value) if name.lower() == "content-type" else value


_LENIENT = _Lenient()


def meant_type(value: str) -> str:
    """Return the Content-Type that is meant by `value`; an unknown type is text (RFC 2045, 5.2).

    An attached mail becomes a type that the standard library leaves alone: its bytes are needed as they are.
    """
    if value.count('"') % 2:
        value += '"'
    if _ATTACHED.match(value):
        return _ATTACHED.sub(ATTACHED_MAIL, value)
    known = _WELL_FORMED.match(value)
    if known and not _TEXT_TYPE.match(value) and not _NO_SEMICOLON.search(value):
        return value
    match = _TYPE.match(value)
    if match is None:
        return value
    if match[1].lower() == "application" and not _TEXT.fullmatch(match[2] or ""):
        return value
    words = {match[1].lower(), *(match[2] or "").lower().split("+")}
    if match[1].lower() in _KNOWN and match[1].lower() != "application" and match[2]:
        kind = match[1] + "/" + match[2]
    else:
        kind = "text/html" if words & {"html", "htm", "xhtml"} else "text/plain"
    return kind + _PARAMETER.sub(r"; \1=", value[match.end() :])
