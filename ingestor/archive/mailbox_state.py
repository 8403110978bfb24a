"""Mailbox book-keeping outside the writer's transactions: cursors, pending work, sources, and leases.

A lease says which of several programs acts for a name, until when, by the database's clock alone. Two
machines' clocks differ, and an advisory lock of a dead machine stays until TCP gives up, or strands in a
pooler for an hour (goauthentik/authentik#23876): a row that runs out needs neither.
"""

import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Engine, and_, bindparam, delete, func, select, text, update

from ingestor.archive import runs, tables
from ingestor.archive.columns import insert_into
from ingestor.archive.engine import reading, writing
from ingestor.archive.items import Action, CursorMove, Pending
from ingestor.errors import IngestorError

ALIVE_SECONDS, RENEWED_SECONDS = 60.0, 15.0
"""How long a command that was killed still counts as running, and how often one that runs says so."""


class PendingWork(NamedTuple):
    """A pending thing, the `attempts` that failed, and why the last one did; times are aware UTC."""

    work: Pending
    attempts: int
    reason: str | None
    tried_at: datetime | None
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class Source:
    """How a source fares: `kind` is `mailbox` or `webhook`; times are aware UTC."""

    name: str
    kind: str
    state: str
    detail: str | None
    poll_seconds: int | None
    last_success: datetime | None
    updated_at: datetime


def read_cursor(engine: Engine, mailbox: str, folder: str) -> CursorMove | None:
    """Return the last move of a folder's cursor, None where it was never read."""
    c = tables.cursors.c
    query = select(*(c[name] for name in CursorMove._fields)).where(c.mailbox == mailbox, c.folder == folder)
    with reading(engine) as connection:
        row = connection.execute(query).first()
    return CursorMove(*row) if row else None


def reset_cursor(engine: Engine, mailbox: str, folder: str) -> None:
    """Forget how far a folder was read and what was pending in it, so that it is read from its beginning.

    For a server that renumbered its mails without saying so (our cursor lies beyond its UIDNEXT): a cursor
    never moves backwards by itself, and UIDs that were pending mean other mails now.
    """
    with writing(engine) as connection:
        for table in (tables.cursors, tables.pending):
            connection.execute(delete(table).where(table.c.mailbox == mailbox, table.c.folder == folder))


def pending_work(engine: Engine, mailbox: str | None = None, folder: str | None = None) -> list[PendingWork]:
    """Return pending work with its attempts, of one mailbox and folder or of all."""
    table = tables.pending
    named = ((table.c.mailbox, mailbox), (table.c.folder, folder))
    asked = (column == value for column, value in named if value is not None)
    query = select(table).where(*asked).order_by(*table.primary_key)
    with reading(engine) as connection:
        return [
            PendingWork(
                Pending(
                    row.mailbox, row.folder, row.uidvalidity, row.uid, Action(row.action), row.content_key
                ),
                row.attempts, row.reason, row.tried_at, row.noted_at,
            )
            for row in connection.execute(query)
        ]  # fmt: skip


def not_fetched(engine: Engine) -> list[PendingWork]:
    """Return the mails, of all mailboxes, that were asked for again and did not come so far."""
    return [one for one in pending_work(engine) if one.work.action is Action.FETCH and one.attempts]


def actions_pending(engine: Engine, mailbox: str) -> int:
    """Return how much is to be done on a mailbox, beside what is to be fetched."""
    table = tables.pending
    query = select(func.count()).where(table.c.mailbox == mailbox, table.c.action != Action.FETCH.value)
    with reading(engine) as connection:
        return connection.execute(query).scalar_one()


def note_failure(engine: Engine, pending: Pending, reason: str, now: datetime) -> None:
    """Count one more failed attempt at `pending`; `reason` is words without personal content."""
    table = tables.pending
    with writing(engine) as connection:
        connection.execute(
            update(table)
            .where(_is(pending))
            .values(attempts=table.c.attempts + 1, reason=reason, tried_at=now)
        )


def note_begun(engine: Engine, begun: Sequence[Pending], now: datetime) -> None:
    """Write down that something is done now that must not be done twice, before it is."""
    with writing(engine) as connection:
        for pending in begun:
            connection.execute(update(tables.pending).where(_is(pending)).values(tried_at=now))


