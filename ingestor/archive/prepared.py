"""Items that a worker process has made ready for the database, as plain values that travel cheaply.

An item of frozen dataclasses costs more to pickle and to take apart than its mail to parse; here the keys
are computed and the columns lie in their order before the one writer sees them. Nothing in here imports the
database library: workers stay small.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import zstandard

from ingestor.archive.details import details_json
from ingestor.archive.entries import (
    InputProgress,
    Item,
    Payload,
    Position,
    Submission,
    mail_content_key,
    mail_day,
)
from ingestor.archive.keys import keyed, unique_key
from ingestor.archive.payloads import LEVEL
from ingestor.numbers import OriginatorKind
from ingestor.providers.contract import Readable, Unreadable
from ingestor.record import FINGERPRINT_VERSION, Channel, InboundSms
from ingestor.timestamps import TimeQuality, iso_utc

Row = tuple[Any, ...]
"""(place, length, key, content key, size, sha256, dictionary id, compressed, parser, Message-ID, subject,
reason, sms, content): `place` is for whoever made it. `sms` (the columns between the id and `ingested_at`)
and `content` are None where it is unreadable."""


Where = tuple[str, str | None, int]
"""Input file, member of it, and offset of an item's bytes."""


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
    look_alikes: Mapping[str, int] = field(default_factory=dict)

    def books(self) -> Submission:
        """Return the submission without its items."""
        return Submission(
            self.run_id, (), self.ignored, self.failed, progress=self.progress,
            look_alikes=tuple((self.source, *one) for one in self.look_alikes.items()),
        )  # fmt: skip

    def whole(self, now: datetime) -> Submission:
        """Return the submission with items put together again, that arrive `now` (aware UTC)."""
        items = tuple(
            _item(row, place, self.source, now) for row, place in zip(self.rows, self.places, strict=True)
        )
        return replace(self.books(), items=items)


class RowMaker:
    """Makes rows of mails for one archive: keyed with its secret, packed with its dictionary."""

    def __init__(self, secret: bytes, dictionary: tuple[int, bytes] | None = None) -> None:
        """`dictionary` is its number and bytes; None packs without."""
        self._secret = secret
        self._number = dictionary[0] if dictionary else None
        given = zstandard.ZstdCompressionDict(dictionary[1]) if dictionary else None
        self._compress = zstandard.ZstdCompressor(level=LEVEL, dict_data=given).compress

    def row(self, reading: Readable | Unreadable, raw: bytes, place: int, length: int) -> Row:
        """Return the row of a whole mail, whose bytes stand at `place` and take `length` there."""
        content_key, sha256 = _digests(raw)
        return self._row(reading, raw, len(raw), content_key, sha256, place, length)

    def row_of_long_mail(
        self, reading: Unreadable, kept: bytes | bytearray, size: int, content_key: bytes
    ) -> Row:
        """Return the row of a mail of `size` bytes, of which `kept` is all or the beginning."""
        return self._row(reading, kept, size, content_key, hashlib.sha256(kept).digest(), 0, size)

    def _row(
        self, reading: Readable | Unreadable, raw: bytes | bytearray, size: int, content_key: bytes,
        sha256: bytes, place: int, length: int,
    ) -> Row:  # fmt: skip
        reason: str | None = None
        sms: Row | None = None
        content: Row | None = None
        secret = self._secret
        if isinstance(reading, Readable):
            found = reading.sms
            try:
                sms = (
                    unique_key(found, secret), FINGERPRINT_VERSION, found.provider,
                    str(found.originator_kind), found.destination, found.date_time,
                    iso_utc(found.received_at), str(found.time_quality), found.provider_message_id,
                    found.segments,
                )  # fmt: skip
                content = (
                    found.originator, found.originator_raw, found.destination_raw, found.text, found.keyword,
                    found.clean_text, details_json(found.details),
                )  # fmt: skip
            except (UnicodeError, OverflowError, TypeError, ValueError) as error:
                # No reader gave such a record yet; the writer would refuse it in the same way.
                sms, reason = None, f"the record cannot be written down: {type(error).__name__}"
        else:
            reason = reading.reason
        return (
            place, length, keyed(content_key, secret), content_key, size, sha256, self._number,
            self._compress(raw), reading.parser, reading.message_id, reading.subject, reason, sms, content,
        )  # fmt: skip


def _digests(raw: bytes) -> tuple[bytes, bytes]:
    """Return the content key of a mail and the SHA-256 of its bytes; without CRs one pass gives both."""
    if b"\r" in raw:
        return mail_content_key(raw), hashlib.sha256(raw).digest()
    body = raw.rstrip(b"\n")
    digest = hashlib.sha256(body)
    content_key = mail_day(raw) + digest.digest()
    digest.update(raw[len(body) :])
    return content_key, digest.digest()


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
        position=Position(input=where[0], member=where[1], offset=where[2], length=length),
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
