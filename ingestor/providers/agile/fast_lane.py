"""The fast lane: well-formed mails of the usual shapes, taken apart as bytes.

It answers only where nothing is odd, else None, and then the slow lane decides. Every shape it knows must
come out of the slow lane the same; a test holds the two equal over the corpus and over generated mails.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from ingestor.providers.agile.header import Header, read_header
from ingestor.providers.agile.parts import ENCODINGS, Part, transfer_decoded

_TOKEN = r"[A-Za-z0-9!#$&+.^_{}~-]+"  # noqa: S105 - MIME's word for a bare parameter value
_PARAMETER = re.compile(rf'\s*;\s*([A-Za-z-]+)=("[ -!#-\[\]-~]*"|{_TOKEN})\s*')
_TYPE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
_PART_HEADER = re.compile(rb"(?:[!-9;-~]+:[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*)+")
_LONGEST_FIELD = 500
_CONTAINERS = ("multipart/alternative", "multipart/mixed")
_MOST_PARTS_BEFORE = 4


class _Kind(NamedTuple):
    """What a Content-Type and a Content-Transfer-Encoding say together."""

    media_type: str
    charset: str | None
    flowed: bool
    delete_space: bool
    encoding: str
    boundary: bytes


def fast_part(header: Header, body: bytes) -> Part | None:
    """Return the text part of a mail with this `header` and `body`, or None where anything is odd."""
    kind = _kind_of(header)
    if kind is None:
        return None
    if kind.media_type in _CONTAINERS:
        return _first_plain(body, kind.boundary) if kind.boundary else None
    if kind.media_type in {"text/plain", "text/html"}:
        return _part(kind, body)
    return None


def _part(kind: _Kind, data: bytes) -> Part | None:
    decoded = transfer_decoded(data, kind.encoding)
    if decoded is None:
        return None
    html = kind.media_type == "text/html"
    return Part(decoded, kind.charset, html, kind.flowed and not html, kind.delete_space, kind.encoding)


def _kind_of(header: Header) -> _Kind | None:
    """Return what describes a body, or None where a field is missing, long or unusual."""
    fields = header.first
    if b"content-disposition" in fields:
        return None
    content_type = fields.get(b"content-type")
    encoding = fields.get(b"content-transfer-encoding", b"")
    if content_type is None or len(content_type) > _LONGEST_FIELD or len(encoding) > _LONGEST_FIELD:
        return None
    return _read_kind(content_type, encoding)


@lru_cache(maxsize=1024)
def _read_kind(content_type: bytes, encoding: bytes) -> _Kind | None:
    transfer = encoding.strip().lower().decode("latin-1")
    text = content_type.decode("latin-1")
    match = _TYPE.match(text)
    if match is None or transfer not in ENCODINGS or not text.isascii():
        return None
    media_type = match[1].lower()
    parameters: dict[str, str] = {}
    at = match.end()
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None or match[1].lower() in parameters:
            return None
        parameters[match[1].lower()] = match[2].strip('"')
        at = match.end()
    boundary = parameters.get("boundary", "")
    if media_type.startswith("multipart/") and (
        transfer not in {"", "7bit", "8bit"} or boundary.strip() != boundary
    ):
        return None
    return _Kind(
        media_type,
        parameters.get("charset") or None,
        parameters.get("format", "").lower() == "flowed",
        parameters.get("delsp", "").lower() == "yes",
        transfer,
        boundary.encode("ascii"),
    )


def _first_plain(body: bytes, boundary: bytes) -> Part | None:
    """Return the first text/plain part, provided that only text/html stands before it.

    What follows it does not matter: the first text/plain part in which the block is found is the one.
    """
    if body.count(b"\r") != body.count(b"\r\n"):
        return None  # a lone CR ends a line for some readers
    delimiter = b"\n--" + boundary
    at = -1 if body.startswith(delimiter[1:]) else body.find(delimiter)
    if at < 0 and not body.startswith(delimiter[1:]):
        return None
    for _ in range(_MOST_PARTS_BEFORE):
        start = _after_line_end(body, at + len(delimiter))
        at = body.find(delimiter, start - 1)
        if start < 0 or at < 0 or not _ends_line(body, at + len(delimiter)):
            return None
        kind, content = _taken_apart(body[start:at])
        if kind is None:
            return None
        if kind.media_type == "text/plain":
            return _part(kind, content)
        if kind.media_type != "text/html":
            return None
    return None


def _after_line_end(body: bytes, at: int) -> int:
    """Return where the next line begins, or -1 where there is more on this one."""
    if body.startswith(b"\r\n", at):
        return at + 2
    return at + 1 if body.startswith(b"\n", at) else -1


def _ends_line(body: bytes, at: int) -> bool:
    """Say whether nothing but the closing hyphens stands behind a delimiter."""
    if body.startswith(b"--", at):
        at += 2
    return at == len(body) or _after_line_end(body, at) >= 0


def _taken_apart(part: bytes) -> tuple[_Kind | None, bytes]:
    match = _PART_HEADER.match(part)
    if match is None:
        return None, b""
    content = match.end()
    if part.startswith(b"\r\n", content):
        content += 2
    elif part.startswith(b"\n", content):
        content += 1
    else:
        return None, b""
    return _kind_of(read_header(match[0])), part[content:].removesuffix(b"\r")
