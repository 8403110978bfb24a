"""Where an import's submissions go: the archive, in transactions that leave room for the daemon."""

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from ingestor.archive.items import Receipt, Submission
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable

PATIENCE = 60.0
"""How many seconds a database may be away before the import gives up; what is committed stays."""

LONGEST_TRANSACTION = 0.12
"""Seconds aimed at on SQLite, so that a daemon beside us never waits for half a second."""

GAP = 0.02
"""Seconds without a transaction after each on SQLite: its lock is not fair, a waiter only polls for it."""

FEWEST, MOST = 500, 10_000


class Sink(Protocol):
    """What the importer writes to."""

    @property
    def limit(self) -> int:
        """How many items should go into one batch."""

    def write(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Make `submissions` durable together; return the receipt of each.

        Raises ArchiveUnavailable when that cannot be done.
        """


class ArchiveSink:
    """Writes to the archive itself."""

    def __init__(
        self, store: Store, stopping: Callable[[], bool], tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """`stopping` says whether the user wants to end: then a missing database is not waited for. `tell`
        hears why it is waited for."""
        self._tell = tell
        self._store = store
        self._stopping = stopping
        self._shared = store.in_a_file
        self._limit = 2000
        self._last_end = 0.0

    @property
    def limit(self) -> int:
        """How many items should go into one batch."""
        return self._limit

    def write(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Commit; where the database is away for a while, wait for it."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.1
        told = False
        while True:
            self.leave_room()
            begin = time.monotonic()
            try:
                receipts = self._store.write(submissions, datetime.now(UTC))
            except ArchiveUnavailable as error:
                if time.monotonic() > deadline or self._stopping():
                    raise
                if not told:
                    self._tell(f"{error}; trying for {PATIENCE:.0f} s")
                    told = True
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter, no secret
                pause = min(pause * 2, 5.0)
            else:
                self._note(time.monotonic() - begin, sum(len(one.items) for one in submissions))
                return receipts

    def leave_room(self) -> None:
        """Wait until others have had their chance to write."""
        if self._shared:
            rest = self._last_end + GAP - time.monotonic()
            if rest > 0:
                time.sleep(rest)

    def _note(self, seconds: float, items: int) -> None:
        self._last_end = time.monotonic()
        if self._shared and items >= FEWEST // 2:
            fitting = int(items * LONGEST_TRANSACTION / max(seconds, 0.001))
            self._limit = max(FEWEST, min(MOST, fitting))
