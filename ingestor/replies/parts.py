"""How a text travels: GSM 7-bit or UCS-2, and in how many parts it is paid for.

Sources: 3GPP TS 23.038 (alphabet and extension table), TS 23.040 (140 bytes a part; a concatenation header
takes 6 bytes of each, so 7 septets or 3 UCS-2 characters: 153 instead of 160, 67 instead of 70; 9.2.3.24).
"""

from typing import Final, NamedTuple

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = frozenset("\f^{}\\[~]|€")
"""Each is sent as an escape and a second septet. A lone escape is no character of a text."""

_BYTES: Final = 140
_JOINING: Final = {0x00: 3, 0x08: 4}
"""The elements that join parts, and how long they are: a reference, how many parts, which of them."""


class Parts(NamedTuple):
    """What a text becomes: its encoding, how many units of it are used, and in how many parts they go."""

    encoding: str
    """`GSM 7-bit`, `UCS-2`, or `HEX` for bytes that are written so."""
    units: int
    """Septets (one of the extension table counts two), UTF-16 code units (an emoji counts two), or bytes."""
    parts: int
    culprits: tuple[str, ...]
    """The characters outside GSM 7-bit, each once, in the order of the text."""


def parts_of(text: str, *, hex_body: bool = False) -> Parts:
    """Return how `text` is encoded and split; a pair of two units is never parted. An empty text is one."""
    if hex_body:
        size = len(text) // 2
        return Parts("HEX", size, 1 if size <= _BYTES else -(-size // 134), ())
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


def why_not_with_header(header: str, body: str, *, hex_body: bool) -> str | None:
    """Return why a message cannot have the user data header `header` (HEX), None where it can: a phone that
    cannot read it drops the message, and nobody is told.
    """
    octets = bytes.fromhex(header)
    if len(octets) < 3 or octets[0] != len(octets) - 1:
        return f"its first byte must say how many follow, {len(octets) - 1:02X}"
    if (why := _why_no_elements(octets[1:])) is not None:
        return why
    encoding, used, _, _ = parts_of(body, hex_body=hex_body)
    left = _BYTES - len(octets)
    septets, characters = (left * 8 // 7, "septets"), (left // 2, "UCS-2 characters")
    room, unit = {"HEX": (left, "bytes"), "UCS-2": characters}.get(encoding, septets)
    if used > room:
        return (
            f"it leaves room for {max(room, 0)} {unit}, and the text has {used}; Agile splits no such message"
        )
    return None


def _why_no_elements(octets: bytes) -> str | None:
    """Return why `octets` are no information elements: a byte of kind, one of length, and the data."""
    at = 0
    while at < len(octets):
        kind, data = octets[at], octets[at + 2 :][: octets[at + 1] if at + 1 < len(octets) else 0]
        if at + 1 >= len(octets) or len(data) != octets[at + 1]:
            return f"the element {kind:02X} in it is cut off"
        if kind in _JOINING and (len(data) != _JOINING[kind] or not 1 <= data[-1] <= data[-2]):
            return "it says that this is no part of its message: the last two bytes are parts and part"
        at += 2 + len(data)
    return None