def note_source(
    engine: Engine, name: str, kind: str, state: str, detail: str | None, poll_seconds: int | None,
    now: datetime, *, success: bool,
) -> None:  # fmt: skip
    """Write down how a source fares at `now` (aware UTC); `success` moves its last success to `now`."""
    values = {
        "name": name, "kind": kind, "state": state, "detail": detail, "poll_seconds": poll_seconds,
        "updated_at": now,
    }  # fmt: skip
    if success:
        values["last_success"] = now
    upsert = insert_into(tables.sources, engine.dialect.name).values(values)
    with writing(engine) as connection:
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=["name"], set_={key: value for key, value in values.items() if key != "name"}
            )
        )


def read_sources(engine: Engine) -> list[Source]:
    """Return all sources ever noted, by name."""
    with reading(engine) as connection:
        return [
            Source(*row) for row in connection.execute(select(tables.sources).order_by(tables.sources.c.name))
        ]


def senders_checked(engine: Engine, mailbox: str, since: datetime) -> tuple[Counter[bool | None], bool]:
    """Return the verdicts on senders of `mailbox` since then, counted, and whether there was one before."""
    a = tables.arrivals.c
    checked = (text(tables.SENDER_CHECKED), a.source == mailbox)
    begin = bindparam(None, since, tables.WholeSecond)
    verdicts = select(a.sender_verified, func.count()).where(*checked, a.ingested_at >= begin)
    earlier = select(a.id).where(*checked, a.ingested_at < begin).limit(1)
    with reading(engine) as connection:
        found = connection.execute(verdicts.group_by(a.sender_verified)).all()
        counts = Counter({None if value is None else bool(value): count for value, count in found})
        return counts, connection.execute(earlier).first() is not None


def drop_source(engine: Engine, name: str) -> None:
    """Forget a source that is no longer configured."""
    with writing(engine) as connection:
        connection.execute(delete(tables.sources).where(tables.sources.c.name == name))


def _is(pending: Pending) -> ColumnElement[bool]:
    columns = tables.pending.primary_key.columns
    return and_(*(column == value for column, value in zip(columns, pending.key, strict=True)))


NOW: Final = {"sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", "postgresql": "clock_timestamp()"}
"""The database's clock, by dialect."""
_END: Final = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+' || {} || ' seconds')",
    "postgresql": "clock_timestamp() + make_interval(secs => {})",
}


def take_lease(engine: Engine, name: str, holder: str, seconds: float) -> bool:
    """Take the lease `name` for `holder`, or renew it; say whether it is theirs for `seconds` from now."""
    dialect = engine.dialect.name
    end = _END[dialect].format
    statement = text(
        f"INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, {end(':seconds')})"  # noqa: S608 - constants
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at"
        f" WHERE leases.holder = excluded.holder OR leases.expires_at <= {NOW[dialect]}"
        # Nobody can have it for so long: it was taken before the database's clock was set back. Not more than
        # `excluded` says: that is from before this statement waited for the one that renews it.
        f" OR leases.expires_at > {end('(2 * :seconds)')} RETURNING name"
    )
    with writing(engine) as connection:
        given = {"name": name, "holder": holder, "seconds": seconds}
        return connection.execute(statement, given).first() is not None


def release_lease(engine: Engine, name: str, holder: str) -> None:
    """Let others take the lease at once, if it is `holder`'s."""
    statement = text("DELETE FROM leases WHERE name = :name AND holder = :holder")
    with writing(engine) as connection:
        connection.execute(statement, {"name": name, "holder": holder})


def live_leases(engine: Engine) -> set[str]:
    """Return the names of the leases that have not run out."""
    with reading(engine) as connection:
        now = NOW[engine.dialect.name]
        return set(connection.execute(text(f"SELECT name FROM leases WHERE expires_at > {now}")).scalars())  # noqa: S608 - constants


@contextlib.contextmanager
def kept_alive(engine: Engine, name: str) -> Iterator[None]:
    """Hold the lease `name` meanwhile, from a thread of its own: others see that this process lives."""
    ended, holder = threading.Event(), f"process {os.getpid()} on {socket.gethostname()}"

    def renew() -> None:
        while not ended.is_set():
            with contextlib.suppress(IngestorError):
                take_lease(engine, name, holder, ALIVE_SECONDS)
            ended.wait(RENEWED_SECONDS)

    renewing = threading.Thread(target=renew, name=f"lease of {name}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(IngestorError):
            release_lease(engine, name, holder)


@contextlib.contextmanager
def one_run(engine: Engine, command: str, options: Mapping[str, Any]) -> Iterator[int]:
    """Begin a run and give its number; others see that it lives. It ends with the block, in any case."""
    run = runs.begin_run(engine, command, options, datetime.now(UTC))
    try:
        with kept_alive(engine, runs.lease_of(run)):
            yield run
    finally:
        runs.end_run(engine, run, datetime.now(UTC))
