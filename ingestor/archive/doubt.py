"""A commit that broke off: on PostgreSQL only the server knows whether it counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine

from ingestor.archive.engine import reading

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Commit(Generic[Result]):
    transaction: str
    submissions: Sequence[object]
    results: list[Result]

    def is_of(self, submissions: Sequence[object]) -> bool:
        return len(submissions) == len(self.submissions) and all(map(is_, submissions, self.submissions))


class Doubt(Generic[Result]):
    """Remembers the transaction under way, so that whoever tries again can ask what became of it.

    Writing the same submissions again would store nothing twice, but would count each item of the run once
    more.
    """

    def __init__(self) -> None:
        self._commit: _Commit[Result] | None = None

    @property
    def pending(self) -> bool:
        """Whether the last commit has not been heard of."""
        return self._commit is not None

    def begin(
        self, connection: Connection, submissions: Sequence[object], results: list[Result],
        number: str | None = None,
    ) -> None:  # fmt: skip
        """Note, last of all in a transaction, what its commit will have done; `number` is known already."""
        if connection.dialect.name == "postgresql":
            if number is None:
                number = str(connection.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar())
            self._commit = _Commit(number, submissions, results)

    def end(self) -> None:
        """Note that the commit was heard of."""
        self._commit = None

    def settle(self, engine: Engine, submissions: Sequence[object]) -> list[Result] | None:
        """Return the results of a commit that broke off, if it is in the archive with these submissions.

        Raises ArchiveUnavailable where the database is still away; the doubt stays.
        """
        commit = self._commit
        if commit is None or not commit.is_of(submissions):
            self._commit = None
            return None
        with reading(engine) as connection:
            status = connection.exec_driver_sql(
                "SELECT pg_xact_status(%s::text::xid8)", (commit.transaction,)
            ).scalar()
        self._commit = None
        return commit.results if status == "committed" else None
