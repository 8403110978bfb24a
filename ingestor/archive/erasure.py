"""Erasing one person, or what is old enough: first a plan that names what goes, then the doing of it.

The doing is many small transactions, so that intake never waits long. Each takes the content of one batch and
leaves one row in `erasures`; what it took is named in `erased`, and triggers remove the content in the same
statement. Killed anywhere, a batch is done or not begun, and a second call does the rest.
"""

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, insert, or_, select

from ingestor.archive import holds, tables, words
from ingestor.archive.columns import for_ids, in_parts
from ingestor.archive.engine import reading, writing
from ingestor.archive.erasure_plan import (
    Batch,
    Plan,
    Selection,
    forms_of,
    others_of,
    require_known,
    selected,
    span,
)  # fmt: skip
from ingestor.archive.faults import translated
from ingestor.archive.inserts import erased_among
from ingestor.archive.open_file import open_file
from ingestor.archive.quarantine import write_discarded
from ingestor.archive.triggers import keep_storing_out
from ingestor.errors import IngestorError
from ingestor.record import Outcome
from ingestor.timestamps import iso_utc

BATCH: Final = 125
"""SMS a transaction: some 10 to 20 ms of it, and whoever stores waits for one at most."""
PAUSE_SECONDS: Final = 0.01
"""Between two transactions at least, and a third as long as one took: on a busy machine intake goes on."""
_AT_ONCE = 100
"""Batches looked at in one transaction: while somebody reads, SQLite's -wal grows, 10 MB a second beside a
busy daemon, which then waits while all of it goes into the file."""
# What came in the same bytes as SMS (given twice) and arrivals, and is not erased; no join: see `inserts`.
_OF_BYTES = """SELECT id, sms_id, outcome, (SELECT 1 FROM payloads WHERE arrival_id = arrivals.id)
    FROM arrivals WHERE content_key {among}(
      SELECT content_key FROM arrivals WHERE sms_id {given}
      UNION SELECT content_key FROM arrivals WHERE id {among}(
        SELECT arrival_id FROM retries WHERE sms_id {given}){end}
      UNION SELECT content_key FROM arrivals WHERE id {given}){end}
    AND (SELECT 1 FROM erased WHERE kind = 'arrival' AND row_id = arrivals.id) IS NULL"""
_BELONGINGS: Final = {
    "sqlite": _OF_BYTES.format(given="IN (SELECT value FROM json_each(?))", among="IN ", end=""),
    "postgresql": _OF_BYTES.format(given="= ANY (%s)", among="= ANY (ARRAY ", end=")"),
}


@dataclass(frozen=True, slots=True)
class Done:
    """What an `apply` did; `before` counts the batches that an earlier call had done."""

    sms: int = 0
    arrivals: int = 0
    payloads: int = 0
    others: int = 0
    batches: int = 0
    before: int = 0

    def __add__(self, other: "Done") -> "Done":
        return Done(*(getattr(self, name) + getattr(other, name) for name in Done.__slots__))


class _Belongings(NamedTuple):
    """What goes with a batch now; `unread`: of the quarantine, `beside`: as in `Plan`, of SMS that stay."""

    arrivals: list[int]
    payloads: int
    unread: list[int]
    beside: set[int]
    state: str


def plan(
    engine: Engine, secret: bytes, selection: Selection, basis: str, now: datetime,
    numbers: Sequence[str] = (),
) -> Plan:  # fmt: skip
    """Return what `selection` would take from the archive, but for what is under a hold; nothing is changed.

    `numbers` are those of the selection as they were given: by their text opt-outs and answers are found.
    Raises IngestorError where an id is none of the archive's.
    """
    with reading(engine) as connection:
        require_known(connection, selection)
        sms, quarantine = selected(connection, selection), set(selection.quarantine)
        quarantine -= erased_among(connection, "arrival", quarantine)
    with reading(engine, by_key=True) as connection:
        standing = holds.standing(connection)
        held_sms, held_quarantine = standing.among(connection, sms), quarantine & standing.arrivals
        going = [one for one in sms if one not in held_sms]
        going_quarantine = sorted(quarantine - held_quarantine)
        forms = forms_of(connection, numbers, going)
        others = others_of(connection, secret, selection.numbers, forms, going)
        oldest, newest = span(connection, going)
    parts: list[tuple[list[int], list[int], dict[str, list[int]]]] = [
        *((part, [], {}) for part in in_parts(going, BATCH)),
        *(([], part, {}) for part in in_parts(going_quarantine, BATCH)),
        *(([], [], {kind: part}) for kind, ids in others.items() for part in in_parts(ids, BATCH)),
    ]
    counted_others = sum(map(len, others.values()))
    batches, counted = [], {"arrivals": 0, "payloads": 0}
    beside: set[int] = set()
    for some in in_parts(parts, _AT_ONCE):
        with reading(engine, by_key=True) as connection:
            for part in some:
                found = _belongings(connection, *part)
                batches.append(Batch(*part, found.state))
                counted["arrivals"] += len(found.arrivals)
                counted["payloads"] += found.payloads
                beside |= found.beside
    return Plan(
        str(uuid.uuid4()), _mark_of(secret), basis, iso_utc(now), selection, batches, sorted(held_sms),
        sorted(held_quarantine), len(going), counted["arrivals"], counted["payloads"], counted_others,
        len(beside - set(going)), oldest, newest,
    )  # fmt: skip


