"""What leaves for a watcher by HTTP; no fault names the address, which is a secret."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final

from ingestor.errors import ConfigurationError, IngestorError

SECONDS: Final = 10.0
_NONE: Final[Mapping[str, str]] = {}


class NotSent(IngestorError):
    """Nobody heard it; `retry` says whether that may pass."""


def post(url: str, body: bytes, headers: Mapping[str, str] = _NONE, *, seconds: float = SECONDS) -> None:
    """POST `body` to `url`; `seconds` is for each wait. Raises NotSent, without the URL."""
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError("the URL to call must begin with https:// or http://")
    request = urllib.request.Request(  # noqa: S310 - looked at above
        url, body, {"User-Agent": "ingestor", "Content-Type": "text/plain; charset=utf-8", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 - looked at above
            answer.read(1024)
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise NotSent(f"it was answered with {refusal.code}") from None
    except (OSError, HTTPException, ValueError) as fault:
        reason = getattr(fault, "reason", fault)
        raise NotSent(f"it could not be sent ({type(reason).__name__})") from None
