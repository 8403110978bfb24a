r"""Agile Telecom's inbound POST: a form of four fields, answered with exactly the three bytes `+OK`.

    POST /agile/… HTTP/1.1
    Content-Type: application/x-www-form-urlencoded

    originator=%2B393351234567&destination=%2B393331234333&date_time=20260514102301&text=News+ON

Source: Agile Telecom's inbound SMS guide. Without `+OK` within 30 seconds the POST comes again after 15
minutes, and after three failed attempts the message is discarded. There is no message id; older set-ups put
the parameters into the query string of the POST.
"""

import binascii
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_to_bytes

from ingestor.numbers import agile_destination, normalise_agile
from ingestor.providers.contract import Answer, Post, Readable, Rules, Unreadable
from ingestor.providers.posts import Cleaner, declared_charset, decode, opened, require_ours
from ingestor.record import InboundSms
from ingestor.timestamps import fourteen_digits, read_local

PARSER = "agile.form/1"
ACCEPTED = Answer(200, "text/plain", b"+OK")

_FIELDS = ("originator", "destination", "date_time", "text")
_OURS = frozenset(_FIELDS)
_MAY_BE_EMPTY = {"text"}
_OF_MOST = MappingProxyType({"charset": "utf-8"})  # shared: the archive writes it down once
# Nine digits and more: " 48888" may be a short code behind a stray blank, " 393351234567" is no such thing.
_LOST_PLUS = re.compile(r" [1-9][0-9]{8,14}")
_MOST_FIELDS = 200
_CHARSET_FIELD = "_charset_"  # a form's own word for it (RFC 7578, 4.6; HTML, 4.10.21.5)
_MULTIPART = "multipart/form-data"
_FORMS = {"application/x-www-form-urlencoded", _MULTIPART}

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

_Fields = dict[str, list[bytes]]


def read_post(post: Post, rules: Rules) -> Sequence[Readable | Unreadable]:
    """Return the one reading of an Agile POST: from a form in the body, else from the query.

    `rules.zone` is the clock of date_time; the POST's arrival decides in the hour that happens twice.
    """
    try:
        return [Readable(_read(post, rules), PARSER)]
    except ValueError as fault:
        return [Unreadable(str(fault), PARSER)]


def _read(post: Post, rules: Rules) -> InboundSms:
    raw, declared, details = _fields_of(opened(post))
    if declared is None and _CHARSET_FIELD in raw:
        declared = declared_charset(";charset=" + raw[_CHARSET_FIELD][0].decode("latin-1"))
    cleaner = Cleaner()
    fields, charset = _decoded(raw, declared, cleaner, details)
    originator = normalise_agile(_repaired(fields, "originator", details))
    destination = agile_destination(_repaired(fields, "destination", details))
    require_ours(destination, rules)
    digits = fourteen_digits(fields["date_time"])
    if digits is None:
        raise ValueError("date_time is not fourteen digits")
    try:
        reading = read_local(digits, rules.zone, lambda: post.arrived_at)
    except ValueError:
        raise ValueError("date_time is no real date") from None
    if reading.decided_by is not None:
        details["time_decided_by"] = reading.decided_by
    text = cleaner.text(fields["text"])
    cleaner.note(details, charset)
    return InboundSms(
        provider="agile",
        originator=originator.value,
        originator_kind=originator.kind,
        originator_raw=fields["originator"],
        destination=destination,
        destination_raw=fields["destination"],
        date_time=digits,
        received_at=reading.received_at,
        time_quality=reading.quality,
        text=text,
        details=_OF_MOST if details == _OF_MOST else details,
    )


def _fields_of(post: Post) -> tuple[_Fields, str | None, dict[str, Any]]:
    """Return the fields of a POST, the charset declared for them, and what is to be noted.

    The body goes first where both have a field, if its type says that it is a form. One of another type may
    be anything, the text of an SMS too (Kannel's post-url): it never speaks against the query.
    """
    fields = _split(post.query) if post.query else {}
    declared = declared_charset(post.content_type)
    kind = post.content_type.partition(";")[0].partition(",")[0].strip().lower()
    if post.body and kind not in _FORMS and not _OURS.isdisjoint(fields):
        return fields, declared, {"body": "not declared as a form, and left unread"}
    in_parts = kind == _MULTIPART or post.body.startswith(b"--")
    parts = _multipart_form(post.body) if in_parts else None
    if parts is None:
        fields.update(_split(post.body))
        return fields, declared, {}
    of_body: _Fields = {}
    for name, value in parts[0]:
        of_body.setdefault(_field_name(name), []).append(value)
    return fields | of_body, parts[1] or declared, {}


def _multipart_form(body: bytes) -> tuple[list[tuple[bytes, bytes]], str | None] | None:
    """Return the fields of a multipart/form-data `body`, if it is one, and the charset that a part declares.

    The boundary is read from the body: a client that sets the header by hand names none, or another one (RFC
    7578; 4.5 has the charset). Raises ValueError for more than 200 fields.
    """
    first = _DELIMITER.search(body)
    if first is None:
        return None
    delimiter = first[0].rstrip()
    if body.count(delimiter) > _MOST_FIELDS + 1:
        raise ValueError(f"the form has more than {_MOST_FIELDS} fields")
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


def _split(form: bytes) -> _Fields:
    """Return the undecoded values of a form by name. A semicolon is data, a blank value counts."""
    fields: _Fields = {}
    pairs = form.strip(b"\r\n").split(b"&", _MOST_FIELDS + 1)
    if len(pairs) > _MOST_FIELDS:
        raise ValueError(f"the form has more than {_MOST_FIELDS} fields")
    for pair in pairs:
        if pair:
            name, _, value = pair.partition(b"=")
            fields.setdefault(_field_name(name), []).append(_unescaped(value))
    return fields


@lru_cache(maxsize=64)
def _field_name(name: bytes) -> str:
    plain = _unescaped(name).decode("utf-8", "replace")
    known = plain.strip("\ufeff \t\r\n").lower()
    return known if known in _FIELDS else plain


def _unescaped(value: bytes) -> bytes:
    value = value.replace(b"+", b" ").replace(b"%2B", b"+")  # of numbers it is mostly the only escape
    return unquote_to_bytes(value) if b"%" in value else value


def _decoded(
    raw: _Fields, declared: str | None, cleaner: Cleaner, details: dict[str, Any]
) -> tuple[dict[str, str], str]:
    """Return the four fields as text and the charset of `text`; whatever else came goes to `details`."""
    fields: dict[str, str] = {}
    charset = "utf-8"
    for name in _FIELDS:
        values = raw.pop(name, None)
        if values is None:
            raise ValueError(f"the field {name} is missing")
        value, charset = decode(values[0], declared)
        if not value.strip() and name not in _MAY_BE_EMPTY:
            raise ValueError(f"the field {name} is empty")
        fields[name] = value if name == "text" else cleaner.string(value)
        if name != "text" and charset != "utf-8":
            details.setdefault("charset_of", {})[name] = charset
        if len(values) > 1:
            raw[name] = values[1:]
    if raw:
        details["fields"] = {
            cleaner.string(name): [cleaner.string(decode(value, declared)[0]) for value in values]
            for name, values in raw.items()
        }
    return fields, charset


def _repaired(fields: dict[str, str], name: str, details: dict[str, Any]) -> str:
    """Return a number field with the plus that an unescaped `+39…` loses in a form; the raw one stays."""
    value = fields[name]
    if _LOST_PLUS.fullmatch(value):
        details.setdefault("plus_restored", []).append(name)
        return "+" + value[1:]
    return value
