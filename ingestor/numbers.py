"""Phone numbers as providers write them, made comparable without ever guessing a country."""

import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

INVISIBLE = (
    "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufeff"
)
"""Marks of direction and of no width: contact books put them around numbers, and nobody sees them."""

_BLANKS = str.maketrans("", "", " \t\u00a0\u202f" + INVISIBLE)
_INTERNATIONAL = re.compile(r"\+[1-9][0-9]{6,14}")
_SHORT_CODE = re.compile(r"[0-9]{3,8}")
_PLUSLESS = re.compile(r"[1-9][0-9]{10,14}")
_ENCODED = re.compile(r"\+?(?:[ \t\u00a0\u202f()./-]*[0-9]){7,15}")
_MOST_ENCODINGS = 3
_DIGITS_OF_A_PART = 10
_GATEWAY = re.compile(r"[1-9][0-9]{8,14}")


class OriginatorKind(StrEnum):
    """What an originator is: a phone number, a short code, a name, or none of these."""

    MSISDN = "msisdn"
    SHORT = "short"
    ALPHA = "alpha"
    UNKNOWN = "unknown"


class Number(NamedTuple):
    """A normalised number and what kind it is."""

    value: str
    kind: OriginatorKind


def normalise_agile(raw: str) -> Number:
    """Return the number Agile Telecom meant by `raw`.

    Anything with a letter stays as it is (`alpha`); blanks go; a leading 00 becomes +; 3 to 8 digits are
    a short code; 11 to 15 digits without a plus get one. All else stays as it came (`unknown`).
    Source: the examples of Agile's inbound guide always show +39 numbers; older set-ups post them bare.
    """
    return _normalise(raw, _PLUSLESS)


def whole_number(written: str) -> str | None:
    """Return the E.164 number that a person means by `written`; None for what may be a part of one.

    With + or 00 that takes ten digits, without either eleven.
    """
    number = normalise_agile(written)
    whole = number.kind is OriginatorKind.MSISDN and len(number.value) > _DIGITS_OF_A_PART
    return number.value if whole else None


@lru_cache(maxsize=64)  # we have few numbers, and everything is for them
def agile_destination(raw: str) -> str:
    """Return the number of ours that Agile Telecom meant by `raw`, by the same rules."""
    return normalise_agile(raw).value


def normalise_plusless(raw: str) -> Number:
    """Return the number meant by a provider that writes E.164 without the plus (Infobip, IP1).

    The plus is prepended and no region is ever assumed: 385916242493, Croatian in Infobip's own sample,
    would parse as a valid Italian number under region IT.
    """
    return _normalise(raw, _GATEWAY)


def _normalise(raw: str, plusless: re.Pattern[str]) -> Number:
    if _INTERNATIONAL.fullmatch(raw):
        return Number(raw, OriginatorKind.MSISDN)
    stripped = raw.strip()
    if "%" in stripped:
        stripped = _encoded_again(stripped) or stripped
    if any(map(str.isalpha, stripped)):
        return Number(stripped, OriginatorKind.ALPHA)
    compact = stripped.translate(_BLANKS)
    if compact.startswith("00"):
        compact = "+" + compact[2:]
    if _INTERNATIONAL.fullmatch(compact):
        return Number(compact, OriginatorKind.MSISDN)
    if _SHORT_CODE.fullmatch(compact):
        return Number(compact, OriginatorKind.SHORT)
    if plusless.fullmatch(compact):
        return Number("+" + compact, OriginatorKind.MSISDN)
    return Number(stripped, OriginatorKind.UNKNOWN)


def _encoded_again(raw: str) -> str | None:
    """Return the number that a gateway encoded for a URL once too often (`%2B39…`), None where it is none."""
    plain = raw
    for _ in range(_MOST_ENCODINGS):
        plain = unquote(plain).strip()
        if _ENCODED.fullmatch(plain):
            return plain
    return None


def last_four(number: str) -> str:
    """Return `number` as logs may show it: dots and the last four characters."""
    return "…" + number[-4:] if len(number) > 4 else "…"
