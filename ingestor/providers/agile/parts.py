"""A text part of a mail as bytes: its transfer encoding undone, and the fast lane to it in usual mails.

The fast lane answers only where nothing is odd, else None, and then the slow lane decides. A test holds the
two equal over the corpus and over generated mails.
"""

import binascii
import re
from functools import lru_cache
from typing import NamedTuple

from ingestor.providers.agile.header import Header, read_header


class Part(NamedTuple):
    """One text part of a mail. `data` is None where its base64 is broken; `again` says that it is HTML of
    what another part says in plain text."""

    data: bytes | None
    charset: str | None
    html: bool
    flowed: bool
    delete_space: bool
    encoding: str
    again: bool = False


IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
ENCODINGS = IDENTITY | {"quoted-printable", "base64"}

_COMMENT = re.compile(r"\([^()]*\)")
_NO_LETTERS = re.compile(r"[^a-z0-9]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_PIECE = re.compile(rb"[A-Za-z0-9+/]+(?:=+|\Z)")
# RFC 2045, 6.7: blanks at a line's end were added on the way (3), and a line end stands as it is (4); who
# encodes a part of it as well means one line end.
_QUOTED_LINE_END = re.compile(rb"(?:=0[Dd])?(?:=0[Aa])?+(?<![ \t])[ \t]*+(?=\r?\n|\Z)")
_SOFT_CR = re.compile(rb"=\r(?!\r*\n)")
_QUOTED = re.compile(rb"=(?:[89A-Fa-f][0-9A-Fa-f]|3[Dd]|[ \t]*(?:[\r\n]|\Z))")
# No program that quotes leaves a "=" alone, or writes a figure or a letter among others so.
_NEVER_QUOTED = re.compile(
    rb"=(?![0-9A-Fa-f]{2}|[ \t]*(?:[\r\n]|\Z))"
    rb"|(?<!=[0-9A-Fa-f]{2})=(?:3[0-9]|4[1-57-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])(?!=)"
)
_UTF_8_QUOTED = re.compile(
    rb"=(?:C[2-9A-F]|D[0-9A-F])=[89AB][0-9A-F]|=E[0-9A-F](?:=[89AB][0-9A-F]){2}"
    rb"|=F[0-4](?:=[89AB][0-9A-F]){3}"
)
# A full line that goes on in the next one, among lines of which none is longer; a link may end in a "=", too.
_SOFT_BREAK = re.compile(rb"^[^\n]{72,75}=\r?\n(?=[^\r\n])", re.MULTILINE)
_LONG_LINE = re.compile(rb"[^\r\n]{77}")
# Sendmail breaks longer lines behind 989 bytes and a "!", Postfix behind 990 (long ago) or 998.
_BROKEN_BEHIND = (990, 998)


def encoding_of(field: str) -> str:
    """Return the transfer encoding that a Content-Transfer-Encoding `field` means, else its first word.

    Comments are allowed (RFC 2045, 3); semicolons, quotes and other spellings are not, and occur.
    """
    words = _COMMENT.sub(" ", field).strip("\"'; \t\r\n").lower().split(";")[0].strip()
    plain = _NO_LETTERS.sub("", words)
    for known, encoding in (("quotedprintable", "quoted-printable"), ("base64", "base64")):
        if plain.startswith(known):
            return encoding
    return words


def transfer_decoded(data: bytes, encoding: str) -> bytes | None:
    """Return `data` without its transfer `encoding` (one of `ENCODINGS`), or None for broken base64.

    Base64 is read strictly, blanks, line ends and a footer behind it apart: a lenient reader makes other
    text out of a body with one character lost, and half a text out of a body that was cut.
    """
    if encoding == "base64":
        whole = _from_base64(data.translate(None, b"\r\n \t"))
        if whole is None:
            whole = _from_pieces(data) or _from_base64(_before_footer(data)) or None
        return whole
    if encoding == "quoted-printable" and not _is_plain(data):
        if b"=\r" in data:  # behind a CR alone the library takes nothing up to the next LF
            data = _SOFT_CR.sub(b"=\n", data)
        if b"=0" in data or b" \r" in data or b" \n" in data or b"\t" in data or data[-1:] == b" ":
            data = _QUOTED_LINE_END.sub(b"", data)
        return binascii.a2b_qp(data)
    return data if len(data) < _BROKEN_BEHIND[0] else _rejoined(data)


def undeclared(data: bytes) -> bytes:
    """Return what is not the base64 it is called: quoted-printable where it is quoted, else as it is."""
    return binascii.a2b_qp(data) if data.isascii() and _QUOTED.search(data) else data


def _is_plain(data: bytes) -> bool:
    """Say whether `data` was never quoted: it holds what must have been, and nothing that was."""
    return not _QUOTED.search(data) and not (data.isascii() and not _NEVER_QUOTED.search(data))


def as_it_is(data: bytes, encoding: str) -> tuple[bytes, str]:
    """Return `data` and its transfer `encoding`, decoded where it is quoted-printable and nothing says so."""
    if encoding not in {"base64", "quoted-printable"} and _looks_quoted(data):
        return transfer_decoded(data, "quoted-printable") or b"", "quoted-printable"
    return data, encoding


def _looks_quoted(data: bytes) -> bool:
    if b"=" not in data or not data.isascii() or _NEVER_QUOTED.search(data):
        return False
    if _UTF_8_QUOTED.search(data):
        return True
    return bool(_SOFT_BREAK.search(data)) and not _LONG_LINE.search(data)


def _from_base64(data: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error:
        return None


def _from_pieces(data: bytes) -> bytes | None:
    """Return `data` decoded where it was encoded piece by piece, each of whole lines with padding of its own.

    A second piece behind the end of a line of text is a footer.
    """
    lines = data.strip().split()
    if b"\n\n" in data.strip().replace(b"\r", b"") or not all(map(_BASE64.fullmatch, lines)):
        return None
    pieces = [_from_base64(piece) for piece in _PIECE.findall(b"".join(lines))]
    if None in pieces or (len(pieces) == 2 and (pieces[0] or b"").endswith(b"\n")):
        return None
    return b"".join(piece or b"" for piece in pieces)


def _before_footer(data: bytes) -> bytes:
    """Return the lines of base64 that open `data`: equally long, the last one shorter or padded.

    A footer begins with an empty line, a ruling or several words: else it is a damaged line of base64.
    """
    lines: list[bytes] = []
    for line in map(bytes.strip, data.strip().splitlines()):
        if not _BASE64.fullmatch(line) or (lines and len(line) > len(lines[0])):
            is_footer = not line or (line[:1] in b"-_=*" or b" " in line)
            return b"".join(lines) if is_footer else b"="
        lines.append(line)
        if line.endswith(b"=") or len(line) < len(lines[0]):
            break
    return b"".join(lines)


def _rejoined(data: bytes) -> bytes:
    """Return `data` without the line ends that a relay put in: CR LF and a blank, at its limit exactly."""
    lines: list[bytes] = []
    length = 0
    for line in data.split(b"\n"):
        if length in _BROKEN_BEHIND and line.startswith(b" "):
            before = lines[-1].removesuffix(b"\r")
            lines[-1] = (before.removesuffix(b"!") if length == _BROKEN_BEHIND[0] else before) + line[1:]
        else:
            lines.append(line)
        length = len(line.removesuffix(b"\r"))
    return b"\n".join(lines)


def unflowed(text: str, *, delete_space: bool) -> str:
    """Return `text` (LF line ends) with soft line breaks joined and space-stuffing undone.

    A line that ends in a blank, but for the signature separator `-- `, goes on in the next one of the same
    quote depth; `delete_space` (DelSp=yes) drops that blank. Quote marks stay: an SMS may begin so.
    """
    joined: list[str] = []
    pieces: list[str] = []
    depth = 0
    for line in text.split("\n"):
        content = line.lstrip(">")
        line_depth = len(line) - len(content)
        if pieces and line_depth != depth:
            joined.append("".join(pieces))
            pieces = []
        stuffed = content.startswith(" ")
        content = content[1:] if stuffed else content
        if not pieces:
            depth = line_depth
            marks = ">" * depth
            # A blank between the marks and the text is the layout of a quotation, not stuffing.
            pieces.append(f"{marks} " if depth and stuffed else marks)
        if content == "-- " or not content.endswith(" "):
            joined.append("".join((*pieces, content)))
            pieces = []
        else:
            pieces.append(content[:-1] if delete_space else content)
    if pieces:
        joined.append("".join(pieces))
    return "\n".join(joined)


_TOKEN = r"[A-Za-z0-9!#$&+.^_{}~-]+"  # noqa: S105 - MIME's word for a bare parameter value
_PARAMETER = re.compile(rf'\s*;\s*([A-Za-z-]+)=("[ -!#-\[\]-~]*"|{_TOKEN})\s*')
_TYPE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
_PART_HEADER = re.compile(rb"((?:[!-9;-~]+:[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*)+)\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_DELIMITER_END = re.compile(rb"(?:--)?(?:\r?\n|\Z)")
_LONGEST_FIELD = 500
_ALTERNATIVE = "multipart/alternative"
_CONTAINERS = (_ALTERNATIVE, "multipart/mixed")
_MOST_PARTS = 5


class _Kind(NamedTuple):
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
        beside = {"text/html"} if kind.media_type == _ALTERNATIVE else set()
        return _first_plain(body, kind.boundary, beside) if kind.boundary else None
    if kind.media_type in {"text/plain", "text/html"}:
        return _part(kind, body)
    return None


def _part(kind: _Kind, data: bytes) -> Part | None:
    decoded = transfer_decoded(data, kind.encoding)
    if decoded is None:
        return None
    html = kind.media_type == "text/html"
    decoded, encoding = as_it_is(decoded, kind.encoding)
    return Part(decoded, kind.charset, html, kind.flowed and not html, kind.delete_space, encoding)


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


def _first_plain(body: bytes, boundary: bytes, beside: set[str]) -> Part | None:
    """Return the text/plain part, provided that only types of `beside` stand beside it.

    Any other may hold another SMS: then all of them must be looked at.
    """
    if body.count(b"\r") != body.count(b"\r\n"):
        return None  # a lone CR ends a line for some readers
    delimiter = b"\n--" + boundary
    at = -1 if body.startswith(delimiter[1:]) else body.find(delimiter)
    if at < 0 and not body.startswith(delimiter[1:]):
        return None
    found = None
    for _ in range(_MOST_PARTS):
        line_end = _LINE_END.match(body, at + len(delimiter))
        if line_end is None:
            return found  # the last delimiter, which ends its line
        start = line_end.end()
        at = body.find(delimiter, start - 1)
        if at < 0 or not _DELIMITER_END.match(body, at + len(delimiter)):
            return None
        head = _PART_HEADER.match(body, start, at)
        if head is None or (kind := _kind_of(read_header(head[1]))) is None:
            return None
        if kind.media_type not in (beside if found else beside | {"text/plain"}):
            return None
        if kind.media_type == "text/plain":
            found = _part(kind, body[head.end() : at].removesuffix(b"\r"))
            if found is None:
                return None
    return None
