"""The one store: what an intake hands over becomes durable in one transaction, each item with its outcome.

After a COMMIT whose answer never came only a row of our own tells whether it took place. The number of a
transaction does not: a server that lost it in a crash, or a standby that never had it, gives the number to
somebody else's transaction. So each transaction writes a fresh mark into the rows of its runs.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from operator import is_

from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import DBAPIError

from ingestor.archive.bookkeeping import Work, keep_books, write_report
from ingestor.archive.engine import reading, writing
from ingestor.archive.faults import DATA_ERRORS, is_data_error, place, refused
from ingestor.archive.inserts import arrivals_by_key, read_archive_key
from ingestor.archive.items import Item, Receipt, Row, Submission
from ingestor.archive.rows import keys_of_earlier_post, row_of, unreadable
from ingestor.archive.settle import OnStored, ReadBefore, settle
from ingestor.archive.tables import runs
from ingestor.errors import ArchiveUnavailable, RunLost, TransactionGivenUp
from ingestor.logs import get_logger
from ingestor.pauses import pauses
from ingestor.record import Outcome

_CONFLICT_TRIES = 8
_REFUSED_IN_A_ROW = 3
_SAY_SECONDS = 3600.0
_PATIENCE = text("SET LOCAL lock_timeout = '10s'")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _UnknownCommit:
    """The commit under way, of which nothing was heard yet: what it will have done, and how that is seen."""

    run_id: int
    mark: bytes
    submissions: Sequence[Submission]
    receipts: list[Receipt]

    def is_of(self, submissions: Sequence[Submission]) -> bool:
        """Say whether these submissions, and no others like them, were committed."""
        return len(submissions) == len(self.submissions) and all(map(is_, submissions, self.submissions))


class Store:
    """Writes submissions into one archive. Safe to use from one thread at a time."""

    def __init__(self, engine: Engine, on_stored: OnStored | None = None) -> None:
        self.engine = engine
        self.held: str | None = None
        """Why nothing may be written though the database would take it, None where it may."""
        self.in_a_file = engine.dialect.name == "sqlite"
        self._on_stored = on_stored
        self._secret: bytes | None = None
        self._unknown: _UnknownCommit | None = None
        self._refused = 0  # items in a row, with none stored in between
        self._said = -_SAY_SECONDS

    def write(self, submissions: Sequence[Submission], now: datetime) -> list[Receipt]:
        """Commit `submissions` in one transaction; return a receipt for each, in their order.

        `now` is aware UTC. An item that the database refuses goes to the quarantine. Raises
        ArchiveUnavailable, with nothing written, where the database cannot take a write now.
        """
        if not submissions:
            return []
        if self.held is not None:
            raise ArchiveUnavailable(self.held)
        receipts = self._what_became_of(submissions)
        if receipts is not None:
            return receipts
        secret = self.archive_key()
        receipts = self._commit([self._work(submission, secret) for submission in submissions], now)
        self._unknown = None
        self._judge_refusals(receipts)
        return receipts

    def why_refused(self, item: Item, now: datetime) -> str | None:
        """Return why the tables would refuse `item` at `now`, None where they take it; nothing stays."""
        row = row_of(item, self.archive_key())
        with writing(self.engine) as connection:
            return self._refusal(connection, row, None, now)

    def archive_key(self) -> bytes:
        """Return the secret under which this archive takes fingerprints and content keys."""
        if self._secret is None:
            self._secret = read_archive_key(self.engine)
        return self._secret

    def _work(self, submission: Submission, secret: bytes) -> Work:
        return Work(submission, [
            item if isinstance(item, Row) else self._row(item, secret) for item in submission.items
        ])  # fmt: skip

    def _row(self, item: Item, secret: bytes) -> Row:
        row = row_of(item, secret)
        earlier = keys_of_earlier_post(item.content_key, secret)
        if earlier:  # its file may still lie in the spool
            with reading(self.engine) as connection:
                for key, *_ in arrivals_by_key(connection, earlier):
                    return row._replace(content_key=key)
        return row

    # A commit whose answer never came

    def _what_became_of(self, submissions: Sequence[Submission]) -> list[Receipt] | None:
        """Return the receipts of a commit that was not heard of, None where it did not take place.

        Writing the same submissions again would store nothing twice, but would count each item of the run
        once more. The row is written once more, with the mark that it has: that waits for a transaction that
        still has it in hand, and its commit waits for the standby that the first one may have lost. Raises
        ArchiveUnavailable where that cannot be known yet; then it stays unknown.
        """
        commit = self._unknown
        if commit is None or not commit.is_of(submissions):
            self._unknown = None
            return None
        touch = update(runs).where(runs.c.id == commit.run_id).values(mark=runs.c.mark).returning(runs.c.mark)
        with writing(self.engine) as connection:
            if not self.in_a_file:
                connection.execute(_PATIENCE)
            found = connection.execute(touch).scalar()
        self._unknown = None
        return commit.receipts if found is not None and bytes(found) == commit.mark else None

    def _about_to_commit(self, written: Sequence[Work], mark: bytes) -> list[Receipt]:
        """Note, last of all in a transaction, what its commit will have done; `mark` stands in its run."""
        run_id = written[0].submission.run_id
        submissions, receipts = [one.submission for one in written], [one.receipt for one in written]
        self._unknown = None if run_id is None else _UnknownCommit(run_id, mark, submissions, receipts)
        return receipts

    # The transaction

    def _commit(self, work: Sequence[Work], now: datetime) -> list[Receipt]:
        """Write everything, again where PostgreSQL gives the transaction up for another's sake."""
        for pause in islice(pauses(0.01, 1.0), _CONFLICT_TRIES - 1):
            try:
                return self._commit_once(work, now)
            except TransactionGivenUp:
                time.sleep(pause)
        return self._commit_once(work, now)

    def _commit_once(self, work: Sequence[Work], now: datetime) -> list[Receipt]:
        """Write everything at once, or with a savepoint a submission where an item is refused."""
        rows = [row for one in work for row in one.rows]
        run_ids = [one.submission.run_id for one in work for _ in one.rows]
        read: dict[int, int | None] = {}
        mark = secrets.token_bytes(16)
        while True:
            try:
                with writing(self.engine) as connection:
                    settled = settle(connection, rows, run_ids, now, read, self._on_stored)
                    written = [self._with_reports(connection, one) for one in _split(settled, work)]
                    keep_books(connection, written, now, mark)
                    receipts = self._about_to_commit(written, mark)
            except ReadBefore as again:
                read |= again.sms
            except (*DATA_ERRORS, DBAPIError) as error:
                if not is_data_error(error):
                    raise
                self._require_runs(work)
                return self._commit_piecemeal(work, now)
            else:
                return receipts

    def _require_runs(self, work: Sequence[Work]) -> None:
        """Raise RunLost where a run is missing: an asynchronous standby was promoted that never had it."""
        wanted = {number for one in work if (number := one.submission.run_id) is not None}
        with reading(self.engine) as connection:
            found = set(connection.execute(select(runs.c.id).where(runs.c.id.in_(wanted))).scalars())
        if lost := wanted - found:
            raise RunLost(f"{place(self.engine)} came back without run {min(lost)}")

    def _commit_piecemeal(self, work: Sequence[Work], now: datetime) -> list[Receipt]:
        """Write one submission after the other, still in one transaction, and find the refused items."""
        written: list[Work] = []
        mark = secrets.token_bytes(16)
        with writing(self.engine) as connection:
            for one in work:
                try:
                    receipt = self._settle_apart(connection, one.rows, one.submission.run_id, now)
                except (*DATA_ERRORS, DBAPIError) as error:
                    if not is_data_error(error):
                        raise
                    taken = [self._taken(connection, row, one.submission.run_id, now) for row in one.rows]
                    receipt = self._settle_apart(connection, taken, one.submission.run_id, now)
                written.append(self._with_reports(connection, one._replace(receipt=receipt)))
            keep_books(connection, written, now, mark)
            return self._about_to_commit(written, mark)

    def _with_reports(self, connection: Connection, work: Work) -> Work:
        submission, rows, (outcomes, sms_ids) = work
        if not submission.reports:
            return work
        to = connection, self.archive_key(), submission.run_id
        done = [write_report(*to, report) for report in submission.reports]
        return Work(submission, rows, Receipt((*outcomes, *done), sms_ids))

    def _settle_apart(
        self, connection: Connection, rows: Sequence[Row], run_id: int | None, now: datetime
    ) -> Receipt:
        read: dict[int, int | None] = {}
        while True:
            try:
                with connection.begin_nested():
                    return settle(connection, rows, [run_id] * len(rows), now, read, self._on_stored)
            except ReadBefore as again:
                read |= again.sms

    def _taken(self, connection: Connection, row: Row, run_id: int | None, now: datetime) -> Row:
        """Return `row` as the database takes it: for the quarantine where it refuses it as it is."""
        why = self._refusal(connection, row, run_id, now)
        if why is None:
            return row
        self._refused += 1
        log.warning("the database refused an item", why=why, source=row.source, channel=row.channel)
        return unreadable(row, why)

    def _refusal(self, connection: Connection, row: Row, run_id: int | None, now: datetime) -> str | None:
        """Return why the database refuses `row`, None where it takes it; nothing of it stays."""
        probe = connection.begin_nested()
        try:
            settle(connection, [row], [run_id], now, {}, self._on_stored)
        except ReadBefore:
            return None
        except (*DATA_ERRORS, DBAPIError) as error:
            if not is_data_error(error):
                raise
            return refused(error)
        finally:
            probe.rollback()
        return None

    def _judge_refusals(self, receipts: Sequence[Receipt]) -> None:
        """Say each hour where the tables took nothing for some time: then they are wrong, not the items."""
        if any(Outcome.STORED in receipt.outcomes for receipt in receipts):
            self._refused = 0
        elif self._refused >= _REFUSED_IN_A_ROW and time.monotonic() - self._said >= _SAY_SECONDS:
            self._said = time.monotonic()
            log.error(
                "the database refuses every item; they wait in the quarantine",
                items=self._refused, needs="ingestor check, then ingestor quarantine retry",
            )  # fmt: skip


def _split(settled: Receipt, work: Sequence[Work]) -> Iterator[Work]:
    start = 0
    for one in work:
        end = start + len(one.rows)
        yield Work(one.submission, one.rows, Receipt(settled.outcomes[start:end], settled.sms_ids[start:end]))
        start = end
