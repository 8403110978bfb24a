"""Items for the archive's tests, made without any parser."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from ingestor.archive.items import Item, Payload, Position
from ingestor.archive.payloads import pack
from ingestor.numbers import OriginatorKind
from ingestor.providers.contract import Readable, Unreadable
from ingestor.record import Channel, InboundSms
from ingestor.timestamps import TimeQuality

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
PARSER = "agile.mail/1"


def sms(number: int = 1, **changed: Any) -> InboundSms:
    """Return SMS `number`: every number is another one."""
    values: dict[str, Any] = {
        "provider": "agile",
        "originator": f"+39333{number:07}",
        "originator_kind": OriginatorKind.MSISDN,
        "originator_raw": f"39333{number:07}",
        "destination": "+393331234333",
        "destination_raw": "+39 333 1234333",
        "date_time": "20260301130000",
        "received_at": NOW.replace(microsecond=0) + timedelta(seconds=number),
        "time_quality": TimeQuality.OK,
        "text": f"text of {number} è €",
    }
    return InboundSms(**(values | changed))


def payload(raw: bytes, content_type: str | None = None) -> Payload:
    """Return `raw` as an intake hands it over."""
    return pack(raw, content_type)


def item(number: int = 1, *, copy: int = 0, channel: Channel = Channel.IMPORT, **changed: Any) -> Item:
    """Return an item with SMS `number`; another `copy` is the same SMS in another mail."""
    raw = changed.pop("raw", f"Subject: mail {number} copy {copy}\n\ntext of {number}\n".encode())
    values: dict[str, Any] = {
        "reading": Readable(
            sms(number), PARSER, f"<{number}.{copy}@example.org>", "Agile Telecom -- SMS received"
        ),
        "channel": channel,
        "source": "main" if channel is Channel.MAILBOX else "old.mbox",
        "content_key": hashlib.sha256(raw).digest(),
        "arrived_at": NOW - timedelta(hours=1),
        "payload": payload(raw),
        "position": Position(folder="INBOX", uidvalidity=7, uid=number)
        if channel is Channel.MAILBOX
        else Position(input="/mail/old.mbox", offset=number * 100, length=len(raw)),
    }
    return Item(**(values | changed))


def broken(number: int = 1, reason: str = "the label To is missing", **changed: Any) -> Item:
    """Return an item of ours that cannot be read."""
    changed.setdefault(
        "reading", Unreadable(reason, PARSER, f"<{number}.0@example.org>", "Agile Telecom -- SMS received")
    )
    return item(number, **changed)
