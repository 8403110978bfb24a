"""Text made fit for a log (by value, so no caller can forget a secret), a person's terminal, a database."""

import os
import re
from collections.abc import Sequence
from urllib.parse import quote

HIDDEN = "***"

_SHORTEST = 4  # hiding every "a" because somebody's password is "a" would hide the whole log
_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None

# With + or 00 seven digits make a number; bare ones need eleven, or every UIDVALIDITY would count as one.
_NUMBER = re.compile(
    r"(?<![\w.+-])(?:\+[1-9](?:[ \u00a0]?[0-9]){2,10}?[ \u00a0]?|00[1-9][0-9]{2,10}|[1-9][0-9]{6,10})"
    r"([0-9]{4})(?![\w-])"
)

# PostgreSQL repeats the row ("Failing row contains (…)") and SQLAlchemy the parameters: both are the message.
_DRIVER_DETAIL = re.compile(r"(?m)^[ \t]*(?:DETAIL:|CONTEXT:|\[parameters: ).*(?:\n|\Z)")


def register_secret(value: str) -> None:
    """Remember `value`, so that no log line of this process ever shows it (nor its URL-quoted form)."""
    if len(value) < _SHORTEST or value in _secrets:
        return
    _secrets.update({value, quote(value, safe="")})
    _compile()


def forget_secret(value: str) -> None:
    """Forget `value`, which is good for nothing any more: a daemon sees thousands of access tokens a year."""
    _secrets.difference_update({value, quote(value, safe="")})
    _compile()


def _compile() -> None:
    global _pattern  # noqa: PLW0603 - one process has one set of secrets
    longest_first = sorted(_secrets, key=len, reverse=True)
    _pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def redact_secrets(text: str) -> str:
    """Return `text` with every registered secret replaced by three stars."""
    return _pattern.sub(HIDDEN, text) if _pattern else text


def redact(text: str) -> str:
    """Return `text` as a log may show it: no secret, no row contents, of a phone number the last four."""
    if "DETAIL:" in text or "CONTEXT:" in text or "[parameters: " in text:
        text = _DRIVER_DETAIL.sub("", text)
    return _NUMBER.sub(r"…\1", redact_secrets(text))


TURNING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
"""Marks that turn the direction of what follows, and so what a line seems to say; line ends of Unicode."""

_ESCAPES = {character: f"\\x{character:02x}" for character in (*range(32), *range(127, 160))}
_ESCAPES |= {9: "\\t", 10: "\\n", 13: "\\r"}
_ESCAPES |= {character: f"\\u{character:04x}" for character in TURNING}
_ESCAPES |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)}  # how Python shows what is no UTF-8


def one_line(text: str) -> str:
    """Return `text` as one line that a terminal shows and does not obey: what would move the cursor, turn the
    direction or end the line is written as an escape. An SMS, a subject and a file's name may hold all of it.
    """
    return text.translate(_ESCAPES)


def as_text(name: str) -> str:
    """Return a file's name as text that a database takes: bytes that are no UTF-8 become `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def some_of(words: Sequence[object], most: int = 20) -> str:
    """Return the first `most` of `words` in a line, and how many more there are."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more
