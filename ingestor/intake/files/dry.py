"""What an import would do: the whole way, but the keys go to a temporary database and the archive stays."""

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from sqlalchemy import Engine, select

from ingestor.archive.engine import reading
from ingestor.archive.inserts import inserts_for, sms_by_content_key
from ingestor.archive.prepared import PreparedSubmission, Row, Where
from ingestor.archive.tables import archive_key
from ingestor.errors import SchemaMismatch, TemporaryFolderFull
from ingestor.intake.files.books import MOST_LISTED, Earlier, Remark
from ingestor.intake.files.leaves import Place
from ingestor.providers.contract import near_miss_in_words
from ingestor.record import Outcome

_KEY_BYTES = 32


class DrySink:
    """Judges as the archive would. Use it as a context manager: the keys of the run go with it."""

    limit = 4000

    def __init__(self, engine: Engine | None) -> None:
        """`engine` reads the archive; None where there is none yet."""
        self.duplicates: list[Remark] = []
        self.duplicate_count = 0
        self.reasons: Counter[str] = Counter()
        self._engine = engine
        self.secret = os.urandom(_KEY_BYTES) if engine is None else _read_key(engine)
        self._folder = tempfile.TemporaryDirectory(prefix="ingestor-dry-run-")
        self._keys = sqlite3.connect(Path(self._folder.name) / "keys.db", isolation_level=None)
        self._keys.execute("PRAGMA journal_mode = OFF")
        self._keys.execute("PRAGMA synchronous = OFF")
        self._keys.execute(
            "CREATE TABLE seen (fingerprint BLOB PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID"
        )

    def __enter__(self) -> "DrySink":
        return self

    def __exit__(self, *_: object) -> None:
        self._keys.close()
        self._folder.cleanup()

    def write(self, submissions: Sequence[PreparedSubmission]) -> list[Sequence[Outcome]]:
        """Return the outcomes the archive would give; write nothing there.

        Raises TemporaryFolderFull.
        """
        try:
            return self._write(submissions)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise
            raise TemporaryFolderFull(
                f"a dry run has no room for its keys in {tempfile.gettempdir()}; make room, or name another "
                "folder in TMPDIR"
            ) from None

    def _write(self, submissions: Sequence[PreparedSubmission]) -> list[Sequence[Outcome]]:
        known, read_before = self._look_up([row for submission in submissions for row in submission.rows])
        self._keys.execute("BEGIN")
        outcomes = [
            [
                self._judge(row, where, known, read_before)
                for row, where in zip(submission.rows, submission.places, strict=True)
            ]
            for submission in submissions
        ]
        self._keys.execute("COMMIT")
        return list(outcomes)

    def _look_up(self, rows: Sequence[Row]) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """Return the ids of known SMS by fingerprint, and of those that known mails became by content key."""
        if self._engine is None or not rows:
            return {}, {}
        unique = [row[12][0] for row in rows if row[12] is not None]
        with reading(self._engine) as connection:
            inserts = inserts_for(connection)
            known = inserts.sms_by_fingerprint(unique) if unique else {}
            return known, sms_by_content_key(inserts, [row[2] for row in rows])

    def _judge(
        self, row: Row, where: Where, known: dict[bytes, int], read_before: dict[bytes, int]
    ) -> Outcome:
        path, member, offset = where
        place = str(Place(path, member))
        unique = row[12][0] if row[12] is not None else None
        if unique in known:
            self._note_duplicate(place, offset, f"SMS {known[unique]} in the archive")
            return Outcome.DUPLICATE
        if row[2] in read_before:
            self._note_duplicate(place, offset, f"the mail that became SMS {read_before[row[2]]}")
            return Outcome.DUPLICATE
        if unique is None:
            self.reasons[near_miss_in_words(row[11])] += 1
            return Outcome.QUARANTINED
        new = self._keys.execute(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING", (unique, f"{place} at {offset}")
        )
        if new.rowcount:
            return Outcome.STORED
        (first,) = self._keys.execute("SELECT place FROM seen WHERE fingerprint = ?", (unique,)).fetchone()
        self._note_duplicate(place, offset, f"the one in {first}")
        return Outcome.DUPLICATE

    def _note_duplicate(self, place: str, offset: int, of: str) -> None:
        self.duplicate_count += 1
        if len(self.duplicates) < MOST_LISTED:
            self.duplicates.append(Remark(place, offset, of))


class DryBooks:
    """Opens inputs where no books are kept."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def begin(self, _place: Place) -> Earlier:
        """Return an input at its beginning."""
        return Earlier(next(self._numbers))

    def has_read(self, _place: Place, _size: int) -> bool:
        """Return False: there is no earlier process."""
        return False

    def missing(self) -> list[tuple[str, str]]:
        """Return nothing: nothing was begun earlier."""
        return []


def _read_key(engine: Engine) -> bytes:
    with reading(engine) as connection:
        secret = connection.execute(select(archive_key.c.secret)).scalar()
    if secret is None:
        raise SchemaMismatch("this archive has no key: it is a snapshot, and nothing can be imported into it")
    return bytes(secret)
