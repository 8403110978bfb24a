"""Secrets known to this process, and text made fit for a log: by value, so no caller can forget one."""

import re
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
    global _pattern  # noqa: PLW0603 - one process has one set of secrets
    if len(value) < _SHORTEST or value in _secrets:
        return
    _secrets.update({value, quote(value, safe="")})
    _pattern = re.compile("|".join(re.escape(secret) for secret in sorted(_secrets, key=len, reverse=True)))


def redact_secrets(text: str) -> str:
    """Return `text` with every registered secret replaced by three stars."""
    return _pattern.sub(HIDDEN, text) if _pattern else text


def redact(text: str) -> str:
    """Return `text` as a log may show it: no secret, no row contents, of a phone number the last four."""
    if "DETAIL:" in text or "CONTEXT:" in text or "[parameters: " in text:
        text = _DRIVER_DETAIL.sub("", text)
    return _NUMBER.sub(r"…\1", redact_secrets(text))
