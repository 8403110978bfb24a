"""What both lanes hand on: the transfer-decoded bytes of one text part and how it calls itself."""

import binascii
from typing import NamedTuple


class Part(NamedTuple):
    """One text part of a mail. `data` is None where its base64 is broken."""

    data: bytes | None
    charset: str | None
    html: bool
    flowed: bool
    delete_space: bool
    encoding: str


IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
ENCODINGS = IDENTITY | {"quoted-printable", "base64"}


def transfer_decoded(data: bytes, encoding: str) -> bytes | None:
    """Return `data` without its transfer `encoding` (one of `ENCODINGS`), or None for broken base64.

    Base64 is read strictly, blanks and line ends apart: a lenient reader makes other text out of a body
    with one character lost, and half a text out of a body that was cut.
    """
    if encoding == "base64":
        try:
            return binascii.a2b_base64(data.translate(None, b"\r\n \t"), strict_mode=True)
        except binascii.Error:
            return None
    if encoding == "quoted-printable":
        return binascii.a2b_qp(data)
    return data
