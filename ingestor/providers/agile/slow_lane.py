"""The slow lane: whatever the fast lane finds odd goes through mail-parser.

mail-parser (over the standard library) decides on the structure; the bytes of the parts come from its
message untouched, for the charset ladder to read. Only the fields that describe the body are handed to
it: who sent the mail is known by then, and its Received and address readers are the sender's to feed.
"""

import email
import logging
import re
from collections.abc import Iterator
from email.message import Message

from ingestor.providers.agile.header import Header
from ingestor.providers.agile.parts import ENCODINGS, Part, transfer_decoded

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
    parts = [part for leaf in _leaves(message) if (part := _part(leaf))]
    if not parts:
        return "the mail has no text part"
    return [part for _, part in sorted(parts, key=lambda rated: rated[0])]


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
        message = mailparser.parse_from_bytes(source).message
    except (MailParserRecursionError, RecursionError):
        return "the parts are nested too deeply"
    except Exception:  # noqa: BLE001 - it decodes attachments and file names we never look at
        message = None
    return message if isinstance(message, Message) else email.message_from_bytes(source)


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that hold content, in their order, without those of attached mails."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_maintype() == "message":
            continue
        if not part.is_multipart():
            yield part
            continue
        children = part.get_payload()
        if isinstance(children, list):
            waiting.extend(child for child in reversed(children) if isinstance(child, Message))


def _part(leaf: Message) -> tuple[int, Part] | None:
    """Return the part a text leaf is, and its rank, or None where it is no text or attached."""
    if leaf.get_content_maintype() != "text" or leaf.get_content_disposition() == "attachment":
        return None
    subtype = leaf.get_content_subtype()
    encoding = str(leaf.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding in ENCODINGS:
        del leaf["Content-Transfer-Encoding"]  # what is left to decode is then nothing
        data = transfer_decoded(_payload(leaf), encoding)
    else:
        data = _payload(leaf)
    flowed = subtype != "html" and str(leaf.get_param("format", "")).lower() == "flowed"
    delete_space = str(leaf.get_param("delsp", "")).lower() == "yes"
    charset = leaf.get_content_charset() or None
    rank = {"plain": 0, "html": 1}.get(subtype, 2)
    return rank, Part(data, charset, subtype == "html", flowed, delete_space, encoding)


def _payload(leaf: Message) -> bytes:
    data = leaf.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""
