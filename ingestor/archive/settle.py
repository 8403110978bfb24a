"""The one judge: what a transaction does with its rows, and the outcome of each.

The unique keys are the only judges of duplicates: everything is inserted first, and only what did not go in
is looked up afterwards, in the same transaction.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from ingestor.archive import tables
from ingestor.archive.inserts import (
    arrivals_by_key,
    erased_among,
    insert_arrived,
    insert_new,
    insert_sender_checks,
    read_first,
    reserve,
    sms_by_fingerprint,
)
from ingestor.archive.items import Receipt, Row
from ingestor.record import Channel, Outcome
from ingestor.timestamps import iso_utc

_SALT_BYTES = 32
_STORED, _DUPLICATE, _QUARANTINED = Outcome.STORED, Outcome.DUPLICATE, Outcome.QUARANTINED
_WEBHOOK, _IMPORT = Channel.WEBHOOK.value, Channel.IMPORT.value


class NewSms(NamedTuple):
    """An SMS that this transaction stores: its id, and the row that it is made of."""

    sms_id: int
    row: Row


OnStored = Callable[[Connection, Sequence[NewSms]], None]
"""Writes what must stand in the transaction that stores an SMS, on the connection it is given.

It is called after the rows of `sms_content` went in, by whichever way the SMS came (a retry of the
quarantine, too), and may be called again for the same SMS where the transaction, or a part of it, is rolled
back and done anew: it does nothing but write to that connection. What it raises counts as the database's
answer: a data error sends the item that caused it to the quarantine.
"""


class ReadBefore(Exception):
    """Rows whose bytes had been read before today's parser made a different SMS of them, or were erased.

    Their SMS must not stay; the transaction is done again, and they stay with `sms`: its id by index, None
    where their arrival is there already, or was never read before its erasure.
    """

    def __init__(self, sms: Mapping[int, int | None]) -> None:
        super().__init__()
        self.sms = sms


@dataclass(slots=True)
class _Transaction:
    """What is known of the rows so far; everything goes by their index."""

    connection: Connection
    rows: Sequence[Row]
    run_ids: Sequence[int | None]
    now: str
    read: Mapping[int, int | None]
    sms_ids: list[int | None]
    own: dict[int, int] = field(default_factory=dict)
    """The ids of the SMS that went in."""
    outcomes: list[Outcome] = field(default_factory=list)
    standing: Set[tuple[bytes, int, str, bytes]] = frozenset()
    """Content key, number, channel and place of each arrival that is there already."""
    erased: set[bytes] = field(default_factory=set)
    """The content keys of bytes that were erased, or that an erased SMS came in: nothing of them is kept."""


def settle(
    connection: Connection, rows: Sequence[Row], run_ids: Sequence[int | None], now: datetime,
    read: Mapping[int, int | None], on_stored: OnStored | None = None,
) -> Receipt:  # fmt: skip
    """Insert `rows` in the transaction of `connection`, for the run of each; return what becomes of them.

    The rows in `read` are known to have been read before; raises ReadBefore where more of them turn up.
    """
    this = _Transaction(connection, rows, run_ids, iso_utc(now), read, [None] * len(rows))
    there = {i for i, sms_id in read.items() if sms_id is None}
    fresh = [i for i, row in enumerate(rows) if not row.again and i not in there]
    readable = [i for i, row in enumerate(rows) if row.sms is not None and i not in read]
    sms_ids, arrival_ids = reserve(connection, sms=len(readable), arrivals=len(fresh))
    _insert_sms(this, dict(zip(readable, sms_ids, strict=True)))
    for i, sms_id in (*_read_before(this).items(), *read.items()):
        this.sms_ids[i] = sms_id
    this.outcomes = [
        _STORED if i in this.own else _QUARANTINED if sms_id is None and i not in read else _DUPLICATE
        for i, sms_id in enumerate(this.sms_ids)
    ]
    insert_sender_checks(connection, {row.sender_check for row in rows if row.sender_check is not None})
    arrivals = _without_standing(this, dict(zip(fresh, arrival_ids, strict=True)))
    new = _insert_arrived(this, arrivals)
    _settle_repeated(
        this, [i for i, row in enumerate(rows) if row.again or (i in arrivals and arrivals[i] not in new)]
    )
    if on_stored is not None and this.own:
        on_stored(connection, [NewSms(sms_id, rows[i]) for i, sms_id in this.own.items()])
    return Receipt(tuple(this.outcomes), tuple(this.sms_ids))


def _insert_sms(this: _Transaction, ids: Mapping[int, int]) -> None:
    rows = this.rows
    new = insert_new(this.connection, tables.sms, [
        (number, this.now, *sms) for i, number in ids.items() if (sms := rows[i].sms) is not None
    ])  # fmt: skip
    this.own = {i: number for i, number in ids.items() if number in new}
    others = {i: sms.fingerprint for i in ids if i not in this.own and (sms := rows[i].sms) is not None}
    found = sms_by_fingerprint(this.connection, list(others.values()))
    for i, number in this.own.items():
        this.sms_ids[i] = number
    for i, fingerprint in others.items():
        this.sms_ids[i] = found[fingerprint]


def _read_before(this: _Transaction) -> dict[int, int]:
    """Return the SMS of rows whose bytes were read before, where today's reading gives another or none."""
    mails = [i for i, row in enumerate(this.rows) if row.channel != _WEBHOOK]
    again = [i for i, row in enumerate(this.rows) if row.again and row.channel == _WEBHOOK]
    arrivals = arrivals_by_key(this.connection, [this.rows[i].content_key for i in (*mails, *again)])
    if not arrivals:
        return {}
    this.standing = arrivals.keys()
    found = read_first(arrivals)
    before: dict[int, int] = {
        i: sms_id
        for i in mails
        if (sms_id := found.get(this.rows[i].content_key)) is not None and sms_id != this.sms_ids[i]
    }
    gone = erased_among(this.connection, "arrival", [number for number, _ in arrivals.values()])
    this.erased = {key for (key, *_), (number, _) in arrivals.items() if number in gone}
    # Nobody could read them before they were erased; of the items of a POST each counts for itself.
    unread = {
        (key, at) for (key, at, *_), (number, sms) in arrivals.items() if number in gone and sms is None
    }
    never = [
        i for i in (*mails, *again)
        if i not in before and i not in this.read and (i in this.own or this.sms_ids[i] is None)
        and (this.rows[i].content_key, this.rows[i].number) in unread
    ] if unread else []  # fmt: skip
    if never or not this.own.keys().isdisjoint(before):
        raise ReadBefore({**before, **dict.fromkeys(never)})
    return before


