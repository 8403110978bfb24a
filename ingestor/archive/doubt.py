"""A commit whose answer never came: only a row of our own tells whether it took place.

The number of a transaction does not: a server that lost it in a crash, or a standby that never had it, gives
the number to somebody else's transaction. So each transaction writes a fresh mark into the row of its run.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from sqlalchemy import Engine, text, update

from ingestor.archive.engine import writing
from ingestor.archive.tables import runs

_PATIENCE = text("SET LOCAL lock_timeout = '10s'")


def new_mark() -> bytes:
    """Return what one transaction writes into the rows of its runs, and no other ever does."""
    return secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class _Commit:
    run_id: int
    mark: bytes
    submissions: Sequence[Any]
    results: Any

    def is_of(self, submissions: Sequence[Any]) -> bool:
        return len(submissions) == len(self.submissions) and all(map(is_, submissions, self.submissions))


class Doubt:
    """Remembers the commit under way, so that whoever tries again can ask what became of it.

    Writing the same submissions again would store nothing twice, but would count each item of the run once
    more.
    """

    def __init__(self) -> None:
        self._commit: _Commit | None = None

    def begin(self, run_id: int | None, mark: bytes, submissions: Sequence[Any], results: Any) -> None:
        """Note, last of all in a transaction, what its commit will have done; `mark` stands in `run_id`."""
        self._commit = None if run_id is None else _Commit(run_id, mark, submissions, results)

    def end(self) -> None:
        """Note that the commit was heard of."""
        self._commit = None

    def settle(self, engine: Engine, submissions: Sequence[Any]) -> Any:
        """Return the results of a commit that was not heard of, None where it did not take place.

        The row is written once more, with the mark that it has: that waits for a transaction that still has
        it in hand, and its commit waits for the standby that the first one may have lost. Raises
        ArchiveUnavailable where that cannot be known yet; the doubt stays.
        """
        commit = self._commit
        if commit is None or not commit.is_of(submissions):
            self._commit = None
            return None
        touch = update(runs).where(runs.c.id == commit.run_id).values(mark=runs.c.mark).returning(runs.c.mark)
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(_PATIENCE)
            found = connection.execute(touch).scalar()
        self._commit = None
        return commit.results if found is not None and bytes(found) == commit.mark else None
