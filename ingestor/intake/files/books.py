"""The books of a run: begun or taken up again, and how far each of its inputs had been read."""

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
        known = self._known.pop((place.path, place.member), None)
        if known is not None:
            return Earlier(known.id, known.position, known.sha256)
        self._before()
        return Earlier(runs.begin_input(self._engine, self._run_id, place.path, place.member, None))

    def knows(self, place: Place) -> bool:
        """Say whether an earlier process of this run made a row for the input."""
        return (place.path, place.member) in self._known

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


def _gone(one: runs.RunInput) -> str:
    place = Place(one.path, one.member)
    return (
        f"{place} had been read up to {one.position} and is not there any more; what was read of it is safe"
    )
