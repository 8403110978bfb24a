"""The charset ladder: which reading of a text's bytes is taken, and why.

Every way in asks here. Nothing becomes U+FFFD while another reading fits; one bad byte costs one character,
and never turns the rest into mojibake.
"""

import codecs
import encodings
import pkgutil
import re
from encodings.aliases import aliases
from functools import lru_cache
from typing import NamedTuple

import webencodings

# A charset's name comes from the sender. Python's own look-up would import and remember whatever is
# asked, and knows codecs that execute escapes or are no charsets at all.
_NOT_FOR_MAIL = {
    "aliases", "base64_codec", "bz2_codec", "charmap", "hex_codec", "idna", "mbcs", "oem", "punycode",
    "quopri_codec", "raw_unicode_escape", "rot_13", "undefined", "unicode_escape", "uu_codec", "zlib_codec",
}  # fmt: skip
_OF_PYTHON = {module.name: module.name for module in pkgutil.iter_modules(encodings.__path__)}
_CODECS = {name: codec for name, codec in (_OF_PYTHON | aliases).items() if codec not in _NOT_FOR_MAIL}
_CODECS = {name.replace("_", ""): codec for name, codec in _CODECS.items()} | _CODECS
_CODECS |= {"ansi": "cp1252", "utf8mb4": "utf_8", "iso2022_jp": "iso2022_jp_ext"}
_COMMENT = re.compile(r"\([^()]*\)")
_WINDOWS = re.compile(r"\A(?:windows|win|cp)_?(125[0-8])\Z")
_SEPARATORS = re.compile(r"[-_ :.]+")

_LATIN_1 = "latin_1"
_READS_ASCII_AS_ASCII = {"ascii", "utf_8", _LATIN_1} | {
    codec for codec in _CODECS.values() if codec.startswith(("cp125", "iso8859_"))
}
_SEVEN_BITS = ("iso2022", "hz")
_NO_ASCII = (*_SEVEN_BITS, "utf_16", "utf_32")
_SAYS_NOTHING = {None, "ascii", "utf_8", _LATIN_1}  # declared or not, the bytes alone decide
_MARKS = ((codecs.BOM_UTF8, "utf_8"), (codecs.BOM_UTF16_LE, "utf_16"), (codecs.BOM_UTF16_BE, "utf_16"))
_WINDOWS_1252 = "".join(
    bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256)
)  # WHATWG: the five bytes Python leaves undefined are the C1 controls

_ASCII = bytes(range(128))
_JAPANESE = {"euc_jp": re.compile(rb"[\xa1-\xfe]{2}"), "iso2022_jp_ext": re.compile(rb"[!-~]{2}")}
_ESCAPES = (b"\x1b$@", "iso2022_jp_ext"), (b"\x1b$B", "iso2022_jp_ext"), (b"\x1b$)C", "iso2022_kr")
_LOST = "ingestor-lost"  # an error handler: one lone surrogate for each piece that cannot be read

_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_SURROGATE_PAIR = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
# What nobody writes in charsets of single bytes: Ã or Â before a sign, three such pairs in a row, the
# beginnings of emoji and of typographic signs cut short, a lone Ã (half a letter) that follows no capital.
_SURELY_UTF_8 = re.compile(
    rb"[\xc2\xc3][\x80-\xbf]|(?:[\xc2-\xdf][\x80-\xbf]){3}|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
    rb"|\xf0\x9f|\xe2[\x80-\x84](?=[\s<]|\Z)|(?<![A-Z\x80-\xff])\xc3(?=[\s<]|\Z)"
)
# Dovecot writes 0x80 where a mail had a NUL; beside a figure it is a euro sign.
_WAS_NUL = re.compile(rb"(?<![0-9])(?<![0-9] )\x80(?! ?[0-9])")


class Decoded(NamedTuple):
    """A text, the charset it was read with, and why that one: `declared`, or what was wrong with it.

    What could not be read stands in `text` as lone surrogates, one for each U+FFFD it will become:
    `record.storable` replaces and counts them.
    """

    text: str
    charset: str
    reason: str


@lru_cache(maxsize=256)
def codec_for(declared: str | None) -> str | None:
    """Return Python's name of the charset that is `declared`, or None where it is none.

    Labels mean what they mean to browsers (https://encoding.spec.whatwg.org/#names-and-labels: gb2312 is
    GBK, Shift_JIS is Windows-31J), and further ones what Python takes them for.
    """
    if declared is None or len(declared) > 60:
        return None
    label = _COMMENT.sub("", declared).strip("\t \"'").lower()
    name = _SEPARATORS.sub("_", label)
    name = _WINDOWS.sub(r"cp\1", name)
    known = _CODECS.get(name) or _CODECS.get(name.removeprefix("x_")) or _CODECS.get(name.replace("_", ""))
    if known in {"ascii", _LATIN_1, "utf_16"} or not label.isascii():
        return known
    for spelling in (label, name.replace("_", "-"), known or ""):
        found = webencodings.lookup(spelling)
        if found is not None and found.name not in {"replacement", "x-user-defined"}:
            return _CODECS.get(_SEPARATORS.sub("_", found.codec_info.name), known)
    return known