def apply(
    engine: Engine, secret: bytes, plan: Plan, now: Callable[[], datetime],
    *, pause: float = PAUSE_SECONDS, stop: Callable[[], bool] = lambda: False,
) -> Iterator[Done]:  # fmt: skip
    """Do what `plan` says; give what was done so far before and after each batch. It may be called again.

    Raises IngestorError, if it can before the first batch, where the plan does not fit the archive any more.
    """
    if not hmac.compare_digest(plan.archive, _mark_of(secret)):
        raise IngestorError("this plan was made for another archive; make one here: ingestor erase plan")
    with reading(engine, by_key=True) as connection:
        done = _batches_done(connection, plan)
    left = [batch for number, batch in enumerate(plan.batches) if number not in done]
    for some in in_parts(left, _AT_ONCE):
        with reading(engine, by_key=True) as connection:
            for batch in some:
                _require_unchanged(connection, batch)
    so_far = Done(before=len(done))
    shrinking = words.Shrinking(engine, stop, pause)
    yield so_far
    for number, batch in enumerate(plan.batches):
        if number in done:
            continue
        if stop():
            return
        began = time.monotonic()
        so_far += _apply_batch(engine, plan, number, batch, now())
        took = time.monotonic() - began
        yield so_far
        time.sleep(max(pause, took / 3) if pause else 0)
        shrinking.took(len(batch.sms))


def came_meanwhile(engine: Engine, plan: Plan) -> list[int]:
    """Return the SMS that the plan's selection finds now and that it does not name: they are left."""
    selection = plan.selection
    if not (selection.numbers or selection.before):
        return []
    named = {one for batch in plan.batches for one in batch.sms} | set(plan.held_sms)
    with reading(engine) as connection:
        return [one for one in selected(connection, selection) if one not in named]


def _apply_batch(engine: Engine, plan: Plan, number: int, batch: Batch, now: datetime) -> Done:
    with writing(engine) as connection:
        keep_storing_out(connection)
        if _batches_done(connection, plan, number):
            return Done(before=1)  # somebody else applies the same plan
        found = _require_unchanged(connection, batch)
        counted = {
            "sms": len(batch.sms), "arrivals": len(found.arrivals), "payloads": found.payloads,
            "others": sum(map(len, batch.others.values())),
        }  # fmt: skip
        row = {"plan_id": plan.id, "batch": number, "basis": plan.basis, "erased_at": now, **counted}
        erasure = connection.execute(
            insert(tables.erasures).values(row).returning(tables.erasures.c.id)
        ).scalar()
        named = {"sms": batch.sms, "arrival": found.arrivals, **batch.others}
        _name(connection, [(kind, one) for kind, ids in named.items() for one in ids], int(erasure or 0))
        _take_out_of_quarantine(connection, found.unread, plan.basis, now)
    return Done(**counted, batches=1)


def _name(connection: Connection, rows: Sequence[tuple[str, int]], erasure: int) -> None:
    """Name rows, by kind and id, in `erased`: their content goes in the same statement."""
    if connection.dialect.name == "sqlite":
        # All in one statement: after each FTS5 writes a part of its index.
        connection.exec_driver_sql(
            "INSERT INTO erased (kind, row_id, erasure_id)"
            " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), ? FROM json_each(?)",
            (erasure, json.dumps(rows)),
        )
    else:
        connection.exec_driver_sql(
            "INSERT INTO erased (kind, row_id, erasure_id)"
            " SELECT kind, id, %s FROM unnest(%s::text[], %s::bigint[]) AS given (kind, id)"
            " ON CONFLICT DO NOTHING",
            (erasure, [kind for kind, _ in rows], [number for _, number in rows]),
        )


def _take_out_of_quarantine(
    connection: Connection, arrivals: Sequence[int], basis: str, now: datetime
) -> None:
    """Discard those that stand in the quarantine: there is nothing left to be read again."""
    r, a = tables.retries.c, tables.arrivals.c
    settled = select(r.arrival_id).where(or_(r.sms_id.is_not(None), r.outcome == "discarded"))
    query = select(a.id).where(a.outcome == "quarantined", a.id.not_in(settled))
    standing = sorted(number for (number,) in for_ids(connection, query, a.id, arrivals))
    write_discarded(connection, standing, f"erased: {basis}", now)


