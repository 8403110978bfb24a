"""What an answer of Agile's API means for the message it is about: told apart as far as it can be sure.

Sources: Agile's REST document (codes, legacy answer), its quick start (answer with `results`), its guide to
errors (codes of one message; HTTP 200 may hold refusals). No de-duplication is promised by any of them, so
whatever may have been accepted is `unknown` and never sent again by itself.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

CODES: Final = {
    1: "wrong credentials: mend the API key or the password of [agile.api]",
    2: "insufficient credit: top the account up",
    3: "destination not allowed",
    4: "unknown error",
    5: "the number is too short",
    6: "the number is too long",
    7: "the number is not valid",
    8: "server error",
    9: "a service behind Agile's server did not answer in time",
    10: "wrong length of the global ID",
    26: "the sender is not allowed: have it registered, or use another",
    100: "this machine's address is not allowed: add it to the list of the account",
}
"""Agile's error codes, in words that say what to do where a person can do something."""

MESSAGE_CODES: Final = {
    400: "the message is not valid",
    401: "the sender is not allowed for that country",
    402: "insufficient credit: top the account up",
    403: "the number is on Agile's own list of those who opted out or are blocked",
    429: "too many messages at once",
    500: "server error",
}
"""The `statusCode` of one message in the newer answer."""

PAUSING_CODES: Final = frozenset({1, 2, 26, 100})
"""They concern every message: whoever goes on sending only collects refusals."""

_REFUSING_CODES: Final = frozenset({1, 2, 3, 5, 6, 7, 10, 26, 100})
_REFUSING_STATUS: Final = frozenset({400, 401, 403, 404, 413, 415})
_LATER_STATUS: Final = frozenset({408, 429, 503})
_FAILING_STATUS: Final = frozenset({500, 502, 504})
_CODE_OF_STATUS: Final = {401: 1, 403: 100}  # without a body of Agile's; a proxy may have answered for it
_LONGEST_PAUSE: Final = 300.0


class Fate(StrEnum):
    """What became of one request."""

    ACCEPTED = "accepted"
    NOT_SENT = "not_sent"
    """It never left: the connection failed before a byte of it was written."""
    LATER = "later"
    """Refused for now; trying again is safe."""
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """It may have been accepted: only a delivery report or a person can tell."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one message, in words for a person; no field holds a number or a text of it."""

    fate: Fate
    words: str
    code: int | None = None
    """Agile's code, or the `statusCode` of the message in the newer answer."""
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    credit: Decimal | None = None
    """What is left of the account, in EUR, where the answer says so."""
    parts: int | None = None
    """How many parts Agile counted."""
    pauses: bool = False
    """Every further message would be refused too, until a person has mended something."""
    opted_out: bool = False
    """Agile itself has the number on its list of opt-outs."""


def understood(body: bytes) -> Any:
    """Return the JSON of `body` with exact decimals, None where it is none."""
    try:
        return json.loads(body.decode(), parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def verdict_of(
    status: int, headers: Mapping[str, str], body: bytes, now: datetime, *, retry_5xx: bool = False
) -> Verdict:
    """Return what an answer to a request with one message means; `now` (UTC) is for Retry-After's dates.

    `retry_5xx` follows Agile's advice to try again after 500, 502 and 504, at the risk of a double.
    """
    answer = understood(body)
    if 200 <= status < 300:
        return _of_success(status, answer)
    pause = _retry_after(headers.get("Retry-After"), now)
    code = _code(answer)
    if code in _REFUSING_CODES:
        return _refused(status, code)
    if code == 9 or (code is not None and status in _LATER_STATUS):
        words = CODES.get(code, f"code {code}")
        return Verdict(Fate.LATER, f"not now: {words} (code {code})", code, pause)
    if code in {4, 8} and status in _REFUSING_STATUS:
        return _unknown(f"Agile says {CODES[code]} (code {code})", code)
    if status in _REFUSING_STATUS:
        return _refused(status, _CODE_OF_STATUS.get(status))
    if retry_5xx and status in _FAILING_STATUS:
        return Verdict(Fate.LATER, f"HTTP {status}, and retry_5xx is set", code, pause)
    said = f", {CODES.get(code, 'an unknown error')} (code {code})" if code is not None else ""
    return _unknown(f"HTTP {status}{said}", code)


def credit_of(answer: Any) -> Decimal | None:
    """Return the credit that `answer` names, None where it names none."""
    value = answer.get("credit") if isinstance(answer, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return Decimal(value)


def _of_success(status: int, answer: Any) -> Verdict:
    if not isinstance(answer, dict):
        return _unknown(f"HTTP {status} with an answer that is none of Agile's")
    credit = credit_of(answer)
    processed, parts = answer.get("processedMessages"), answer.get("processedSmsParts")
    if _is_count(processed):
        if processed == 0:
            return Verdict(Fate.REFUSED, "Agile accepted no message", credit=credit)
        counted = parts if _is_count(parts) else None
        return Verdict(Fate.ACCEPTED, "accepted", credit=credit, parts=counted)
    results = answer.get("results")
    if isinstance(results, list) and len(results) == 1 and isinstance(results[0], dict):
        return _of_result(status, results[0], credit)
    if (code := _code(answer)) in _REFUSING_CODES:
        return _refused(status, code)
    return _unknown(f"HTTP {status} with an answer of an unknown form")


def _of_result(status: int, result: dict[str, Any], credit: Decimal | None) -> Verdict:
    accepted, code = result.get("accepted"), result.get("statusCode")
    code = code if _is_count(code) else None
    if accepted is True and code in {None, 200}:
        return Verdict(Fate.ACCEPTED, "accepted", code, credit=credit)
    if accepted is not False or code is None or code == 200:
        return _unknown(f"HTTP {status} with a result that contradicts itself", code)
    words = f"{MESSAGE_CODES.get(code, 'refused')} (status {code} of the message)"
    if code == 429:
        return Verdict(Fate.LATER, f"not now: {words}", code, credit=credit)
    if code >= 500:
        return _unknown(words, code)
    return Verdict(Fate.REFUSED, words, code, credit=credit, pauses=code == 402, opted_out=code == 403)


def _refused(status: int, code: int | None) -> Verdict:
    words = f"{CODES[code]} (code {code})" if code in CODES else f"HTTP {status}"
    if status == 404:
        words += ": base_url of [agile.api] may be wrong"
    return Verdict(Fate.REFUSED, words, code, pauses=code in PAUSING_CODES)


def _unknown(words: str, code: int | None = None) -> Verdict:
    return Verdict(Fate.UNKNOWN, f"{words}; it may have been sent", code)


def _code(answer: Any) -> int | None:
    """Return the code of an error as Agile writes them: status fail or error, and a code."""
    if not isinstance(answer, dict) or answer.get("status") not in {"fail", "error"}:
        return None
    code = answer.get("code")
    return code if _is_count(code) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _retry_after(written: str | None, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), at most five minutes."""
    if not written:
        return None
    if re.fullmatch(r"[0-9]{1,9}", written.strip()):
        return min(float(written), _LONGEST_PAUSE)
    try:
        until = parsedate_to_datetime(written)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), _LONGEST_PAUSE)
