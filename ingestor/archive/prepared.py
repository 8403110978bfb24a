"""Items that a worker process has made ready for the database, as plain values that travel cheaply.

An item of frozen dataclasses costs more to pickle and to take apart than its mail to parse; here the keys
are computed and the columns lie in their order before the one writer sees them. Nothing in here imports the
database library: workers stay small.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ingestor.archive.entries import InputProgress, Item, Payload, Position, Submission
from ingestor.archive.keys import keyed
from ingestor.numbers import OriginatorKind
from ingestor.providers.contract import Readable, Unreadable
from ingestor.record import FINGERPRINT_VERSION, Channel, InboundSms, fingerprint
from ingestor.timestamps import TimeQuality, iso_utc

Row = tuple[Any, ...]
"""(place, length, key, content key, size, sha256, dictionary id, compressed, parser, Message-ID, subject,
reason, sms, content): `place` is for whoever made it, `sms` and `content` are None where it is unreadable."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Where:
    """Place and length of an item's bytes in an input file."""

    input: str
    member: str | None
    offset: int


@dataclass(slots=True)
class PreparedSubmission:
    """What becomes durable together, as `entries.Submission` with prepared rows of one source."""

    run_id: int | None
    source: str = ""
    rows: Sequence[Row] = ()
    places: Sequence[Where] = ()
    ignored: int = 0
    failed: int = 0
    progress: tuple[InputProgress, ...] = ()
    compressed_bytes: int = field(default=0)

    def books(self) -> Submission:
        """Return the submission without its items."""
        return Submission(self.run_id, (), self.ignored, self.failed, progress=self.progress)

    def whole(self, now: datetime) -> Submission:
        """Return the submission with items put together again, that arrive `now` (aware UTC)."""
        items = tuple(
            _item(row, place, self.source, now) for row, place in zip(self.rows, self.places, strict=True)
        )
        return Submission(self.run_id, items, self.ignored, self.failed, progress=self.progress)


def prepare(
    reading: Readable | Unreadable,
    payload: Payload,
    content_key: bytes,
    secret: bytes,
    place: int,
    length: int,
) -> Row:
    """Return a packed mail as a row; `secret` is the archive's key.

    What cannot be written down (it never came out of a reader yet) becomes unreadable.
    """
    reason: str | None = None
    sms: Row | None = None
    content: Row | None = None
    if isinstance(reading, Readable):
        found = reading.sms
        try:
            sms = _sms_columns(found, fingerprint(found, secret))
            content = (
                found.originator, found.originator_raw, found.destination_raw, found.text, found.keyword,
                found.clean_text, _encode(found.details) if found.details else "{}",
            )  # fmt: skip
        except (UnicodeError, OverflowError, TypeError, ValueError) as error:
            sms, reason = None, f"the record cannot be written down: {type(error).__name__}"
    else:
        reason = reading.reason
    return (
        place, length, keyed(content_key, secret), content_key, payload.size, payload.sha256,
        payload.dictionary_id, payload.compressed, reading.parser, reading.message_id, reading.subject,
        reason, sms, content,
    )  # fmt: skip


def _sms_columns(sms: InboundSms, unique: bytes) -> Row:
    """Return the columns of `sms` between the id and `ingested_at`."""
    return (
        unique, FINGERPRINT_VERSION, sms.provider, sms.originator_kind.value, sms.destination, sms.date_time,
        iso_utc(sms.received_at), sms.time_quality.value, sms.provider_message_id, sms.segments,
    )  # fmt: skip


def _item(row: Row, where: Where, source: str, now: datetime) -> Item:
    (
        _, length, _, content_key, size, sha256, dictionary_id, compressed, parser, message_id, subject,
        reason, sms, content,
    ) = row  # fmt: skip
    reading: Readable | Unreadable
    if sms is None:
        reading = Unreadable(reason, parser, message_id, subject)
    else:
        reading = Readable(_record(sms, content), parser, message_id, subject)
    return Item(
        reading=reading,
        channel=Channel.IMPORT,
        source=source,
        content_key=content_key,
        arrived_at=now,
        payload=Payload(None, size, sha256, None, compressed, dictionary_id),
        position=Position(input=where.input, member=where.member, offset=where.offset, length=length),
    )


def _record(sms: Row, content: Row) -> InboundSms:
    _, _, provider, kind, destination, date_time, received_at, quality, message_id, segments = sms
    originator, originator_raw, destination_raw, text, keyword, clean_text, details = content
    return InboundSms(
        provider=provider,
        originator=originator,
        originator_kind=OriginatorKind(kind),
        originator_raw=originator_raw,
        destination=destination,
        destination_raw=destination_raw,
        date_time=date_time,
        received_at=datetime.fromisoformat(received_at),
        time_quality=TimeQuality(quality),
        text=text,
        keyword=keyword,
        clean_text=clean_text,
        provider_message_id=message_id,
        segments=segments,
        details=json.loads(details),
    )
