"""Opt-outs in the archive: writing events down, and saying whether a number may be written to.

The events of an SMS that comes in go into the transaction that stores it.
"""

import hmac
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, or_, select
from sqlalchemy.exc import DBAPIError

from ingestor.archive.columns import for_ids, in_parts, insert_into
from ingestor.archive.reply_tables import KINDS
from ingestor.archive.tables import archive_key, consent_content, consents
from ingestor.archive.views import opt_outs
from ingestor.errors import ConfigurationError
from ingestor.numbers import OriginatorKind, normalise_agile
from ingestor.replies.words import Kind, Words
from ingestor.settings import OptOut as OptOutSection
from ingestor.timestamps import utc_now

if TYPE_CHECKING:
    from ingestor.archive.settle import NewSms, OnStored
    from ingestor.archive.store import Store

EVERY: Final = "*"
"""The scope that is every number of ours."""

_SALT = 32
_NO_REVIEW = (OriginatorKind.ALPHA, OriginatorKind.SHORT)


@cache
def _note(dialect: str) -> Any:
    told = (consents.c[name] for name in ("id", "sms_id", "number_hmac", "kind", "scope", "at"))
    return insert_into(consents, dialect).on_conflict_do_nothing().returning(*told)


_NOTE_CONTENT = consent_content.insert()
_SECRET = select(archive_key.c.secret)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that opts `number` out of `scope` (a number of ours, or *), or in again, or may.

    `at` (aware) is what counts: the SMS's own time, or that of a person's decision. `sms_id` is the proof,
    `rule` what the program says of it, `reason` what a person says.
    """

    number: str
    scope: str
    kind: str
    at: datetime
    sms_id: int | None = None
    rule: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OptOut:
    """Why a number may not be written to: out of `scope` since `since`, by `kind`, proven by `sms_id`."""

    scope: str
    since: datetime
    kind: str
    sms_id: int | None
    reason: str | None


class Said(NamedTuple):
    """What of an SMS matters here; `received_at` is aware or ISO 8601 text."""

    sms_id: int
    originator: str
    originator_kind: str
    destination: str
    received_at: datetime | str
    text: str


def number_hmac(secret: bytes, number: str) -> bytes:
    """Return what stands for `number` where a person may be erased: an HMAC under the archive's key, as a
    plain hash of a number is guessed in a minute.
    """
    return hmac.digest(secret, b"number\0" + number.encode(), "sha256")


def read_secret(connection: Connection) -> bytes:
    """Return the archive's key, in a transaction that is open already."""
    return bytes(connection.execute(_SECRET).scalar_one())


def keys_of_numbers(connection: Connection) -> tuple[Callable[[Sequence[str]], dict[str, bytes]], bool]:
    """Return what tells the keys of numbers, and whether some number that is out cannot be told so.

    A snapshot and a role that only reads have no key of the archive: there the numbers that are kept tell.
    """
    try:
        with connection.begin_nested():
            secret = read_secret(connection)
        return lambda numbers: {number: number_hmac(secret, number) for number in numbers}, False
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
    columns = opt_outs.c

    def kept(numbers: Sequence[str]) -> dict[str, bytes]:
        query = select(columns.number, columns.number_hmac).where(columns.number.in_(numbers))
        return {number: bytes(key) for number, key in connection.execute(query)}

    gone = select(columns.event_id).where(columns.number.is_(None)).limit(1)
    return kept, connection.execute(gone).first() is not None


def our_number_of(sender: str) -> str | None:
    """Return the number of ours that `sender` is; None where it is a name, or has no country: then no
    number of ours is told by it, and any opt-out counts."""
    ours = normalise_agile(sender)
    return ours.value if ours.kind in (OriginatorKind.MSISDN, OriginatorKind.SHORT) else None


def without_country(number: str) -> tuple[str, ...]:
    """Return how `number` (E.164) may stand in the archive where it came without its country (`unknown`)."""
    national = [number[1 + digits :] for digits in (1, 2, 3)]
    return (*national, *(f"0{one}" for one in national))


def is_out(connection: Connection, secret: bytes, number: str, our_number: str | None) -> OptOut | None:
    """Return why `number` may not be written to from `our_number`, None where it may.

    Asked inside the transaction that decides to send, it sees every STOP committed before. A sender that no
    SMS can be sent to (None, or a name) tells no number of ours: then any opt-out counts.
    """
    return are_out(connection, [number_hmac(secret, number)], our_number).popitem()[1]