def decode_text(data: bytes, declared: str | None) -> Decoded:
    """Return `data` read by the ladder: the `declared` charset strictly, then UTF-8, then Windows-1252.

    A declared ISO-8859-1 fits any bytes, so beyond ASCII it is believed only after UTF-8 failed, and then as
    Windows-1252. UTF-8 that carries UTF-16 surrogates (CESU-8) is mended where they form pairs.
    """
    codec = codec_for(declared)
    if b"\x1b$" in data and codec in _SAYS_NOTHING:  # no text has that but in these charsets
        for escape, escaped in _ESCAPES:
            if escape in data and (text := _strictly(data, escaped)) is not None:
                return Decoded(text, _shown(escaped), _why(declared, codec))
    if data.isascii() and (codec is None or codec in _READS_ASCII_AS_ASCII):
        if codec is None:
            return Decoded(data.decode("ascii"), "ascii", _why(declared))
        return Decoded(data.decode("ascii"), _shown(codec), "declared")
    if codec == "utf_8" and (text := _strictly(data, codec)) is not None:
        return Decoded(text, "utf-8", "declared")  # nearly all
    if codec is not None and codec.startswith(_NO_ASCII):
        return _not_in_ascii(data, codec)
    marked = next((marked for mark, marked in _MARKS if data.startswith(mark)), None)
    # Two letters of Latin-1 may begin a field of a form; UTF-16 has NULs.
    if marked is not None and (marked == "utf_8" or b"\0" in data):
        text = _strictly(data, marked)
        if text is not None:
            return Decoded(text, _shown(marked), "byte order mark")
    if codec is not None and codec != _LATIN_1:
        text = _strictly(data, codec)
        if text is not None and not (codec in _READS_ASCII_AS_ASCII and _is_another(data, codec)):
            return Decoded(text, _shown(codec), "declared")
    reason = "declared charset fits any bytes" if codec == _LATIN_1 else _why(declared, codec)
    text = _strictly(data, "utf_8")
    return Decoded(text, "utf-8", reason) if text is not None else _but_for_bytes(data, codec, reason)


def _strictly(data: bytes, codec: str) -> str | None:
    try:
        return codecs.decode(data, codec)
    except (UnicodeError, LookupError, ValueError):
        return None


def _not_in_ascii(data: bytes, codec: str) -> Decoded:
    """Return the reading of `data` that is declared to be in a charset whose bytes can pass for ASCII.

    UTF-16 and UTF-32 have NULs wherever a label or a line end stands.
    """
    if codec in {"utf_16", "utf_16_le"} and data[:1] == b"\0":  # no mark: RFC 2781, 4.3
        codec = "utf_16_be"
    text = codecs.decode(data, codec, _LOST)
    lost = _lost(text)
    if (b"\0" in data or codec.startswith(_SEVEN_BITS)) and 4 * lost <= len(text):
        return Decoded(text, _shown(codec), "declared, but for single bytes" if lost else "declared")
    return decode_text(data, None)._replace(reason=_why("", codec))


def _is_another(data: bytes, codec: str) -> bool:
    """Say whether `data` is UTF-8 although a charset of single bytes is declared, which fits nearly any."""
    if codec in _SAYS_NOTHING or not _SURELY_UTF_8.search(data):
        return False
    return _strictly(data, "utf_8") is not None


def _but_for_bytes(data: bytes, codec: str | None, reason: str) -> Decoded:
    """Return the reading of `data` that loses least: it is neither UTF-8 nor what is declared, strictly."""
    mended = data.replace(b"\xc0\x80", b"\0")  # Java's NUL
    if b"\xed" in data:
        mended = _SURROGATE.sub(b"\xff", _SURROGATE_PAIR.sub(_one_character, mended))
    text = codecs.decode(mended, "utf-8", _LOST)
    lost = _lost(text)
    if mended != data and not lost - mended.count(b"\xff"):
        return Decoded(text, "utf-8", "surrogates in UTF-8")
    if codec is not None and codec not in _SAYS_NOTHING:
        declared = codecs.decode(data, codec, _LOST)
        if _lost(declared) < lost and 2 * _lost(declared) <= sum(c > "\x7f" for c in declared):
            return Decoded(declared, _shown(codec), "declared, but for single bytes")
    was_nul = codec == "utf_8" and not _WAS_NUL.sub(b"", data).translate(None, _ASCII)
    if was_nul or (_SURELY_UTF_8.search(mended) and len(_CHARACTER.findall(mended)) >= lost - 1):
        return Decoded(text, "utf-8", "UTF-8 but for single bytes")
    return Decoded(codecs.charmap_decode(data, "strict", _WINDOWS_1252)[0], "cp1252", reason)


def _lost(text: str) -> int:
    return sum("\udc80" <= character <= "\udcff" for character in text)


def _lose(fault: UnicodeError) -> tuple[str, int]:
    if not isinstance(fault, UnicodeDecodeError):
        raise fault
    pair = fault.object[fault.start : fault.start + 2]
    if fault.encoding in _JAPANESE and _JAPANESE[fault.encoding].fullmatch(pair):
        found = _of_windows(pair[0] & 0x7F, pair[1] & 0x7F)
        if found:
            return found, fault.start + 2
    return "\udcff", fault.end


def _of_windows(row: int, cell: int) -> str:
    """Return the character of a place that only Windows fills in the Japanese charsets: ①, ㈱ or Ⅳ."""
    lead = (row + 1 >> 1) + (0x70 if row < 0x5F else 0xB0)
    trail = cell + (0x7E if row % 2 == 0 else 0x1F if cell < 0x60 else 0x20)
    return bytes((lead, trail)).decode("cp932", "ignore")


codecs.register_error(_LOST, _lose)


def _one_character(pair: re.Match[bytes]) -> bytes:
    halves = pair[0].decode("utf-8", "surrogatepass")
    return halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode()


def _why(declared: str | None, codec: str | None = None) -> str:
    if declared is None:
        return "no charset declared"
    return "declared charset does not fit" if codec else "declared charset is unknown"


@lru_cache(maxsize=256)
def _shown(codec: str) -> str:
    return "iso-8859-1" if codec == _LATIN_1 else codec.replace("_", "-").removesuffix("-ext")
