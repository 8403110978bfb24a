"""The one writer: batches of items become durable in one transaction, each with its outcome."""

import random
import time
from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ingestor.archive.batch import Batch, ReadBefore, settle, unreadable
from ingestor.archive.bookkeeping import keep_books
from ingestor.archive.doubt import Doubt, new_mark
from ingestor.archive.engine import reading, writing
from ingestor.archive.entries import Item, Receipt, Submission
from ingestor.archive.faults import DATA_ERRORS, is_data_error, refused
from ingestor.archive.inserts import Expectation, inserts_for
from ingestor.archive.known import is_earlier_post, key_of_earlier_post, read_archive_key
from ingestor.archive.postgresql_inserts import Misjudged
from ingestor.errors import ArchiveUnavailable, TransactionGivenUp
from ingestor.record import Outcome
from ingestor.timestamps import iso_utc

_CONFLICT_TRIES = 8
_REFUSED_IN_A_ROW = 3
_SAY_SECONDS = 3600.0

log = structlog.get_logger()


class Store:
    """Writes submissions into one archive. Safe to use from one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held: str | None = None
        """Why nothing may be written though the database would take it, None where it may."""
        self._secret: bytes | None = None
        self._doubt = Doubt()
        self._expectation = Expectation()
        self._refused = 0  # items in a row, with none stored in between
        self._said = -_SAY_SECONDS
        self.in_a_file = engine.dialect.name == "sqlite"
        self._instant = iso_utc if self.in_a_file else _as_it_is

    def write(self, submissions: Sequence[Submission], now: datetime) -> list[Receipt]:
        """Commit `submissions` in one transaction; return a receipt for each, in their order.

        `now` is aware UTC. An item that the database refuses goes to the quarantine. Raises
        ArchiveUnavailable, with nothing written, where the database cannot take a write now; where somebody
        else writes in the file.
        """
        if not submissions:
            return []
        if self.held is not None:
            raise ArchiveUnavailable(self.held)
        settled: list[Receipt] | None = self._doubt.settle(self.engine, submissions)
        if settled is not None:
            return settled
        secret = self._secret or self._read_secret()
        batches = [self._prepared(submission, secret) for submission in submissions]
        return self._commit(submissions, batches, now)

    def read_again(
        self, kept: Sequence[tuple[Item, bytes]], run_id: int | None, now: datetime
    ) -> tuple[Outcome, ...]:
        """Give quarantined arrivals another verdict each: a row in `retries`, whatever it is.

        `kept` are items made from arrivals of the archive, each with the content key that stands there.
        """
        if not kept:
            return ()
        secret = self.archive_key()
        batch = Batch(again=True)
        for item, key in kept:
            batch.add(item, run_id, secret, key)
        submission = Submission(run_id, tuple(item for item, _ in kept))
        return self._commit([submission], [batch], now)[0].outcomes

    def why_refused(self, item: Item, now: datetime) -> str | None:
        """Return why the tables would refuse `item` at `now`, None where they take it; nothing stays."""
        batch = Batch()
        batch.add(item, None, self.archive_key())
        with writing(self.engine) as connection:
            return self._refusal(connection, batch, now)

    def archive_key(self) -> bytes:
        """Return the secret under which this archive takes fingerprints and content keys."""
        return self._secret or self._read_secret()

    def _read_secret(self) -> bytes:
        self._secret = read_archive_key(self.engine)
        return self._secret

    def _prepared(self, submission: Submission, secret: bytes) -> Batch:
        batch = Batch()
        for item in submission.items:
            key = None
            if is_earlier_post(item.content_key):
                with reading(self.engine) as connection:
                    key = key_of_earlier_post(connection, secret, item.content_key)
            batch.add(item, submission.run_id, secret, key)
        return batch

    def _commit(
        self, submissions: Sequence[Submission], batches: Sequence[Batch], now: datetime
    ) -> list[Receipt]:
        """Write everything, again where PostgreSQL gives the transaction up for another's sake."""
        for attempt in range(_CONFLICT_TRIES):
            try:
                return self._commit_once(submissions, batches, now)
            except TransactionGivenUp:
                if attempt == _CONFLICT_TRIES - 1:
                    raise
            time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, no secret
        raise AssertionError("unreachable")

    def _commit_once(
        self, submissions: Sequence[Submission], batches: Sequence[Batch], now: datetime
    ) -> list[Receipt]:
        """Write everything at once, or with a savepoint a submission where an item is refused."""
        read: dict[int, int | None] = {}
        whole = batches[0] if len(batches) == 1 else _joined(batches)
        mark = new_mark()
        while True:
            try:
                with writing(self.engine) as connection:
                    with self._expectation.inserts(connection, known=whole.again) as inserts:
                        outcomes = settle(inserts, whole, now, self._instant, read)
                    receipts = _split(outcomes, submissions)
                    keep_books(
                        connection, submissions, [one.outcomes for one in receipts], now, mark,
                        [batch.keys for batch in batches],
                    )  # fmt: skip
                    self._doubt.begin(submissions[0].run_id, mark, submissions, receipts)
            except ReadBefore as again:
                read |= again.sms
            except Misjudged:
                continue
            except (*DATA_ERRORS, DBAPIError) as error:
                if not is_data_error(error):
                    raise
                return self._commit_piecemeal(submissions, batches, now)
            else:
                self._doubt.end()
                if self._refused:
                    self._judge_refusals(receipts)
                return receipts

    def _commit_piecemeal(
        self, submissions: Sequence[Submission], batches: Sequence[Batch], now: datetime
    ) -> list[Receipt]:
        """Write one submission after the other, still in one transaction, and find the refused items."""
        receipts: list[Receipt] = []
        mark = new_mark()
        with writing(self.engine) as connection:
            for submission, batch in zip(submissions, batches, strict=True):
                try:
                    outcomes = self._settle_apart(connection, batch, now)
                except (*DATA_ERRORS, DBAPIError) as error:
                    if not is_data_error(error):
                        raise
                    cleaned = self._without_refused(connection, batch, now)
                    outcomes = self._settle_apart(connection, cleaned, now)
                keep_books(connection, [submission], [outcomes], now, mark, [batch.keys])
                receipts.append(Receipt(tuple(outcomes)))
            self._doubt.begin(submissions[0].run_id, mark, submissions, receipts)
        self._doubt.end()
        self._judge_refusals(receipts)
        return receipts

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

    def _settle_apart(self, connection: Connection, batch: Batch, now: datetime) -> list[Outcome]:
        read: dict[int, int | None] = {}
        while True:
            try:
                with connection.begin_nested():
                    return settle(inserts_for(connection), batch, now, self._instant, read)
            except ReadBefore as again:
                read |= again.sms

    def _without_refused(self, connection: Connection, batch: Batch, now: datetime) -> Batch:
        """Return `batch` with each item that the database refuses made ready for the quarantine."""
        secret = self.archive_key()
        cleaned = Batch(again=batch.again)
        for i, item in enumerate(batch.items):
            alone = Batch(again=batch.again)
            alone.add(item, batch.run_ids[i], secret, batch.keys[i])
            why = self._refusal(connection, alone, now)
            if why is not None:
                self._refused += 1
                log.warning("the database refused an item", why=why, source=item.source, channel=item.channel)
            kept = item if why is None else unreadable(item, why)
            cleaned.add(kept, batch.run_ids[i], secret, batch.keys[i])
        return cleaned

    def _refusal(self, connection: Connection, batch: Batch, now: datetime) -> str | None:
        probe = connection.begin_nested()
        try:
            settle(inserts_for(connection), batch, now, self._instant, {})
        except ReadBefore:
            return None
        except (*DATA_ERRORS, DBAPIError) as error:
            if not is_data_error(error):
                raise
            return refused(error)
        finally:
            probe.rollback()
        return None


def _as_it_is(instant: datetime) -> datetime:
    return instant


def _joined(batches: Sequence[Batch]) -> Batch:
    whole = Batch()
    for batch in batches:
        whole.items += batch.items
        whole.run_ids += batch.run_ids
        whole.fingerprints += batch.fingerprints
        whole.details += batch.details
        whole.keys += batch.keys
        whole.packed += batch.packed
    return whole


def _split(outcomes: list[Outcome], submissions: Sequence[Submission]) -> list[Receipt]:
    receipts: list[Receipt] = []
    start = 0
    for submission in submissions:
        end = start + len(submission.items)
        receipts.append(Receipt(tuple(outcomes[start:end])))
        start = end
    return receipts
