"""The charset ladder: which reading of a text's bytes is taken, and why.

Nothing becomes U+FFFD here while another reading fits, and one always does: the last step is the
Windows-1252 of browsers, in which every byte has a meaning.
"""

import codecs
import encodings
import pkgutil
import re
from encodings.aliases import aliases
from functools import lru_cache
from typing import NamedTuple

# A charset's name comes from the sender. Python's own look-up would import and remember whatever is
# asked, and knows codecs that execute escapes or are no charsets at all.
_NOT_FOR_MAIL = {
    "aliases", "base64_codec", "bz2_codec", "charmap", "hex_codec", "idna", "mbcs", "oem", "punycode",
    "quopri_codec", "raw_unicode_escape", "rot_13", "undefined", "unicode_escape", "uu_codec", "zlib_codec",
}  # fmt: skip
_OF_PYTHON = {module.name: module.name for module in pkgutil.iter_modules(encodings.__path__)}
_CODECS = {name: codec for name, codec in (_OF_PYTHON | aliases).items() if codec not in _NOT_FOR_MAIL}
_CODECS |= {"ansi": "cp1252", "utf8mb4": "utf_8"}
_COMMENT = re.compile(r"\([^()]*\)")
_SEPARATORS = re.compile(r"[-_ :.]+")

_LATIN_1 = "latin_1"
_READS_ASCII_AS_ASCII = {"ascii", "utf_8", _LATIN_1} | {
    codec for codec in _CODECS.values() if codec.startswith(("cp125", "iso8859_"))
}
_WINDOWS_1252 = "".join(
    bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256)
)  # WHATWG: the five bytes Python leaves undefined are the C1 controls


class Decoded(NamedTuple):
    """A text, the charset it was read with, and why that one: `declared`, or what was wrong with it."""

    text: str
    charset: str
    reason: str


@lru_cache(maxsize=256)
def codec_for(declared: str | None) -> str | None:
    """Return Python's name of the charset a mail calls `declared`, or None where it is none."""
    if declared is None or len(declared) > 60:
        return None
    name = _SEPARATORS.sub("_", _COMMENT.sub("", declared).strip("\t \"'").lower())
    return _CODECS.get(name) or _CODECS.get(name.removeprefix("x_")) or _CODECS.get(name.replace("_", ""))


def decode_text(data: bytes, declared: str | None) -> Decoded:
    """Return `data` read by the ladder: the `declared` charset strictly, then UTF-8, then Windows-1252.

    A declared ISO-8859-1 fits any bytes, so beyond ASCII it is believed only after UTF-8 failed, and then
    as Windows-1252. UTF-8 that carries UTF-16 surrogates is mended where they form pairs; a lone one stays
    for `record.storable` to replace and count.
    """
    codec = codec_for(declared)
    if data.isascii() and (codec is None or codec in _READS_ASCII_AS_ASCII):
        if codec is None:
            return Decoded(data.decode("ascii"), "ascii", _why(declared))
        return Decoded(data.decode("ascii"), _shown(codec), "declared")
    if codec is not None and codec != _LATIN_1:
        try:
            return Decoded(codecs.decode(data, codec), _shown(codec), "declared")
        except (UnicodeError, LookupError, ValueError):
            pass
    reason = "declared charset fits any bytes" if codec == _LATIN_1 else _why(declared, codec)
    try:
        return Decoded(data.decode("utf-8"), "utf-8", reason)
    except UnicodeDecodeError:
        pass
    if b"\xed" in data:
        try:
            return Decoded(_mended(data.decode("utf-8", "surrogatepass")), "utf-8", "surrogates in UTF-8")
        except UnicodeDecodeError:
            pass
    return Decoded(codecs.charmap_decode(data, "strict", _WINDOWS_1252)[0], "cp1252", reason)


def _mended(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _why(declared: str | None, codec: str | None = None) -> str:
    if declared is None:
        return "no charset declared"
    return "declared charset does not fit" if codec else "declared charset is unknown"


@lru_cache(maxsize=256)
def _shown(codec: str) -> str:
    return "iso-8859-1" if codec == _LATIN_1 else codec.replace("_", "-")
