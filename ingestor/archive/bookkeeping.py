"""What moves with the rows of a transaction: run counters, cursors, pending work, input positions; and the
delivery reports that a POST brought."""

import hmac
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, update

from ingestor.archive.columns import insert_into, insert_once
from ingestor.archive.items import Pending, Receipt, ReportItem, Row, Submission
from ingestor.archive.payloads import compress
from ingestor.archive.reply_tables import delivery_report_content, delivery_reports
from ingestor.archive.tables import Big, cursors, look_alikes, pending, run_inputs, runs
from ingestor.errors import RunTaken
from ingestor.providers.contract import Report
from ingestor.record import Channel, Outcome
from ingestor.timestamps import iso_utc

_DONE = (Outcome.STORED, Outcome.DUPLICATE)
_PLACE = tuple(pending.primary_key.columns.keys())
_LOOK_ALIKE = ("run_id", "source", "missing", "number")
_MOVED = ("uidvalidity", "last_uid", "accounts", "uids", "marks", "updated_at")

_count = (
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        mark=bindparam("its_mark"),
        **{name: runs.c[name] + bindparam(f"more_{name}") for name in ("read", *Outcome)},
    )
)
_remove = delete(pending).where(*(pending.c[name] == bindparam(f"the_{name}") for name in _PLACE))
_advance = (
    update(run_inputs)
    .where(
        run_inputs.c.id == bindparam("input"),
        run_inputs.c.position == func.coalesce(bindparam("since", type_=Big), run_inputs.c.position),
    )
    .values(
        position=bindparam("to"),
        sha256=bindparam("prefix"),
        size=func.coalesce(bindparam("whole", type_=run_inputs.c.size.type), run_inputs.c.size),
        updated_at=bindparam("now"),
    )
)


@cache
def _upserts(dialect: str) -> tuple[Any, Any, Any]:
    move = insert_into(cursors, dialect)
    move = move.on_conflict_do_update(
        index_elements=["mailbox", "folder"],
        set_={name: move.excluded[name] for name in _MOVED},
        # Only forward; under another UIDVALIDITY the old number means nothing.
        where=or_(
            cursors.c.uidvalidity != move.excluded.uidvalidity, cursors.c.last_uid <= move.excluded.last_uid
        ),
    )
    note = insert_into(pending, dialect)
    note = note.on_conflict_do_update(
        index_elements=list(_PLACE),
        set_={"content_key": note.excluded.content_key},
        # The server gave the UID to another mail, which was read meanwhile.
        where=pending.c.content_key.is_distinct_from(
            func.coalesce(note.excluded.content_key, pending.c.content_key)
        ),
    )
    add = insert_into(look_alikes, dialect)
    add = add.on_conflict_do_update(
        index_elements=["run_id", "source", "missing"],
        set_={"number": look_alikes.c.number + add.excluded.number, "last_at": add.excluded.last_at},
    )
    return move, note, add


class Work(NamedTuple):
    """A submission, its rows, made before the transaction begins, and what that makes of them."""

    submission: Submission
    rows: Sequence[Row]
    receipt: Receipt = Receipt(())


def keep_books(connection: Connection, written: Sequence[Work], now: datetime, mark: bytes) -> None:
    """Write all that submissions move besides their rows, and into their runs the `mark` (see `store`)."""
    move, note, add = _upserts(connection.dialect.name)
    _count_runs(connection, written, mark)
    submissions = [one.submission for one in written]
    # In the order of their keys, so that two daemons cannot wait for each other.
    for seen in sorted((one.run_id, *kind) for one in submissions if one.run_id for kind in one.look_alikes):
        connection.execute(add, dict(zip(_LOOK_ALIKE, seen, strict=True), last_at=now))
    moves = [one.cursor for one in submissions if one.cursor is not None]
    for cursor in sorted(moves, key=lambda one: (one.mailbox, one.folder)):
        connection.execute(move, {**cursor._asdict(), "updated_at": now})
    to_do = [work for one in submissions for work in one.to_do]
    to_do += [work for one in written for work in _after_store(one)]
    if to_do:
        noted = {work.key: work.content_key for work in to_do}
        connection.execute(note, [
            dict(zip(_PLACE, key, strict=True), content_key=noted[key], noted_at=now) for key in sorted(noted)
        ])  # fmt: skip
    done = sorted({work.key for submission in submissions for work in submission.done})
    if done:
        connection.execute(
            _remove, [{f"the_{name}": value for name, value in zip(_PLACE, key, strict=True)} for key in done]
        )
    for submission in submissions:
        for step in submission.progress:
            values = {
                "input": step.input_id, "to": step.position, "prefix": step.sha256, "whole": step.size,
                "since": step.since, "now": now,
            }  # fmt: skip
            if connection.execute(_advance, values).rowcount != 1:
                raise RunTaken(
                    "another process goes on with the same run; this one ends, and nothing is counted twice"
                )


def _count_runs(connection: Connection, written: Sequence[Work], mark: bytes) -> None:
    totals: dict[int, Counter[str]] = {}
    for submission, _, receipt in written:
        if submission.run_id is None:
            continue
        counts = totals.setdefault(submission.run_id, Counter())
        counts.update(receipt.outcomes)
        counts[Outcome.IGNORED] += submission.ignored
        counts[Outcome.FAILED] += submission.failed
    for run_id in sorted(totals):
        counts = totals[run_id]
        more = {f"more_{outcome}": counts[outcome] for outcome in Outcome}
        more["more_read"] = sum(counts.values())
        connection.execute(_count, {"run": run_id, "its_mark": mark, **more})


def _after_store(written: Work) -> Iterator[Pending]:
    """Yield what is to be done on the server for the mails that are safe now."""
    action = written.submission.after_store
    if action is None:
        return
    for row, outcome in zip(written.rows, written.receipt.outcomes, strict=True):
        folder, uidvalidity, uid = row.place.folder, row.place.uidvalidity, row.place.uid
        if outcome not in _DONE or row.channel != Channel.MAILBOX:
            continue
        if folder is not None and uidvalidity is not None and uid is not None:
            yield Pending(row.source, folder, uidvalidity, uid, action, row.content_key)


def write_report(connection: Connection, secret: bytes, run_id: int | None, item: ReportItem) -> Outcome:
    """Insert a report where it is not there yet, in the caller's transaction; return its outcome.

    A POST that is given again (from the spool, after a doubtful commit) is the same report, a `duplicate`; a
    report that the provider sends again is one more row, which the view counts.
    """
    report = item.report
    values = {
        "post": item.post, "number": item.number, "report_hmac": _report_hmac(secret, report),
        "message_id": report.message_id, "shape": report.shape, "status": report.status,
        "status_raw": report.status_raw, "part": report.part, "parts": report.parts,
        "operator": report.operator, "price": report.price, "done_at": report.done_at,
        "source": item.source, "run_id": run_id, "arrived_at": item.arrived_at,
    }  # fmt: skip
    report_id = insert_once(connection, delivery_reports, values)
    if report_id is None:
        return Outcome.DUPLICATE
    connection.execute(insert(delivery_report_content).values(
        report_id=report_id, destination=report.destination, content_type=item.content_type,
        payload=compress(item.raw), salt=secrets.token_bytes(32),
    ))  # fmt: skip
    return Outcome.STORED


def _report_hmac(secret: bytes, report: Report) -> bytes:
    done = "" if report.done_at is None else iso_utc(report.done_at)
    told = (report.message_id, report.destination or "", str(report.part), report.status, done)
    return hmac.digest(secret, b"report\0" + "\0".join(told).encode(), "sha256")
