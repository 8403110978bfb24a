"""What intakes hand to the writer: items with their evidence, and the cursor that moves with them.

An intake makes an `Item`; `rows.row_of` makes the one `Row` of it that the database takes. Nothing here
imports the database library: the processes of an import make rows, too, and stay small.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from ingestor.providers.contract import Readable, Report, Unreadable
from ingestor.record import Channel, Outcome


class Payload(NamedTuple):
    """Raw bytes, packed: what the table `payloads` takes, but the arrival's id and the salt."""

    content_type: str | None
    size: int
    sha256: bytes
    dictionary_id: int | None
    compressed: bytes

    def __repr__(self) -> str:
        return f"Payload(size={self.size}, content_type={self.content_type!r})"


class Position(NamedTuple):
    """Where in its source an item stood: in a mailbox, or in a file, the how-manieth `copy` of its bytes."""

    folder: str | None = None
    uidvalidity: int | None = None
    uid: int | None = None
    input: str | None = None
    member: str | None = None
    offset: int | None = None
    length: int | None = None
    copy: int = 0


class SenderCheck(NamedTuple):
    """What a check of a mail's sender found, without personal content: the columns of `sender_checks`."""

    method: str
    finding: str
    domain: str | None = None
    selector: str | None = None
    public_key: str | None = None

    def said(self, verified: bool | None) -> str:
        """Return a verdict by it in words."""
        proven = "could not be told" if verified is None else "proven" if verified else "not proven"
        return f"{proven} ({', '.join(filter(None, (self.method, self.finding, self.domain)))})"

    @property
    def id(self) -> int:
        """The number under which the archive keeps it: 8 bytes of SHA-256 over what it says."""
        digest = hashlib.sha256(json.dumps(self).encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


class Item(NamedTuple):
    """One SMS-to-be: what it means, how it reached us, and its raw bytes.

    `content_key` makes the arrival unique within its channel together with `number`: `rows.mail_content_key`
    for a mail, the 16 bytes of the UUID given on receipt for a POST. `number` counts the items of one
    payload from 0; only item 0 carries the payload. `arrived_at` None is the time of the transaction.

    `kept_key` and `kept_place` are set where the arrival stands in the quarantine and is read again: the
    archive has it under them, and each verdict on it is written down, one that changes nothing, too.
    """

    reading: Readable | Unreadable
    channel: Channel
    source: str
    content_key: bytes
    arrived_at: datetime | None
    payload: Payload | None
    position: Position = Position()
    number: int = 0
    peer: str | None = None
    sender_verified: bool | None = None
    sender_check: SenderCheck | None = None
    kept_key: bytes | None = None
    kept_place: bytes = b""

    @property
    def reason(self) -> str | None:
        """Why it cannot be read, None where it can."""
        return self.reading.reason if isinstance(self.reading, Unreadable) else None


class ReportItem(NamedTuple):
    """One report, its `number` in its POST, and of that its UUID and, as it came, its whole body."""

    report: Report
    source: str
    post: bytes
    number: int
    arrived_at: datetime
    raw: bytes
    content_type: str | None

    def __repr__(self) -> str:
        return f"ReportItem({self.report!r}, {self.source})"


class SmsColumns(NamedTuple):
    """What the table `sms` takes of an SMS, but its id and `ingested_at`; `received_at` is ISO 8601."""

    fingerprint: bytes
    fingerprint_version: int
    provider: str
    originator_kind: str
    destination: str
    date_time: str
    received_at: str
    time_quality: str
    provider_message_id: str | None
    segments: int | None


class ContentColumns(NamedTuple):
    """What the table `sms_content` takes of an SMS, but its id and the salt."""

    originator: str
    originator_raw: str
    destination_raw: str
    text: str
    keyword: str | None
    clean_text: str | None
    details: str


class NumberColumns(NamedTuple):
    """What the table `sms_numbers` takes of an SMS, but its id: `rows.number_key` of both numbers."""

    originator: int
    destination: int


class PlaceColumns(NamedTuple):
    """Where an item stood: UID of a folder, or offset and length in a file. `place` is of `rows.place_of`."""

    place: bytes
    folder: str | None
    uidvalidity: int | None
    uid: int | None
    byte_offset: int | None
    byte_length: int | None


class ArrivalContent(NamedTuple):
    """What of an arrival may name a person."""

    input: str | None
    member: str | None
    message_id: str | None
    subject: str | None
    peer: str | None


class ArrivalColumns(NamedTuple):
    """What the table `arrivals` takes, but `PlaceColumns`; times are ISO 8601."""

    id: int
    content_key: bytes
    channel: str
    number: int
    source: str
    sender_verified: bool | None
    size: int | None
    outcome: str
    reason: str | None
    sms_id: int | None
    parser: str
    run_id: int | None
    arrived_at: str
    ingested_at: str
    sender_check_id: int | None


class Row(NamedTuple):
    """One item made ready for the database, whichever way it came. `rows.row_of` makes it, and nobody else.

    `content_key` is under the archive's key. `sms` and `content` are None where the item cannot be read;
    `reason` says why. `again`: the arrival stands in the quarantine, and this is a verdict on it.
    """

    content_key: bytes
    channel: str
    number: int
    source: str
    parser: str
    reason: str | None
    arrived_at: str | None
    sender_verified: bool | None
    sender_check: SenderCheck | None
    again: bool
    place: PlaceColumns
    arrival_content: ArrivalContent
    sms: SmsColumns | None
    content: ContentColumns | None
    numbers: NumberColumns | None
    payload: Payload | None

    def plain(self) -> tuple[Any, ...]:
        """Return the row as plain tuples, to travel between processes (`marshal` takes no named ones)."""
        return (*self[:10], *[part and part[:] for part in self[10:]])

    @classmethod
    def of_plain(cls, values: Sequence[Any]) -> "Row":
        """Return the row of which `plain` made these values."""
        new = tuple.__new__  # half the time of `_make`
        place, arrival_content, sms, content, numbers, payload = values[10:]
        parts = (
            new(PlaceColumns, place), new(ArrivalContent, arrival_content), sms and new(SmsColumns, sms),
            content and new(ContentColumns, content), numbers and new(NumberColumns, numbers),
            payload and new(Payload, payload),
        )  # fmt: skip
        return new(cls, (*values[:10], *parts))


class CursorMove(NamedTuple):
    """The mailbox cursor after this submission: everything up to `last_uid` has its outcome or is pending.

    `accounts` are the names under which the mailbox was reached, a line each; `uids` and `marks` what stood
    in the folder then (`intake.mailbox.standing`). None: nothing is known of it.
    """

    mailbox: str
    folder: str
    uidvalidity: int
    last_uid: int
    accounts: str | None = None
    uids: str | None = None
    marks: bytes | None = None


class Action(StrEnum):
    """Work on the server that survives a crash in the table `pending`."""

    FETCH = "fetch"
    SEEN = "seen"
    MOVE = "move"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Pending:
    """One thing still to be fetched from, or done on, a mailbox; `content_key` is of `rows.keyed`."""

    mailbox: str
    folder: str
    uidvalidity: int
    uid: int
    action: Action
    content_key: bytes | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """Its primary key in the table `pending`."""
        return self.mailbox, self.folder, self.uidvalidity, self.uid, self.action.value


class InputProgress(NamedTuple):
    """How far an input of an import was read, decompressed, and the SHA-256 of that. Where the step began
    `since` the archive must stand still, else somebody else reads the same input for the same run."""

    input_id: int
    position: int
    sha256: bytes
    size: int | None = None
    since: int | None = None

    def after(self, earlier: "InputProgress | None") -> "InputProgress":
        """Return this step joined to the `earlier` one of the same input."""
        return self if earlier is None else self._replace(since=earlier.since)


class Submission(NamedTuple):
    """What must become durable together: it is never split over two transactions.

    `ignored` and `failed` only count. `after_store` is the action queued in `pending` for every mailbox item
    that ends as stored or duplicate. `look_alikes` says of the ignored which had something of ours: (source,
    what they lacked, how many). An import's items are rows already. `reports` have their outcomes behind.
    """

    run_id: int | None
    items: Sequence[Item | Row] = ()
    ignored: int = 0
    failed: int = 0
    cursor: CursorMove | None = None
    to_do: tuple[Pending, ...] = ()
    done: tuple[Pending, ...] = ()
    after_store: Action | None = None
    progress: tuple[InputProgress, ...] = ()
    look_alikes: tuple[tuple[str, str, int], ...] = ()
    reports: Sequence[ReportItem] = ()


class Receipt(NamedTuple):
    """The outcomes of items, in their order, and which SMS each became or is; None in the quarantine."""

    outcomes: tuple[Outcome, ...]
    sms_ids: tuple[int | None, ...] = ()
