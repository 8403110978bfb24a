"""What the archive knows already, for a run that must not write: a look-up, never a judge of duplicates."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingestor.archive.entries import Item
from ingestor.archive.inserts import inserts_for
from ingestor.archive.keys import keyed, unique_key
from ingestor.record import InboundSms


def known_sms(connection: Connection, secret: bytes, messages: Sequence[InboundSms]) -> list[int | None]:
    """Return the id of each SMS that is in the archive, None for those that are not.

    `secret` is `Store.archive_key()`; `connection` one of `engine.reading`.
    """
    unique = [unique_key(sms, secret) for sms in messages]
    found = inserts_for(connection).sms_by_fingerprint(unique) if unique else {}
    return [found.get(value) for value in unique]


def known_arrivals(connection: Connection, secret: bytes, items: Sequence[Item]) -> list[bool | None]:
    """Return for each item whether its arrival has been read; None where it never arrived."""
    keys = [keyed(item.content_key, secret) for item in items]
    found = inserts_for(connection).arrivals_by_key(keys) if keys else {}
    known = (found.get((key, item.number, str(item.channel))) for key, item in zip(keys, items, strict=True))
    return [entry[1] if entry else None for entry in known]
