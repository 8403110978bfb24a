"""The corpus of Agile mails on disk, and both lanes as one question."""

from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

from ingestor.providers import mail_reader
from ingestor.providers.contract import NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.timestamps import iso_utc

READER = mail_reader("agile")
RULES = Rules(zone=ZoneInfo("Europe/Rome"), numbers=frozenset({"+393331234333", "+393331234334"}))
SAMPLES = Path(READER.__file__ or "").parent / "samples"
ODD = Path(__file__).parent / "odd"
MAILS = sorted([*SAMPLES.glob("*.eml"), *ODD.glob("*.eml")])

HEADER = b"From: smsin@agiletelecom.com\r\nSubject: Agile Telecom -- SMS received\r\n"
BLOCK = b"From: +393351234567\r\nTo: +393331234333\r\nDate/Time: 20260514102301\r\nBody: News ON\r\n"


def read_both(raw: bytes, rules: Rules = RULES) -> Reading:
    """Return the reading of `raw`, having seen that the slow lane comes to the same."""
    reading = READER.read_mail(raw, rules)
    assert isinstance(reading, Readable | Unreadable | NotOurs)
    assert reading == read_slowly(raw, rules)
    return reading


def read_slowly(raw: bytes, rules: Rules = RULES) -> Reading:
    """Return the reading of `raw` by the slow lane alone."""
    with mock.patch.object(READER, "fast_part", return_value=None):
        reading: Reading = READER.read_mail(raw, rules)
    return reading


def as_expected(reading: Reading) -> dict[str, Any]:
    """Return `reading` in the shape of the JSON files beside the mails."""
    if isinstance(reading, NotOurs):
        return {"reading": "not_ours", "sender": reading.sender}
    if isinstance(reading, Unreadable):
        return {"reading": "unreadable", "reason": reading.reason}
    sms = reading.sms
    record = {
        name: getattr(sms, name)
        for name in (
            "originator", "originator_kind", "originator_raw", "destination", "destination_raw", "date_time",
            "time_quality", "text",
        )
    }  # fmt: skip
    record |= {"received_at": iso_utc(sms.received_at), "details": dict(sms.details)}
    return {"reading": "readable", "record": record}
