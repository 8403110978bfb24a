"""Whose mail is it? Decided from From and Subject alone, before anything else is looked at."""

import re
from functools import lru_cache
from typing import NamedTuple

from ingestor.providers.agile.addresses import addresses_of
from ingestor.providers.agile.encoded_words import decode_header
from ingestor.providers.agile.header import Header

_SUBJECT = re.compile(r"Agile Telecom ?(?:--?|\N{EN DASH}|\N{EM DASH}) ?SMS received")
_LONGEST_FROM = 65536  # beyond it there is no telling who the sender is
_CACHED_LENGTH = 1000  # nobody fills the caches with megabytes


class Envelope(NamedTuple):
    """`ours`, and the one From address where there is exactly one."""

    ours: bool
    sender: str | None


def read_envelope(header: Header, sender: str) -> Envelope:
    """Say whether a mail with this `header` comes from `sender` (one address, lower case) and is an SMS.

    Ours has exactly one From address over all From fields, equal to `sender`, and the subject `Agile
    Telecom -- SMS received`, decoded and unfolded, with a hyphen, two, an en dash or an em dash.
    """
    value = header.only(b"from")
    if value is not None and len(value) <= _CACHED_LENGTH:
        found = _one_address(value)
    else:
        found = _one_address.__wrapped__(*header.values_of(b"from"))
    if found is None or found.lower() != sender:
        return Envelope(False, found)
    subject = header.first.get(b"subject")
    return Envelope(subject is not None and is_sms_subject(subject), found)


def is_sms_subject(value: bytes) -> bool:
    """Say whether the raw Subject `value` is that of an SMS."""
    return len(value) <= _CACHED_LENGTH and _decides(value)


@lru_cache(maxsize=512)
def _decides(value: bytes) -> bool:
    return _SUBJECT.fullmatch(" ".join(decode_header(value).split())) is not None


@lru_cache(maxsize=2048)
def _one_address(*values: bytes) -> str | None:
    found: list[str] = []
    if sum(map(len, values)) > _LONGEST_FROM:
        return None
    for value in values:
        found += addresses_of(value.decode("latin-1"))
    return found[0] if len(found) == 1 and found[0].isprintable() else None
