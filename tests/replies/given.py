"""A person who writes to us, and SMS of hers in an archive."""

from datetime import UTC, datetime

from sqlalchemy import Connection

from ingestor.archive import tables

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
