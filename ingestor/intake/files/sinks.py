"""Where an import's submissions go: the archive, in transactions that leave room for a daemon; or a dry run.

A dry run goes the whole way, in a temporary archive: before each transaction all that the real archive (which
is only read) knows of its keys is copied there, under ids below zero; then the rows are stored there, without
their texts and bytes.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, insert, select

from ingestor.archive import tables
from ingestor.archive.engine import open_engine, reading, writing
from ingestor.archive.inserts import arrivals_by_key, insert_new, read_archive_key, sms_by_fingerprint
from ingestor.archive.items import ArrivalColumns, PlaceColumns, Receipt, Row, SmsColumns, Submission
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable, TemporaryFolderFull
from ingestor.intake.files.books import Listing
from ingestor.intake.files.leaves import Place
from ingestor.pauses import pauses
from ingestor.providers.contract import near_miss_in_words
from ingestor.record import FINGERPRINT_VERSION, Outcome

PATIENCE = 60.0
"""How many seconds a database may be away before the import gives up; what is committed stays."""

LONGEST_TRANSACTION = 0.12
"""Seconds aimed at on SQLite, so that a daemon beside us never waits for half a second."""

GAP = 0.02
"""Seconds without a transaction after each on SQLite: its lock is not fair, a waiter only polls for it."""

FEWEST, MOST = 500, 10_000

_KEY_BYTES = 32


class ArchiveSink:
    """Writes to the archive itself."""

    def __init__(
        self, store: Store, stopping: Callable[[], bool], tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """While `stopping` a missing database is not waited for; `tell` hears why it is waited for."""
        self._tell = tell
        self._store = store
        self._stopping = stopping
        self._shared = store.in_a_file
        self.beside = not self._shared
        self._limit = 2000 if self._shared else 4000  # on PostgreSQL 100,000 mails took 11.3 s, and 11.0
        self._last_end = 0.0

    @property
    def limit(self) -> int:
        """How many items should go into one batch."""
        return self._limit

    def write(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Make all durable together; return the receipts. Raises ArchiveUnavailable after `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        lengths = pauses(0.1, 5.0)
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
                time.sleep(next(lengths))
            else:
                self._note(time.monotonic() - begin, sum(len(one.items) for one in submissions))
                return receipts

    def leave_room(self) -> None:
        if self._shared:
            rest = self._last_end + GAP - time.monotonic()
            if rest > 0:
                time.sleep(rest)

    def _note(self, seconds: float, items: int) -> None:
        self._last_end = time.monotonic()
        if self._shared and items >= FEWEST // 2:
            fitting = int(items * LONGEST_TRANSACTION / max(seconds, 0.001))
            self._limit = max(FEWEST, min(MOST, fitting))


class DrySink:
    """Judges as the archive would. Use it as a context manager: the temporary archive goes with it."""

    limit = 4000
    beside = False

    def __init__(self, engine: Engine | None) -> None:
        """`engine` reads the archive; None where there is none yet."""
        self.duplicates = Listing()
        self.reasons: Counter[str] = Counter()
        self._engine = engine
        self.secret = os.urandom(_KEY_BYTES) if engine is None else read_archive_key(engine)
        self._folder = tempfile.TemporaryDirectory(prefix="ingestor-dry-run-")
        self._temporary = open_engine(f"sqlite:///{Path(self._folder.name) / 'archive.db'}")
        self._store = Store(self._temporary)

    def __enter__(self) -> "DrySink":
        event.listen(self._temporary, "connect", _in_a_hurry)
        with _in_temporary_folder(), writing(self._temporary) as connection:
            tables.metadata.create_all(connection)
            key = {"id": 1, "secret": self.secret, "created_at": datetime.now(UTC)}
            connection.execute(insert(tables.archive_key), key)
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.dispose()
        self._folder.cleanup()

    def write(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Return the receipts the archive would give; write nothing there. Raises TemporaryFolderFull."""
        rows = [row for one in submissions for row in one.items if isinstance(row, Row)]
        known = self._copy_known(rows)
        bare = [
            Submission(None, [_bare(row) for row in one.items if isinstance(row, Row)]) for one in submissions
        ]
        with _in_temporary_folder():
            receipts = self._store.write(bare, datetime.now(UTC))
        for one, receipt in zip(submissions, receipts, strict=True):
            for row, outcome, sms_id in zip(one.items, receipt.outcomes, receipt.sms_ids, strict=True):
                if outcome is Outcome.QUARANTINED:
                    self.reasons[near_miss_in_words(row.reason or "")] += 1
                elif outcome is Outcome.DUPLICATE and isinstance(row, Row):
                    self._note_duplicate(row, sms_id, known)
        return receipts

    def _copy_known(self, rows: Sequence[Row]) -> dict[bytes, int]:
        """Copy what the real archive knows of the keys of `rows`; return the ids of known SMS."""
        if self._engine is None or not rows:
            return {}
        with reading(self._engine) as connection:
            known = sms_by_fingerprint(connection, [row.sms.fingerprint for row in rows if row.sms])
            arrivals = arrivals_by_key(connection, [row.content_key for row in rows])
        with _in_temporary_folder(), writing(self._temporary) as connection:
            insert_new(connection, tables.sms, [_known_sms(*one) for one in known.items()])
            insert_new(connection, tables.arrivals, [_known_arrival(*one) for one in arrivals.items()])
        return known

    def _note_duplicate(self, row: Row, sms_id: int | None, known: dict[bytes, int]) -> None:
        if sms_id is None:
            of = "the same bytes, read before"
        elif sms_id > 0:
            of = f"the one in {self._first_place(sms_id)}"
        elif row.sms is not None and row.sms.fingerprint in known:
            of = f"SMS {-sms_id} in the archive"
        else:
            of = f"the mail that became SMS {-sms_id}"
        self.duplicates.add(_place(row), row.place.byte_offset or 0, of)

    def _first_place(self, sms_id: int) -> str:
        a, content = tables.arrivals, tables.arrival_content
        where = (
            select(content.c.input, content.c.member, a.c.byte_offset)
            .join_from(a, content, content.c.arrival_id == a.c.id)
            .where(a.c.sms_id == sms_id)
            .order_by(a.c.id)
        )
        with reading(self._temporary) as connection:
            first = connection.execute(where).first()
        return f"{Place(first.input, first.member)} at {first.byte_offset}" if first else "this run"


