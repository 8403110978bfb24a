"""How a text travels: GSM 7-bit or UCS-2, and in how many parts it is paid for.

Sources: 3GPP TS 23.038 (alphabet and extension table), TS 23.040 (a concatenation header takes 7 septets or
3 UCS-2 characters of each part: 153 instead of 160, 67 instead of 70).
"""

from typing import Final, NamedTuple

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = frozenset("\f^{}\\[~]|€")
"""Each is sent as an escape and a second septet. A lone escape is no character of a text."""


class Parts(NamedTuple):
    """What a text becomes: its encoding, how many units of it are used, and in how many parts they go."""

    encoding: str
    """`GSM 7-bit` or `UCS-2`."""
    units: int
    """Septets (one of the extension table counts two), or UTF-16 code units (an emoji counts two)."""
    parts: int
    culprits: tuple[str, ...]
    """The characters outside GSM 7-bit, each once, in the order of the text."""


def parts_of(text: str) -> Parts:
    """Return how `text` is encoded and split; a pair of two units is never parted. An empty text is one."""
    culprits = tuple(dict.fromkeys(one for one in text if one not in _BASIC and one not in _EXTENSION))
    if culprits:
        units = [2 if ord(one) > 0xFFFF else 1 for one in text]
        return Parts("UCS-2", sum(units), _split(units, 70, 67), culprits)
    units = [2 if one in _EXTENSION else 1 for one in text]
    return Parts("GSM 7-bit", sum(units), _split(units, 160, 153), ())


def _split(units: list[int], alone: int, joined: int) -> int:
    if sum(units) <= alone:
        return 1
    parts, room = 1, joined
    for size in units:
        if size > room:
            parts, room = parts + 1, joined
        room -= size
    return parts
