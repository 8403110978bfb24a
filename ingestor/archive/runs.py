"""Runs and their inputs: what was done when, and the balance that must add up."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, bindparam, func, insert, select, true, update

from ingestor import __version__
from ingestor.archive import tables
from ingestor.archive.columns import insert_once
from ingestor.archive.engine import reading, writing
from ingestor.redaction import as_text

IMPORT = "import"
"""The command whose runs go on where they were stopped."""


class Balance(NamedTuple):
    """How the items of a run ended."""

    read: int
    stored: int
    duplicate: int
    ignored: int
    quarantined: int
    failed: int

    @property
    def adds_up(self) -> bool:
        """Say whether every item read has its one outcome."""
        return self.read == self.stored + self.duplicate + self.ignored + self.quarantined + self.failed

    @property
    def outcomes(self) -> str:
        """How the items ended, as a sum for people: `4 stored + 0 duplicate + 1 ignored + …`."""
        names = [one for one in self._fields if one != "read"]
        return " + ".join(f"{getattr(self, name):,} {name}" for name in names)

    def __str__(self) -> str:
        return f"{self.read:,} read = {self.outcomes}"


class Run(NamedTuple):
    """One run of a command: times in aware UTC; `ended_at` is None while it runs or after it was killed."""

    id: int
    command: str
    options: Mapping[str, Any]
    version: str
    started_at: datetime
    ended_at: datetime | None
    balance: Balance


class RunInput(NamedTuple):
    """A file, or a member of one, that a run reads: `position` bytes are done, `sha256` is of those."""

    id: int
    path: str
    member: str | None
    size: int | None
    position: int
    sha256: bytes | None


def begin_run(engine: Engine, command: str, options: Mapping[str, Any], now: datetime) -> int:
    """Record that `command` begins at `now` (aware UTC); return the run's id."""
    with writing(engine) as connection:
        made = insert(tables.runs).values(
            command=command, options=json.dumps(dict(options), default=str, sort_keys=True),
            version=__version__, started_at=now,
        )  # fmt: skip
        return int(connection.execute(made.returning(tables.runs.c.id)).scalar_one())


def end_run(engine: Engine, run_id: int, now: datetime) -> None:
    """Record that the run ended at `now` (aware UTC); the first end counts.

    The row is written in any case: whoever tries again waits, like the first time, for the standby.
    """
    table = tables.runs
    with writing(engine) as connection:
        ended = func.coalesce(table.c.ended_at, bindparam("now", now, tables.Instant))
        connection.execute(update(table).where(table.c.id == run_id).values(ended_at=ended))


def reopen_run(engine: Engine, run_id: int) -> None:
    """Record that the run goes on; what had failed is tried again, so that it is not counted twice."""
    table = tables.runs
    again = {"ended_at": None, "read": table.c.read - table.c.failed, "failed": 0}
    with writing(engine) as connection:
        connection.execute(update(table).where(table.c.id == run_id).values(again))


def balance(engine: Engine, run_id: int) -> Balance:
    """Return the balance of a run so far. Raises LookupError where there is no such run."""
    return find_run(engine, run_id).balance


def lease_of(run_id: int) -> str:
    """Return the name of the lease that whoever works on the run keeps alive."""
    return f"run {run_id}"


def find_run(engine: Engine, run_id: int) -> Run:
    """Return one run. Raises LookupError where there is no such run."""
    for run in _runs(engine, tables.runs.c.id == run_id):
        return run
    raise LookupError(f"there is no run {run_id}")


def last_runs(engine: Engine, limit: int = 10) -> list[Run]:
    """Return the newest runs, newest first."""
    return _runs(engine, true(), limit)


def last_run_of(engine: Engine, commands: Sequence[str]) -> Run | None:
    """Return the newest run of any of `commands`, None where there is none."""
    return next(iter(_runs(engine, tables.runs.c.command.in_(commands))), None)


def begin_input(engine: Engine, run_id: int, path: str, member: str | None) -> int:
    """Return the id of the run's row for an input, made where there is none yet."""
    # A file name in another encoding is no valid text, and kept with escapes.
    place = {"run_id": run_id, "path": as_text(path), "member": as_text(member or "")}
    known = select(tables.run_inputs.c.id).where(
        *(tables.run_inputs.c[name] == value for name, value in place.items())
    )
    started = select(tables.runs.c.started_at).where(tables.runs.c.id == run_id).scalar_subquery()
    with writing(engine) as connection:
        insert_once(connection, tables.run_inputs, {**place, "updated_at": started})
        return int(connection.execute(known).scalar_one())


def inputs(engine: Engine, run_id: int) -> list[RunInput]:
    """Return the inputs of a run in the order they were begun."""
    table = tables.run_inputs
    with reading(engine) as connection:
        rows = connection.execute(select(table).where(table.c.run_id == run_id).order_by(table.c.id))
        return [
            RunInput(row.id, row.path, row.member or None, row.size, row.position, row.sha256) for row in rows
        ]


def _runs(engine: Engine, which: ColumnElement[bool], limit: int = 1) -> list[Run]:
    with reading(engine) as connection:
        rows = connection.execute(
            select(tables.runs).where(which).order_by(tables.runs.c.id.desc()).limit(limit)
        ).all()
    return [
        Run(
            row.id, row.command, json.loads(row.options), row.version, row.started_at, row.ended_at,
            Balance(*(getattr(row, name) for name in Balance._fields)),
        )
        for row in rows
    ]  # fmt: skip