def are_out(
    connection: Connection, numbers: Sequence[bytes], our_number: str | None
) -> dict[bytes, OptOut | None]:
    """Return for each of `numbers` (of `number_hmac`) what `is_out` does."""
    found: dict[bytes, OptOut | None] = dict.fromkeys(numbers)
    columns = opt_outs.c
    query = select(
        columns.number_hmac, columns.scope, columns.since, columns.kind, columns.sms_id, columns.reason
    ).order_by(columns.since.desc(), columns.event_id.desc())
    if our_number is not None and not any(map(str.isalpha, our_number)):
        closed = or_(columns.scope == our_number, columns.scope == EVERY)
        reopened = columns.reopened.contains(f" {our_number} ", autoescape=True)
        query = query.where(closed, ~reopened)
    for row in for_ids(connection, query, columns.number_hmac, numbers):  # the first of several stays last
        found[bytes(row[0])] = OptOut(*row[1:])
    return found


def write_events(connection: Connection, secret: bytes, events: Iterable[Event], now: datetime) -> int:
    """Write `events` down in this transaction; return how many were new. `now` is aware.

    An SMS makes each kind of event in a scope once, and so does a person at one moment: given again, by
    another process or after a kill, an event is there already.
    """
    rows = {}
    for event in events:
        number = number_hmac(secret, event.number)
        at = event.at.astimezone(UTC)
        rows[event.sms_id, number, event.kind, event.scope, at] = event
    new = 0
    # In one order, so that two who write the same events cannot wait for each other.
    ordered = sorted(rows, key=lambda key: (key[0] or 0, *key[1:]))
    for some in in_parts(ordered):
        new += _write(connection, {key: rows[key] for key in some}, now)
    return new


def _write(connection: Connection, rows: dict[tuple[Any, ...], Event], now: datetime) -> int:
    statement = _note(connection.dialect.name)
    values = [
        {"sms_id": sms_id, "number_hmac": number, "kind": kind, "effect": KINDS[kind],
         "scope": scope, "at": at, "rule": event.rule, "noted_at": now}
        for (sms_id, number, kind, scope, at), event in rows.items()
    ]  # fmt: skip
    written = [
        (number, rows[sms_id, bytes(hmac_), kind, scope, at])
        for number, sms_id, hmac_, kind, scope, at in connection.execute(statement, values)
    ]
    if written:
        connection.execute(_NOTE_CONTENT, [
            {"consent_id": number, "number": event.number, "reason": event.reason, "salt": os.urandom(_SALT)}
            for number, event in written
        ])  # fmt: skip
    return len(written)


def events_of(words: Words, said: Iterable[Said]) -> Iterator[Event]:
    """Give the event of each SMS that says something about being written to.

    A name or a short code cannot be written to: what it says in passing is no case for a person.
    """
    for sms in said:
        verdict = words.judge(sms.text)
        if verdict is None or verdict.kind is Kind.HELP:
            continue
        if verdict.kind in (Kind.REVIEW, Kind.NEARLY_START) and sms.originator_kind in _NO_REVIEW:
            continue
        at = sms.received_at
        yield Event(
            sms.originator,
            EVERY if verdict.every else sms.destination,
            str(verdict.kind),
            datetime.fromisoformat(at) if isinstance(at, str) else at,
            sms.sms_id,
            verdict.rule,
        )


def words_of(section: OptOutSection) -> Words:
    """Return the words of the table `[opt_out]`. Raises ConfigurationError where they cannot be."""
    try:
        return Words(
            languages=section.languages, stop=section.stop, stop_all=section.stop_all, start=section.start,
            help_=section.help,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigurationError(f"[opt_out]: {error}") from None


def hearing_store(engine: Engine, section: OptOutSection) -> "Store":
    """Return the store of every intake: when it has stored a STOP, the STOP stands. Raises as `words_of`."""
    # Who asks how opt-outs stand, as `status` does, starts sooner without all that stores.
    from ingestor.archive.store import Store

    return Store(engine, hearing(words_of(section)))


def hearing(words: Words) -> "OnStored":
    """Return what writes down the events of the SMS that a transaction stores."""

    def hear(connection: Connection, stored: "Sequence[NewSms]") -> None:
        said = (
            Said(
                number,
                content.originator,
                sms.originator_kind,
                sms.destination,
                sms.received_at,
                content.text,
            )
            for number, row in stored
            if (sms := row.sms) is not None and (content := row.content) is not None
        )
        if events := list(events_of(words, said)):
            write_events(connection, read_secret(connection), events, utc_now())

    return hear
