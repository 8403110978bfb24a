"""A person who writes to us, and SMS of hers in an archive."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from ingestor.archive import tables
from ingestor.archive.engine import reading
from ingestor.archive.items import Item
from ingestor.providers.contract import Readable
from tests.archive.samples import PARSER, item, sms

SHE = "+393351234567"
OURS, OTHER = "+393331234333", "+393331234334"
TEN = datetime(2026, 5, 14, 10, tzinfo=UTC)


def store(connection: Connection, number: int, words: str, at: datetime, ours: str) -> None:
    """Store one SMS of hers as the archive does, without the arrival that brought it."""
    salted = {"salt": bytes(32)} if "salt" in tables.sms_content.c else {}
    connection.execute(
        tables.sms.insert(),
        {
            "id": number, "fingerprint": number.to_bytes(38, "big"), "fingerprint_version": 1,
            "provider": "agile", "originator_kind": "msisdn", "destination": ours,
            "date_time": "20260514100000", "received_at": at, "time_quality": "ok", "ingested_at": at,
        },
    )  # fmt: skip
    connection.execute(
        tables.sms_content.insert(),
        {
            "sms_id": number, "originator": SHE, "originator_raw": SHE, "destination_raw": ours,
            "text": words, "details": "{}", **salted,
        },
    )  # fmt: skip


def said(number: int, words: str, *, minutes: int = 0, by: str = SHE, **changed: Any) -> Item:
    """Return SMS `number`, hers unless told otherwise, as an intake hands it over, sent minutes after ten."""
    at = TEN + timedelta(minutes=minutes or number)
    one = sms(
        number, originator=by, originator_raw=by, text=words, received_at=at, date_time=f"{at:%Y%m%d%H%M%S}"
    )
    return item(number, reading=Readable(one, PARSER, f"<{number}@example.org>", "SMS"), **changed)


def view(engine: Engine, name: str, columns: str) -> list[tuple[Any, ...]]:
    """Return rows of a view of opt-outs, the first event first."""
    order = "event_id" if name == "opt_outs" else "at, id"
    with reading(engine) as connection:
        return [
            tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {name} ORDER BY {order}"))
        ]
