"""Conditions: what is wrong becomes open, is told once it has lasted, and once more when it is over.

A trouble must last for the minimum age before anybody is told, and be gone for as long before it is over: so
one that comes and goes a hundred times an hour is one condition, and two messages. The state stands in SQL.
Who still has to hear of it stands there as `owed`, and is taken out before it is told: a kill in between may
cost that message, but none is ever sent twice.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Engine, delete, select, update

from ingestor.archive.columns import insert_once
from ingestor.archive.engine import reading, writing
from ingestor.archive.tables import conditions
from ingestor.watch.troubles import Trouble

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """One row: `state` is `open`, `told` or `over`; times are aware UTC; `host` is empty where all share it.

    `gone_at`: since when it is not seen any more. `owed`: the channels that have still to hear of its state.
    """

    condition: str
    subject: str
    host: str
    state: str
    says: str
    fix: str
    grave: bool
    began_at: datetime
    gone_at: datetime | None = None
    owed: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What makes it the same condition."""
        return self.condition, self.subject, self.host


def step(
    known: Mapping[Key, Condition], troubles: Iterable[Trouble], now: datetime, age: timedelta,
    channels: Collection[str], unjudged: Collection[str] = (),
) -> dict[Key, Condition]:  # fmt: skip
    """Return the conditions at `now`, from those known so far and what is wrong now.

    `age`: how long a trouble lasts before it is told, and is gone before it is over. `channels` hear of it.
    Conditions of the names in `unjudged` could not be looked at, and stay as they are.
    """
    wrong = {(one.condition, one.subject, one.host): one for one in troubles}
    after = {}
    for key in {**known, **wrong}:
        before, trouble = _in_the_past(known.get(key), now), wrong.get(key)
        if before is not None and (key[0] in unjudged):
            after[key] = before
        elif trouble is not None:
            after[key] = _goes_on(before, trouble, now, age, channels)
        elif before is not None and (one := _fades(before, now, age, channels)) is not None:
            after[key] = one
    return after


def _in_the_past(before: Condition | None, now: datetime) -> Condition | None:
    """Let no time lie after `now`: under a clock that was set back a year nobody would hear for a year."""
    if before is None or max(before.began_at, before.gone_at or before.began_at) <= now:
        return before
    gone_at = before.gone_at and min(before.gone_at, now)
    return replace(before, began_at=min(before.began_at, now), gone_at=gone_at)


def _goes_on(
    before: Condition | None, trouble: Trouble, now: datetime, age: timedelta, channels: Collection[str]
) -> Condition:
    key = (trouble.condition, trouble.subject, trouble.host)
    if before is None or before.state == "over":
        began = before.began_at if before is not None and before.owed else now
        before = Condition(*key, "open", trouble.says, trouble.fix, trouble.grave, began)
    one = replace(before, says=trouble.says, fix=trouble.fix, grave=trouble.grave, gone_at=None)
    if one.state == "open" and now - one.began_at >= age:
        one = replace(one, state="told", owed=tuple(channels))
    return one


def _fades(before: Condition, now: datetime, age: timedelta, channels: Collection[str]) -> Condition | None:
    if before.state == "over":
        return before if before.owed else None
    one = before if before.gone_at is not None else replace(before, gone_at=now)
    if one.gone_at is None or now - one.gone_at < age:
        return one
    heard = tuple(channel for channel in channels if channel not in one.owed)
    # Who never heard of its beginning need not hear of its end.
    return replace(one, state="over", owed=heard) if one.state == "told" and heard else None


def load(engine: Engine, host: str) -> dict[Key, Condition]:
    """Return the conditions that all share and those of `host`. Raises IngestorError."""
    with reading(engine) as connection:
        rows = connection.execute(select(conditions).where(conditions.c.host.in_(("", host)))).mappings()
        found = [
            Condition(**{**row, "grave": bool(row["grave"]), "owed": tuple(row["owed"].split())})
            for row in rows
        ]
    return {one.key: one for one in found}


def save(engine: Engine, before: Mapping[Key, Condition], after: Mapping[Key, Condition]) -> None:
    """Write down what differs between `before` and `after`, but for rows that another daemon has changed."""
    gone = before.keys() - after.keys()
    changed = [one for one in after.values() if before.get(one.key) != one]
    if not gone and not changed:
        return
    with _at_once(engine) as connection:
        for key in gone:
            connection.execute(delete(conditions).where(*_is(before[key])))
        for one in changed:
            if one.key in before:
                connection.execute(update(conditions).where(*_is(before[one.key])).values(_values(one)))
            else:
                insert_once(connection, conditions, _values(one))


def claim(engine: Engine, one: Condition, owed: tuple[str, ...]) -> bool:
    """Write down that `one` is owed to `owed` from now on; return False where somebody else was faster."""
    with _at_once(engine) as connection:
        done = connection.execute(update(conditions).where(*_is(one)).values(owed=" ".join(owed)))
        return done.rowcount == 1


@contextmanager
def _at_once(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a write transaction that waits for no standby: that one is gone may be the very
    thing to be told. Whoever is promoted without it tells once more."""
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL synchronous_commit = local")
        yield connection


def _is(one: Condition) -> tuple[ColumnElement[bool], ...]:
    """Return what finds the row of `one`, while it says what `one` says of who was told."""
    names = ("condition", "subject", "host", "state", "owed")
    values = _values(one)
    return tuple(conditions.c[name] == values[name] for name in names)


def _values(one: Condition) -> dict[str, object]:
    return {**asdict(one), "grave": int(one.grave), "owed": " ".join(one.owed)}