def _in_a_hurry(driver: Any, _record: Any) -> None:
    """Nothing of the temporary archive need outlast a crash; what it names may stand in the real one only."""
    driver.execute("PRAGMA synchronous = OFF")
    driver.execute("PRAGMA foreign_keys = OFF")


@contextmanager
def _in_temporary_folder() -> Iterator[None]:
    try:
        yield
    except ArchiveUnavailable as fault:
        raise TemporaryFolderFull(
            f"a dry run keeps its keys in {tempfile.gettempdir()}: {fault}; or name another folder in TMPDIR"
        ) from None


def _bare(row: Row) -> Row:
    content = row.arrival_content._replace(message_id=None, subject=None)
    return row._replace(arrival_content=content, content=None, payload=None)


def _known_sms(fingerprint: bytes, number: int) -> tuple[Any, ...]:
    columns = SmsColumns(
        fingerprint=fingerprint, fingerprint_version=FINGERPRINT_VERSION, provider="",
        originator_kind="unknown", destination="", date_time="", received_at="", time_quality="ok",
        provider_message_id=None, segments=None,
    )  # fmt: skip
    return -number, "", *columns


def _known_arrival(key: tuple[bytes, int, str, bytes], known: tuple[int, int | None]) -> tuple[Any, ...]:
    (content_key, number, channel, place), (arrival_id, sms_id) = key, known
    columns = ArrivalColumns(
        id=-arrival_id, content_key=content_key, channel=channel, number=number, source="",
        sender_verified=None, size=None, outcome="quarantined" if sms_id is None else "duplicate",
        reason="known", sms_id=None if sms_id is None else -sms_id, parser="", run_id=None, arrived_at="",
        ingested_at="", sender_check_id=None,
    )  # fmt: skip
    return columns + PlaceColumns(place, None, None, None, None, None)


def _place(row: Row) -> str:
    return str(Place(row.arrival_content.input or "", row.arrival_content.member))
