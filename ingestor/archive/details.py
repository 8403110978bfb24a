"""The column `details`: whatever a provider says beside the columns, as JSON."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_MOST_KNOWN = 1000

# Shared: an encoder a call is slower than the encoding.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_known: dict[int, tuple[Mapping[str, Any], str]] = {}


def details_json(details: Mapping[str, Any]) -> str:
    """Return `details` as JSON. Raises TypeError or ValueError where they cannot be written so.

    Readers share read-only mappings between the many SMS that say the same: such a one is encoded once, and
    known again by its identity, because encoding takes longer than reading the SMS's time and numbers.
    """
    if not details:
        return "{}"
    known = _known.get(id(details))
    if known is not None and known[0] is details:
        return known[1]
    text = _encode(dict(details))
    if type(details) is MappingProxyType and len(_known) < _MOST_KNOWN:
        _known[id(details)] = details, text  # kept: its identity is nobody else's while it lives
    return text
