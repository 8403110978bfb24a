"""Are the kept bytes those that arrived, and read as they were? A full read tells, and that of one SMS."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from ingestor.archive import tables
from ingestor.archive.engine import one_moment, reading
from ingestor.archive.payloads import unpack
from ingestor.archive.quarantine import Reader, kept_arrival, read_today
from ingestor.archive.queries import Evidence, dictionaries
from ingestor.archive.rows import details_json
from ingestor.errors import IngestorError
from ingestor.providers.contract import Unreadable
from ingestor.record import InboundSms

_ROWS = 500
_MOST_NAMED = 10
_AMCHECK = """SELECT p.oid::regproc::text FROM pg_proc p WHERE p.proname = 'bt_index_check' AND p.pronargs = 2
    AND has_function_privilege(p.oid, 'EXECUTE')"""
_BTREES = """SELECT {check}(x.indexrelid, true) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am a ON a.oid = i.relam AND a.amname = 'btree' WHERE x.indrelid = to_regclass(%s)"""


def damage(engine: Engine, progress: Callable[[int, int], None]) -> Iterator[str]:
    """Yield what is damaged, a sentence each; tell `progress` how many payloads of how many were read."""
    yield from _first(_own_check(engine), "the database's own check finds {} faults more")
    try:
        yield from _content(engine)
        not_as_came = "the kept bytes of {} further arrivals are not what arrived"
        yield from _first(_payloads(engine, progress), not_as_came)
    except IngestorError as error:
        yield str(error)


def _first(faults: Iterable[str], more: str) -> Iterator[str]:
    number = 0
    for number, fault in enumerate(faults, 1):
        if number <= _MOST_NAMED:
            yield fault
    if number > _MOST_NAMED:
        yield more.format(number - _MOST_NAMED)


def _own_check(engine: Engine) -> Iterator[str]:
    try:
        with reading(engine) as connection:
            if engine.dialect.name == "sqlite":
                for (said,) in connection.exec_driver_sql("PRAGMA integrity_check(100)"):
                    if said != "ok":
                        yield f"SQLite's own check: {said}"
                for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
                    yield f"SQLite's own check: a row of {row[0]} belongs to none of {row[2]}"
            else:
                yield from _amcheck(connection)
    except IngestorError as error:
        yield str(error)


def can_check_itself(engine: Engine) -> bool:
    """Say whether the database has a check of its own that this role may run."""
    if engine.dialect.name == "sqlite":
        return True
    with reading(engine) as connection:
        return connection.exec_driver_sql(_AMCHECK).scalar() is not None


def _amcheck(connection: Connection) -> Iterator[str]:
    """Run PostgreSQL's amcheck where it is installed, and read every row where it is not."""
    found = connection.exec_driver_sql(_AMCHECK).scalar()
    for table in tables.metadata.sorted_tables:
        try:
            with connection.begin_nested():
                if found is not None:
                    connection.exec_driver_sql(_BTREES.format(check=found), (table.name,)).all()
                connection.exec_driver_sql(f"SELECT count(t) FROM {table.name} t").all()  # noqa: S608 - our own names
        except DBAPIError as error:
            yield f"PostgreSQL cannot read {table.name}: {str(error.orig).splitlines()[0][:160]}"


# By kind of row, as `erased` names it: its table and what it is called.
_ROWS_OF: Final = {
    "sms": ("sms", "SMS"), "arrival": ("arrivals", "arrival"), "consent": ("consents", "opt-out event"),
    "answer": ("answers", "answer"), "report": ("delivery_reports", "delivery report"),
    "hold": ("holds", "hold"),
}  # fmt: skip
_NO = "NOT EXISTS (SELECT 1 FROM {0} AS c WHERE c.{1} = r.id)"
_NOT_ERASED = "NOT EXISTS (SELECT 1 FROM erased AS e WHERE e.kind = '{0}' AND e.row_id = r.id)"
# Of bytes that were erased, or in which an erased SMS came, a later arrival keeps nothing.
_OF_BYTES = "NOT EXISTS (SELECT 1 FROM arrivals AS b JOIN {0} WHERE b.content_key = r.content_key)"
_NOR_OTHERS = " AND ".join(
    _OF_BYTES.format(f"erased AS e ON e.kind = '{kind}' AND e.row_id = b.{key}")
    for kind, key in (("sms", "sms_id"), ("arrival", "id"))
)
# The bytes of a mail are kept with its first arrival by each channel; a POST's with its first item.
_NOR_KEPT = _OF_BYTES.format("payloads AS p ON p.arrival_id = b.id AND b.channel = r.channel")
_HAS_CONTENT: Final = {
    "arrival_content": _NOR_OTHERS,
    "payloads": f"r.size IS NOT NULL AND {_NOR_KEPT} AND {_NOR_OTHERS}",
    "hold_content": "r.ends IS NULL",
    "sms_words": "r.id <= (SELECT max(sms_id) FROM sms_words)",  # `words` has come so far
}


