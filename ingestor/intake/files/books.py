"""The books of a run: begun or taken up again, and how far each of its inputs had been read."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from ingestor.archive import runs
from ingestor.errors import ConfigurationError
from ingestor.intake.files.inputs import Earlier
from ingestor.intake.files.sources import Place

COMMAND = "import"

LONGEST_NAME = 1000
"""Bytes of a path or a member's name: a longer one is kept short in the books, whole with its arrivals."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run to be taken up again: what it was asked for, and whether it reached its end with nothing left."""

    run_id: int
    options: Mapping[str, Any]
    ended: bool


def find(engine: Engine, run_id: int) -> Resumed:
    """Return the import `run_id`. Raises ConfigurationError when there is none."""
    try:
        run = runs.find_run(engine, run_id)
    except LookupError:
        raise ConfigurationError(f"there is no run {run_id}; `ingestor status` lists the last runs") from None
    if run.command != COMMAND:
        raise ConfigurationError(f"run {run_id} was `{run.command}`, not an import; only imports are resumed")
    return Resumed(run_id, run.options, run.ended_at is not None and not run.balance.failed)


class Books:
    """Opens inputs for one run."""

    def __init__(self, engine: Engine, run_id: int, before: Callable[[], None] = lambda: None) -> None:
        """`before` is called before each write, to leave room for others."""
        self._engine = engine
        self._run_id = run_id
        self._before = before
        self._known = {(one.path, one.member): one for one in runs.inputs(engine, run_id)}

    def begin(self, place: Place) -> Earlier:
        """Return how far the input at `place` had been read, and its row."""
        path, member = _key(place)
        known = self._known.pop((path, member), None)
        if known is not None:
            return Earlier(known.id, known.position, known.sha256)
        self._before()
        return Earlier(runs.begin_input(self._engine, self._run_id, path, member, None))

    def has_read(self, place: Place, size: int) -> bool:
        """Say whether an earlier process of this run read an input of so many bytes to its end."""
        known = self._known.get(_key(place))
        return known is not None and known.position == size

    def missing(self) -> list[tuple[str, str]]:
        """Return path and sentence of each input that was not read to its end and was not met again."""
        return [
            (one.path, _gone(one))
            for one in self._known.values()
            if one.position and (one.size is None or one.position < one.size)
        ]

    def end(self) -> None:
        """Record that the run reached its end."""
        self._before()
        runs.end_run(self._engine, self._run_id, datetime.now(UTC))


def _key(place: Place) -> tuple[str, str | None]:
    """Return the place as the books have it: an index of PostgreSQL's takes no key beyond 2.7 kB."""
    return _short(place.path), None if place.member is None else _short(place.member)


def _short(name: str) -> str:
    whole = name.encode("utf-8", "replace")
    if len(whole) <= LONGEST_NAME:
        return name
    return f"{name[:100]}…{name[-100:]} ({hashlib.sha256(whole).hexdigest()})"


def _gone(one: runs.RunInput) -> str:
    place = Place(one.path, one.member)
    return (
        f"{place} had been read up to {one.position} and is not there any more; what was read of it is safe"
    )
