"""Makes items of mails, in a worker process: parsed, hashed and compressed, in a form that travels cheaply.

A row is a tuple of plain values: pickling the frozen dataclasses of an item costs more than parsing it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from ingestor.archive.entries import Item, Payload, Position, mail_content_key
from ingestor.archive.payloads import pack
from ingestor.intake.files.mbox import Dialect, Gap, split, unquoted
from ingestor.numbers import OriginatorKind
from ingestor.providers import mail_reader
from ingestor.providers.contract import NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import Channel, InboundSms
from ingestor.timestamps import TimeQuality

Row = tuple[Any, ...]

SKIP_BITS = 11
"""Enough for the longest separator line."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which SMS are wanted, by the first eight of their 14 digits (the provider's clock): `since` and
    `until` are such days, both included, '' for no bound."""

    since: str = ""
    until: str = ""

    def __contains__(self, sms: object) -> bool:
        day = sms.date_time[:8] if isinstance(sms, InboundSms) else ""
        return day >= self.since and (not self.until or day <= self.until)


@dataclass(slots=True)
class Batch:
    """What a stretch of input came to; `senders` counts ignored mails, only where that was asked for."""

    rows: list[Row] = field(default_factory=list)
    ignored: int = 0
    mails: int = 0
    mail_bytes: int = 0
    separators: int = 0
    gaps: list[tuple[int, int, str]] = field(default_factory=list)
    senders: dict[str, int] = field(default_factory=dict)

    def answer(self) -> tuple[Any, ...]:
        """Return everything as plain values, to be sent to the parent."""
        return (
            self.rows, self.ignored, self.mails, self.mail_bytes, self.separators, self.gaps, self.senders,
        )  # fmt: skip


class Reader:
    """Reads mails with every provider's reader in turn."""

    def __init__(self, rules: Sequence[tuple[str, Rules]], window: Window, *, count_senders: bool) -> None:
        self._lanes: list[tuple[ModuleType, Rules]] = [(mail_reader(name), rule) for name, rule in rules]
        self._window = window
        self._count_senders = count_senders

    def wanted(self, header: bytes) -> bool:
        """Say from a header whether the mail is ours."""
        return any(module.may_be_ours(header, rules) for module, rules in self._lanes)

    def oversized(self, header: bytes, size: int, kept: int) -> Unreadable:
        """Return the verdict on a mail of ours that is too long to be parsed."""
        for module, rules in self._lanes:
            if module.may_be_ours(header, rules):
                verdict: Unreadable = module.oversized(header, size, kept, rules)
                return verdict
        raise ValueError("this mail is nobody's")

    def read_mbox(self, data: bytes, dialect: Dialect) -> Batch:
        """Read a block of whole mails."""
        parts = split(data, dialect)
        batch = Batch(separators=parts.separators, gaps=[_plain(gap) for gap in parts.gaps])
        for start, end, verbatim in parts.mails:
            mail = unquoted(data[start:end], dialect, verbatim=verbatim)
            self._add(batch, mail, start, end - start)
        return batch

    def read_mails(self, data: memoryview, mails: Iterable[tuple[int, int, int]]) -> Batch:
        """Read mails that stand side by side: (number, start, end).

        The place in a row is the number and, in its low bits, how much was left out before the mail.
        """
        batch = Batch()
        for number, start, end in mails:
            mail = bytes(data[start:end])
            skipped = leading_separator(mail)
            batch.separators += skipped
            self._add(batch, mail[skipped:], number << SKIP_BITS | skipped, end - start - skipped)
        return batch

    def _add(self, batch: Batch, mail: bytes, place: int, length: int) -> None:
        batch.mails += 1
        batch.mail_bytes += length
        reading = self._read(mail)
        if isinstance(reading, NotOurs):
            batch.ignored += 1
            if self._count_senders:
                sender = reading.sender or ""
                batch.senders[sender] = batch.senders.get(sender, 0) + 1
        elif isinstance(reading, Readable) and reading.sms not in self._window:
            batch.ignored += 1
        else:
            batch.rows.append(row(reading, pack(mail), mail_content_key(mail), place, length))

    def _read(self, mail: bytes) -> Reading:
        reading: Reading = NotOurs()
        for module, rules in self._lanes:
            reading = module.read_mail(mail, rules)
            if not isinstance(reading, NotOurs):
                break
        return reading


def leading_separator(mail: bytes) -> int:
    """Return the length of the `From ` line that some programs write into single mails, 0 without one."""
    from ingestor.intake.files.separators import separator_end

    return separator_end(mail, 0, len(mail)) if mail.startswith(b"From ") else 0


def _plain(gap: Gap) -> tuple[int, int, str]:
    return gap.offset, gap.length, gap.reason


def row(reading: Readable | Unreadable, payload: Payload, content_key: bytes, place: int, length: int) -> Row:
    """Return an item as plain values; `place` and `length` are where its bytes stood."""
    if isinstance(reading, Unreadable):
        sms = None
        reason: str | None = reading.reason
    else:
        found = reading.sms
        reason = None
        sms = (
            found.provider, found.originator, found.originator_kind.value, found.originator_raw,
            found.destination, found.destination_raw, found.date_time, found.received_at.timestamp(),
            found.time_quality.value, found.text, found.keyword, found.clean_text,
            found.provider_message_id, found.segments, _simple(found.details),
        )  # fmt: skip
    return (
        place, length, payload.size, payload.sha256, payload.compressed, payload.dictionary_id, content_key,
        reading.parser, reading.message_id, reading.subject, reason, sms,
    )  # fmt: skip


def _simple(value: Any) -> Any:
    """Return JSON-like `value` in exactly the types that `marshal` takes."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [_simple(part) for part in value]
    if value is None or type(value) in {int, float, bool}:
        return value
    return {str(key): _simple(part) for key, part in value.items()}


_KINDS = {kind.value: kind for kind in OriginatorKind}
_QUALITIES = {quality.value: quality for quality in TimeQuality}


def item(found: Row, position: Position, source: str, now: datetime) -> Item:
    """Return the item that `row` took apart."""
    (
        _, _, size, sha256, compressed, dictionary_id, content_key, parser, message_id, subject, reason, sms,
    ) = found  # fmt: skip
    reading: Readable | Unreadable
    if sms is None:
        reading = Unreadable(reason, parser, message_id, subject)
    else:
        reading = Readable(_sms(sms), parser, message_id, subject)
    return Item(
        reading=reading,
        channel=Channel.IMPORT,
        source=source,
        content_key=content_key,
        arrived_at=now,
        payload=Payload(None, size, sha256, None, compressed, dictionary_id),
        position=position,
    )


def _sms(values: Row) -> InboundSms:
    (
        provider, originator, kind, originator_raw, destination, destination_raw, date_time, received_at,
        quality, text, keyword, clean_text, message_id, segments, details,
    ) = values  # fmt: skip
    return InboundSms(
        provider=provider,
        originator=originator,
        originator_kind=_KINDS[kind],
        originator_raw=originator_raw,
        destination=destination,
        destination_raw=destination_raw,
        date_time=date_time,
        received_at=datetime.fromtimestamp(received_at, UTC),
        time_quality=_QUALITIES[quality],
        text=text,
        keyword=keyword,
        clean_text=clean_text,
        provider_message_id=message_id,
        segments=segments,
        details=details,
    )