def _without_standing(this: _Transaction, arrivals: Mapping[int, int]) -> dict[int, int]:
    """Leave out unreadable copies in an import: a person should meet them once, and discard them once."""
    seen = {there[:3] for there in this.standing}
    left = dict(arrivals)
    for i in arrivals:
        if this.sms_ids[i] is None and (row := this.rows[i]).channel == _IMPORT:
            key = row.content_key, row.number, row.channel
            if key in seen:
                del left[i]
            seen.add(key)
    return left


def _insert_arrived(this: _Transaction, arrivals: Mapping[int, int]) -> set[int]:
    """Insert `arrivals` (their ids by index), and what may be erased of them and of the SMS that went in.

    Return the ids of the arrivals that are new. Of what was erased nothing is kept again, by whatever way it
    comes. The bytes of a mail are kept with its first arrival; a copy of it, at another place, has the same.
    """
    rows, own, now, standing = this.rows, this.own, this.now, this.standing
    kept = {there[:3] for there in standing}  # the bytes of these items
    others = {i: sms_id for i in arrivals if i not in own and (sms_id := this.sms_ids[i]) is not None}
    gone = erased_among(this.connection, "sms", others.values())
    this.erased |= {rows[i].content_key for i, sms_id in others.items() if sms_id in gone}
    salts = _salts(len(own) + 2 * len(arrivals))
    arrived, contents, payloads = [], [], []
    for i, number in arrivals.items():
        row, sms_id = rows[i], this.sms_ids[i]
        key, payload, check = (row.content_key, row.number, row.channel), row.payload, row.sender_check
        arrived.append((  # `ArrivalColumns`: by their names they took 1.0 µs, so 0.3
            number, row.content_key, row.channel, row.number, row.source, row.sender_verified,
            None if payload is None else payload.size, this.outcomes[i].value,
            row.reason if sms_id is None else None, sms_id, row.parser, this.run_ids[i],
            row.arrived_at or now, now, None if check is None else check.id, *row.place,
        ))  # fmt: skip
        if row.content_key in this.erased or (standing and (*key, row.place.place) in standing):
            continue
        contents.append((number, next(salts), *row.arrival_content))
        if payload is not None and key not in kept:
            kept.add(key)
            payloads.append((number, next(salts), *payload))
    return insert_arrived(
        this.connection,
        arrived,
        [(n, next(salts), *content) for i, n in own.items() if (content := rows[i].content) is not None],
        [(n, *keyed) for i, n in own.items() if (keyed := rows[i].numbers) is not None],
        contents,
        payloads,
    )


def _salts(count: int) -> Iterator[bytes]:
    """Give `count` salts, drawn at once: for each call the interpreter is let go of, and waited for."""
    drawn = os.urandom(_SALT_BYTES * count)
    return iter([drawn[start : start + _SALT_BYTES] for start in range(0, len(drawn), _SALT_BYTES)])


def _settle_repeated(this: _Transaction, repeated: Sequence[int]) -> None:
    """Say what becomes of rows whose arrival stands in the archive, or earlier among them."""
    if not repeated:
        return
    rows = this.rows
    known = arrivals_by_key(this.connection, [rows[i].content_key for i in repeated])
    verdicts: dict[int, int] = {}  # arrival id -> index
    read_before: dict[int, int | None] = {}
    for i in repeated:
        row = rows[i]
        arrival_id, sms_id = known[row.content_key, row.number, row.channel, row.place.place]
        if sms_id is not None or arrival_id in verdicts:
            this.outcomes[i] = _DUPLICATE
            if i in this.own:
                read_before[i] = None
        elif this.read.get(i, i) is not None and (this.sms_ids[i] is not None or row.again):
            verdicts[arrival_id] = i  # it stood in the quarantine, and is readable now
    if read_before:
        raise ReadBefore(read_before)
    if verdicts:
        _insert_retries(this, verdicts)


def _insert_retries(this: _Transaction, verdicts: Mapping[int, int]) -> None:
    """Write down a verdict on each arrival: `verdicts` is the index of its row by its id."""
    [ids] = reserve(this.connection, retries=len(verdicts))
    new = insert_new(this.connection, tables.retries, [
        (number, arrival_id, this.outcomes[i].value, this.rows[i].reason if this.sms_ids[i] is None else None,
         this.sms_ids[i], this.rows[i].parser, this.run_ids[i], this.now)
        for number, (arrival_id, i) in zip(ids, verdicts.items(), strict=True)
    ])  # fmt: skip
    if len(new) < len(verdicts):  # another process read them a moment ago
        pairs = zip(ids, verdicts.values(), strict=True)
        raise ReadBefore({i: None for number, i in pairs if number not in new})