def _content(engine: Engine) -> Iterator[str]:
    """Yield which rows have lost their content past all erasures, and which have it after one."""
    with reading(engine) as connection:
        for kind, of in tables.CONTENT_OF.items():
            table, called = _ROWS_OF[kind]
            for content, key in of.items():
                unerased = _NOT_ERASED.format(kind)
                missing = " AND ".join(
                    (_NO.format(content, key), unerased, _HAS_CONTENT.get(content, "1 = 1"))
                )
                there = f"NOT ({_NO.format(content, key)}) AND NOT ({unerased})"
                for where, says in (
                    (missing, "is missing, and no erasure took it: it was removed past the program"),
                    (there, "is there, though it was erased: it was put back past the program"),
                ):
                    query = f"SELECT r.id FROM {table} AS r WHERE {where} ORDER BY r.id"  # noqa: S608 - our own names
                    ids = list(connection.exec_driver_sql(query).scalars())
                    named = (f"what {content} has of {called} {one} {says}" for one in ids)
                    yield from _first(named, f"what {content} has of {{:,}} further rows {says}")


def _payloads(engine: Engine, progress: Callable[[int, int], None]) -> Iterator[str]:
    table = tables.payloads
    with one_moment(engine) as connection:
        known = dictionaries(connection)
        whole = int(connection.execute(select(func.count()).select_from(table)).scalar() or 0)
        rows = connection.execution_options(yield_per=_ROWS).execute(
            select(table.c.arrival_id, table.c.sha256, table.c.dictionary_id, table.c.compressed)
        )
        for number, row in enumerate(rows, 1):
            fault = _fault_of(row.compressed, row.dictionary_id, row.sha256, known)
            if fault is not None:
                yield f"arrival {row.arrival_id}: {fault}"
            progress(number, whole)


def _fault_of(
    compressed: bytes, dictionary_id: int | None, sha256: bytes, known: dict[int, bytes]
) -> str | None:
    try:
        raw = unpack(bytes(compressed), dictionary_id, known)
    except ValueError as error:
        return str(error)
    same = hashlib.sha256(raw).digest() == bytes(sha256)
    return None if same else "its kept bytes no longer match their SHA-256"


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is to be said of an arrival's kept bytes: why they are `damaged`, or that today's reader makes
    another record of them, in which columns, or none. The record in the archive stays what it is."""

    damaged: str | None = None
    read_otherwise: str | None = None


def doubts(engine: Engine, evidence: Evidence, reader: Reader) -> dict[int, Doubt]:
    """Return by its id what is to be said of each arrival of an SMS; of most there is nothing."""
    found = {}
    for arrival in evidence.arrivals:
        if arrival["payload_size"] is None:
            continue
        kept = kept_arrival(engine, arrival["id"])
        if kept.damaged is not None:
            found[arrival["id"]] = Doubt(damaged=kept.damaged)
            continue
        makes = arrival["outcome"] == "stored" or arrival["read_by_retry"]  # others say it in other words
        if not makes or not kept.whole or evidence.content is None:
            continue
        today = read_today(reader, kept)
        if isinstance(today, Unreadable):
            found[arrival["id"]] = Doubt(read_otherwise=f"as no SMS: {today.reason}")
        elif differ := _differing({**evidence.sms, **evidence.content}, today.sms):
            found[arrival["id"]] = Doubt(read_otherwise=", ".join(differ))
    return found


def _differing(row: Mapping[str, Any], sms: InboundSms) -> list[str]:
    today = sms._asdict() | {"details": json.loads(details_json(sms.details))}
    stored = {**row, "details": json.loads(row["details"])}
    return [name for name in InboundSms._fields if stored[name] != today[name]]