def _require_unchanged(connection: Connection, batch: Batch) -> _Belongings:
    """Return what goes with `batch`. Raises IngestorError where the plan does not fit any more."""
    standing = holds.standing(connection)
    held = standing.among(connection, batch.sms) | standing.arrivals.intersection(batch.quarantine)
    if held:
        raise IngestorError(
            f"{len(held)} of what the plan names came under a hold since (the first: {min(held)}); "
            "make a new plan, which leaves them out"
        )
    found = _belongings(connection, batch.sms, batch.quarantine, batch.others)
    if found.state != batch.state:
        first = (batch.sms or batch.quarantine or [0])[0]
        raise IngestorError(
            f"what the plan names has changed since it was made, in the batch that begins with {first}: "
            "it arrived again, was read again or was erased; make a new plan"
        )
    return found


def _batches_done(connection: Connection, plan: Plan, number: int | None = None) -> set[int]:
    e = tables.erasures.c
    query = select(e.batch).where(e.plan_id == plan.id)
    return set(connection.execute(query if number is None else query.where(e.batch == number)).scalars())


def _belongings(
    connection: Connection, sms: Sequence[int], quarantine: Sequence[int], others: Mapping[str, Sequence[int]]
) -> _Belongings:
    """Return what goes with these: every arrival of theirs, and every other one of the same bytes.

    Two items of one POST share its raw bytes: they go with the first of them that is erased.
    """
    # For an empty array PostgreSQL plans to filter a whole partial index, as EXPLAIN shows.
    given: list[Any] = [list(ids) or [-1] for ids in (sms, sms, quarantine)]
    if connection.dialect.name == "sqlite":
        given = [json.dumps(ids) for ids in given]
    found = connection.exec_driver_sql(_BELONGINGS[connection.dialect.name], tuple(given)).all()
    arrivals = sorted(row[0] for row in found)
    beside = {sms_id for _, sms_id, *_ in found if sms_id is not None} - set(sms)
    unread = sorted(number for number, _, outcome, _ in found if outcome == Outcome.QUARANTINED)
    payloads = sum(bool(kept) for *_, kept in found)
    gone = {kind: sorted(erased_among(connection, kind, ids)) for kind, ids in sorted(others.items())}
    erased = sorted(erased_among(connection, "sms", sms))
    state = json.dumps([sorted(sms), erased, sorted(quarantine), arrivals, payloads, gone]).encode()
    return _Belongings(arrivals, payloads, unread, beside, hashlib.sha256(state).hexdigest()[:32])


def _mark_of(secret: bytes) -> str:
    """Return what tells this archive from others, and says nothing of its key."""
    return hmac.digest(secret, b"erasure plans", "sha256").hex()[:16]


# SQLite overwrites what is deleted (`secure_delete`) from this schema on; what was written before may lie in
# free pages. And where rows move from one page to another, a copy may stay in a gap of the old page: of 5,480
# rows that were erased in many steps 2 were found so. `VACUUM` writes the file anew without either.
_CLEAN: Final = 1
"""Of PRAGMA user_version: every byte was written under `secure_delete`."""
_CHECKPOINT_SECONDS = 10.0
_BUSY_MS = 60_000


def leave_no_bytes(engine: Engine) -> str | None:
    """Leave no bytes of what was erased in the file, its -wal or the tables; return what is left to do."""
    if engine.dialect.name != "sqlite":
        _vacuum_tables(engine, "VACUUM")
        return None
    words.forget_erased(engine)
    file = open_file(engine)
    deadline = time.monotonic() + _CHECKPOINT_SECONDS
    while file is not None and file.checkpoint() is not None:
        if time.monotonic() > deadline:
            return (
                f"a reader keeps what was erased in {file.path.name}-wal: end its transaction; then "
                "`ingestor db vacuum` empties it at once, and a daemon within the hour"
            )
        time.sleep(0.05)
    with reading(engine) as connection:
        clean = connection.exec_driver_sql("PRAGMA user_version").scalar_one() == _CLEAN
    return None if clean else (
        "this archive was written by an earlier version: its free pages may hold what was erased until "
        "`ingestor db vacuum` was called once"
    )  # fmt: skip


def vacuum(engine: Engine) -> None:
    """Write the whole file, or the tables of content, anew; whoever stores meanwhile waits or spools."""
    if engine.dialect.name != "sqlite":
        _vacuum_tables(engine, "VACUUM (FULL)")
        return
    with translated(engine), engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        driver.execute("PRAGMA temp_store = FILE")  # it takes as much as the archive
        driver.execute("VACUUM")
        driver.execute("PRAGMA temp_store = MEMORY")
    with writing(engine) as connection:
        connection.exec_driver_sql(f"PRAGMA user_version = {_CLEAN}")
    leave_no_bytes(engine)


def _vacuum_tables(engine: Engine, how: str) -> None:
    """Let PostgreSQL go over the tables of content, as far as this role owns them."""
    with translated(engine), engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection  # no transaction: VACUUM takes none
        for table in tables.ERASABLE:
            driver.execute(f"{how} {table}")
