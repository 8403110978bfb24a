"""What one transaction does with its items: the rows they become, and the outcome of each.

The unique keys are the only judges: everything is inserted first, and only what did not go in is looked
up afterwards, in the same transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ingestor.archive.details import details_json
from ingestor.archive.entries import Item
from ingestor.archive.faults import DATA_ERRORS, refused
from ingestor.archive.inserts import Inserts, sms_by_content_key
from ingestor.archive.keys import keyed, unique_key
from ingestor.archive.payloads import compress
from ingestor.archive.targets import ARRIVALS, CONTENT, PAYLOADS, RETRIES, SMS, Row
from ingestor.providers.contract import Readable, Unreadable
from ingestor.record import FINGERPRINT_VERSION, Channel, InboundSms, Outcome

REFUSED = "the database refused it"
"""How the reason of an item begins that the tables did not take."""

_MOST_SEGMENTS = 2**31 - 1
_STORED, _DUPLICATE, _QUARANTINED = Outcome.STORED, Outcome.DUPLICATE, Outcome.QUARANTINED


class ReadBefore(Exception):
    """Items whose bytes had been read before today's parser made a different SMS of them.

    Their SMS must not stay; the transaction is done again, and they stay with `sms`: its id by index, None
    where their arrival is there already.
    """

    def __init__(self, sms: Mapping[int, int | None]) -> None:
        super().__init__()
        self.sms = sms


@dataclass(slots=True)
class Batch:
    """Items made ready before the transaction begins, in parallel lists.

    `fingerprints` is None and `details` empty where an item cannot be read; `keys` are content keys under
    the archive's key: a plain hash of a mail would let its text be guessed once the mail is erased.
    """

    items: list[Item] = field(default_factory=list)
    run_ids: list[int | None] = field(default_factory=list)
    fingerprints: list[bytes | None] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    packed: list[bytes | None] = field(default_factory=list)
    again: bool = False
    """Whether a verdict that changes nothing is written down too."""

    def add(self, item: Item, run_id: int | None, secret: bytes, key: bytes | None = None) -> None:
        """Make `item` ready; one that cannot be written down becomes unreadable, with the reason.

        `key` is given where the item stands in the archive already, under that key.
        """
        reading = item.reading
        unique: bytes | None = None
        details = ""
        if isinstance(reading, Readable):
            sms = reading.sms
            try:
                if "\0" in sms.text or "\0" in sms.originator_raw or "\0" in sms.destination_raw:
                    raise ValueError  # SQLite would take a NUL, PostgreSQL would not: both refuse
                if sms.segments is not None and not 0 <= sms.segments <= _MOST_SEGMENTS:
                    raise OverflowError  # likewise
                unique = unique_key(sms, secret)
                details = details_json(sms.details)
            except DATA_ERRORS as error:
                item = unreadable(item, refused(error))
        payload = item.payload
        self.items.append(item)
        self.run_ids.append(run_id)
        self.fingerprints.append(unique)
        self.details.append(details)
        self.keys.append(key or keyed(item.content_key, secret))
        if payload is None:
            self.packed.append(None)
        elif payload.compressed is not None:
            self.packed.append(payload.compressed)
        else:
            self.packed.append(compress(payload.raw or b""))


def unreadable(item: Item, why: str) -> Item:
    """Return `item` as one for the quarantine, because the database takes it in no other form."""
    return Item(
        reading=Unreadable(f"{REFUSED}: {why}", item.reading.parser),
        channel=item.channel,
        source=item.source,
        content_key=item.content_key,
        arrived_at=item.arrived_at,
        payload=item.payload,
        position=item.position,
        number=item.number,
        peer=item.peer,
        sender_verified=item.sender_verified,
    )


def settle(
    inserts: Inserts, batch: Batch, now: datetime, instant: Callable[[datetime], Any],
    read: Mapping[int, int | None],
) -> list[Outcome]:  # fmt: skip
    """Insert `batch` in the transaction of `inserts`; return each item's outcome.

    `instant` writes a time as the database takes it. The items in `read` are known to have been read
    before: see ReadBefore, which is raised where more of them turn up.
    """
    written = instant(now)
    fresh = [i for i in range(len(batch.items)) if read.get(i, i) is not None]
    readable = [i for i in fresh if batch.fingerprints[i] is not None and i not in read]
    new_ids, ids = inserts.reserve((SMS, len(readable)), (ARRIVALS, len(fresh)))
    sms_ids, own = _insert_sms(inserts, batch, dict(zip(readable, new_ids, strict=True)), written, instant)
    for i, sms_id in (*_read_before(inserts, batch, sms_ids, own).items(), *read.items()):
        sms_ids[i] = sms_id
    outcomes = [
        _STORED if i in own else _QUARANTINED if sms_id is None and i not in read else _DUPLICATE
        for i, sms_id in enumerate(sms_ids)
    ]
    arrival_ids = dict(zip(fresh, ids, strict=True))
    new = _insert_arrivals(inserts, batch, arrival_ids, sms_ids, outcomes, written, instant)
    if new is not None:
        repeated = [i for i, number in arrival_ids.items() if number not in new]
        _settle_repeated(inserts, batch, repeated, sms_ids, own, outcomes, written)
    inserts.insert(CONTENT, [_content_row(own[i], batch, i) for i in own])
    inserts.insert(PAYLOADS, [
        row for i, number in arrival_ids.items()
        if (new is None or number in new) and (row := _payload_row(number, batch, i)) is not None
    ])  # fmt: skip
    return outcomes


def _insert_sms(
    inserts: Inserts, batch: Batch, ids: Mapping[int, int], written: Any, instant: Callable[[datetime], Any]
) -> tuple[list[int | None], Mapping[int, int]]:
    """Return each item's SMS id, and which items' SMS is new (by index); `ids` are for the readable ones."""
    sms_ids: list[int | None] = [None] * len(batch.items)
    unique = batch.fingerprints
    items = batch.items
    rows = [
        _sms_row(number, unique[i], items[i].reading.sms, written, instant)  # type: ignore[union-attr]  # readable ones only
        for i, number in ids.items()
    ]
    new = inserts.insert(SMS, rows)
    if new is None:
        for i, number in ids.items():
            sms_ids[i] = number
        return sms_ids, ids
    own = {i: number for i, number in ids.items() if number in new}
    others = [i for i in ids if i not in own]
    found = inserts.sms_by_fingerprint([unique[i] for i in others])  # type: ignore[misc]  # readable ones only
    for i, number in own.items():
        sms_ids[i] = number
    for i in others:
        sms_ids[i] = found[unique[i]]  # type: ignore[index]  # readable ones only
    return sms_ids, own


def _read_before(
    inserts: Inserts, batch: Batch, sms_ids: Sequence[int | None], own: Mapping[int, int]
) -> dict[int, int]:
    """Return the SMS of each item whose bytes were read before, where today's reading gives another or none.

    Raises ReadBefore where that other one has just been inserted.
    """
    mails = [i for i, item in enumerate(batch.items) if item.channel is not Channel.WEBHOOK]
    found = sms_by_content_key(inserts, [batch.keys[i] for i in mails])
    if not found:
        return {}
    before = {
        i: sms_id for i in mails if (sms_id := found.get(batch.keys[i])) is not None and sms_id != sms_ids[i]
    }
    if not own.keys().isdisjoint(before):
        raise ReadBefore(before)
    return before


def _insert_arrivals(
    inserts: Inserts, batch: Batch, ids: Mapping[int, int], sms_ids: Sequence[int | None],
    outcomes: Sequence[Outcome], written: Any, instant: Callable[[datetime], Any],
) -> set[int] | None:  # fmt: skip
    """Insert an arrival for each item that has an id kept for it; return which went in (None: all)."""
    rows: list[Row] = []
    # Mails of one batch often share their time of arrival, and writing it down is not cheap.
    last, arrived_at = None, None
    for i, number in ids.items():
        item = batch.items[i]
        if item.arrived_at is not last:
            last, arrived_at = item.arrived_at, instant(item.arrived_at)
        reading, position, payload = item.reading, item.position, item.payload
        rows.append((
            number, batch.keys[i], str(item.channel), item.number, item.source,
            position.folder, position.uidvalidity, position.uid,
            position.input, position.member, position.offset, position.length,
            reading.message_id, reading.subject, item.peer, item.sender_verified,
            payload.size if payload else None, str(outcomes[i]),
            reading.reason if isinstance(reading, Unreadable) and sms_ids[i] is None else None,
            sms_ids[i], reading.parser, batch.run_ids[i], arrived_at, written,
        ))  # fmt: skip
    return inserts.insert(ARRIVALS, rows)


def _settle_repeated(
    inserts: Inserts, batch: Batch, repeated: list[int], sms_ids: list[int | None], own: Mapping[int, int],
    outcomes: list[Outcome], written: Any,
) -> None:  # fmt: skip
    """Say what becomes of items whose arrival stands in the archive, or earlier in this batch."""
    known = inserts.arrivals_by_key([batch.keys[i] for i in repeated])
    verdicts: dict[int, int] = {}  # arrival id -> index
    read_before: dict[int, int | None] = {}
    for i in repeated:
        item = batch.items[i]
        arrival_id, sms_id = known[batch.keys[i], item.number, str(item.channel)]
        if sms_id is not None or arrival_id in verdicts:
            outcomes[i] = _DUPLICATE
            if i in own:
                read_before[i] = None
        elif sms_ids[i] is not None or batch.again:
            verdicts[arrival_id] = i  # it stood in the quarantine, and is readable now
    if read_before:
        raise ReadBefore(read_before)
    if not verdicts:
        return
    [ids] = inserts.reserve((RETRIES, len(verdicts)))
    rows: list[Row] = []
    for number, (arrival_id, i) in zip(ids, verdicts.items(), strict=True):
        reading = batch.items[i].reading
        reason = getattr(reading, "reason", None) if sms_ids[i] is None else None
        rows.append((
            number, arrival_id, str(outcomes[i]), reason, sms_ids[i], reading.parser, batch.run_ids[i],
            written,
        ))  # fmt: skip
    new = inserts.insert(RETRIES, rows)
    if new is not None:  # another process read them a moment ago
        pairs = zip(ids, verdicts.values(), strict=True)
        raise ReadBefore({i: None for number, i in pairs if number not in new})


def _sms_row(
    number: int, unique: bytes | None, sms: InboundSms, written: Any, instant: Callable[[datetime], Any]
) -> Row:
    return (
        number, unique, FINGERPRINT_VERSION, sms.provider, str(sms.originator_kind), sms.destination,
        sms.date_time, instant(sms.received_at), str(sms.time_quality), sms.provider_message_id,
        sms.segments, written,
    )  # fmt: skip


def _content_row(sms_id: int, batch: Batch, i: int) -> Row:
    sms = batch.items[i].reading.sms  # type: ignore[union-attr]  # only readable items have an SMS of their own
    return (
        sms_id, sms.originator, sms.originator_raw, sms.destination_raw, sms.text, sms.keyword,
        sms.clean_text, batch.details[i],
    )  # fmt: skip


def _payload_row(arrival_id: int, batch: Batch, i: int) -> Row | None:
    payload, packed = batch.items[i].payload, batch.packed[i]
    if payload is None or packed is None:
        return None
    return (arrival_id, payload.content_type, payload.size, payload.sha256, payload.dictionary_id, packed)
