"""The import's fast lane into the archive: prepared rows, straight into the tables.

It knows the three usual ends of an item only: stored, a duplicate, quarantined. Whatever is unusual (an item
the database refuses, a mail that stood in the quarantine and is readable now) rolls the transaction back and
goes the writer's way instead, so that there is one set of rules.
"""

import random
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from ingestor.archive.bookkeeping import keep_books
from ingestor.archive.doubt import Doubt, new_mark
from ingestor.archive.engine import writing
from ingestor.archive.entries import Submission
from ingestor.archive.faults import DATA_ERRORS, is_data_error
from ingestor.archive.inserts import Expectation, Inserts, sms_by_content_key
from ingestor.archive.postgresql_inserts import Misjudged
from ingestor.archive.prepared import PreparedSubmission, Row
from ingestor.archive.store import Store
from ingestor.archive.targets import ARRIVALS, CONTENT, PAYLOADS, SMS
from ingestor.errors import TransactionGivenUp
from ingestor.record import Channel, Outcome
from ingestor.timestamps import iso_utc

_STORED, _DUPLICATE, _QUARANTINED = Outcome.STORED, Outcome.DUPLICATE, Outcome.QUARANTINED
_CHANNEL = Channel.IMPORT.value
_CONFLICT_TRIES = 8

# Columns of a prepared row; see `prepared.Row`.
_KEY, _SMS, _CONTENT = 2, 12, 13


class _Unusual(Exception):
    """This batch is for the writer."""


class BulkStore:
    """Writes prepared submissions. Safe to use from one thread at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._doubt = Doubt()
        self._expectation = Expectation()
        self._whole: tuple[Sequence[PreparedSubmission], list[Submission]] = ((), [])

    def write(self, submissions: Sequence[PreparedSubmission], now: datetime) -> list[Sequence[Outcome]]:
        """Commit `submissions` in one transaction; return the outcomes of each, in their order.

        `now` is aware UTC. Raises ArchiveUnavailable, with nothing written, where the database cannot take a
        write now.
        """
        settled: list[Sequence[Outcome]] | None = self._doubt.settle(self.store.engine, submissions)
        if settled is not None:
            return settled
        if self._whole[0] is not submissions:
            for attempt in range(_CONFLICT_TRIES):
                try:
                    return self._commit(submissions, now)
                except Misjudged:
                    continue
                except TransactionGivenUp:
                    time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, no secret
                except (_Unusual, *DATA_ERRORS, DBAPIError) as error:
                    if not isinstance(error, _Unusual) and not is_data_error(error):
                        raise
                    break
            # Kept until they are written: the writer knows by them whether a commit broke off.
            self._whole = (submissions, [submission.whole(now) for submission in submissions])
        receipts = self.store.write(self._whole[1], now)
        self._whole = ((), [])
        return [receipt.outcomes for receipt in receipts]

    def _commit(self, submissions: Sequence[PreparedSubmission], now: datetime) -> list[Sequence[Outcome]]:
        with writing(self.store.engine) as connection:
            with self._expectation.inserts(connection) as inserts:
                outcomes = self._settle(inserts, submissions, now)
            split: list[Sequence[Outcome]] = []
            start = 0
            for submission in submissions:
                split.append(outcomes[start : start + len(submission.rows)])
                start += len(submission.rows)
            mark = new_mark()
            keep_books(connection, [submission.books() for submission in submissions], split, now, mark)
            self._doubt.begin(submissions[0].run_id, mark, submissions, split)
        self._doubt.end()
        return split

    def _settle(
        self, inserts: Inserts, submissions: Sequence[PreparedSubmission], now: datetime
    ) -> list[Outcome]:
        rows = [row for submission in submissions for row in submission.rows]
        if not rows:
            return []
        written: Any = iso_utc(now) if self.store.in_a_file else now
        readable = [row[_SMS] for row in rows if row[_SMS] is not None]
        new_ids, ids = inserts.reserve((SMS, len(readable)), (ARRIVALS, len(rows)))
        sms_ids, outcomes = self._insert_sms(inserts, rows, readable, new_ids, written)
        _stay_with_the_first(inserts, rows, sms_ids, outcomes)
        known = inserts.insert(ARRIVALS, _arrivals(submissions, ids, sms_ids, outcomes, written))
        if known is not None:
            fresh = [number in known for number in ids]
            _check_repeated(inserts, rows, fresh, sms_ids, outcomes)
        else:
            fresh = [True] * len(rows)
        inserts.insert(CONTENT, [
            (number, *row[_CONTENT])
            for row, number, outcome in zip(rows, sms_ids, outcomes, strict=True) if outcome is _STORED
        ])  # fmt: skip
        inserts.insert(PAYLOADS, [
            (number, None, row[4], row[5], row[6], row[7])
            for row, number, new in zip(rows, ids, fresh, strict=True) if new
        ])  # fmt: skip
        return outcomes

    def _insert_sms(
        self, inserts: Inserts, rows: Sequence[Row], readable: Sequence[Row], ids: Sequence[int], written: Any
    ) -> tuple[list[int | None], list[Outcome]]:
        """Return each row's SMS id and outcome, as far as the SMS alone decide it.

        `readable` are the columns of the SMS of those rows that can be read, `ids` the ids kept for them.
        """
        if self.store.in_a_file:
            values = [(number, *sms, written) for number, sms in zip(ids, readable, strict=True)]
        else:
            values = [
                (number, *sms[:6], datetime.fromisoformat(sms[6]), *sms[7:], written)
                for number, sms in zip(ids, readable, strict=True)
            ]
        new = inserts.insert(SMS, values)
        found: dict[bytes, int] = {}
        if new is not None:
            old = [sms[0] for number, sms in zip(ids, readable, strict=True) if number not in new]
            found = inserts.sms_by_fingerprint(old)
        sms_ids: list[int | None] = []
        outcomes: list[Outcome] = []
        numbers = iter(ids)
        for row in rows:
            sms = row[_SMS]
            if sms is None:
                sms_ids.append(None)
                outcomes.append(_QUARANTINED)
                continue
            number = next(numbers)
            stored = new is None or number in new
            sms_ids.append(number if stored else found[sms[0]])
            outcomes.append(_STORED if stored else _DUPLICATE)
        return sms_ids, outcomes


def _arrivals(
    submissions: Sequence[PreparedSubmission], ids: Sequence[int], sms_ids: Sequence[int | None],
    outcomes: Sequence[Outcome], written: Any,
) -> list[Row]:  # fmt: skip
    """Return rows in the order of the columns of `arrivals`."""
    # `Outcome.value` is a property written in Python: asked for each row it would cost as much as the row.
    stored, duplicate, quarantined = _STORED.value, _DUPLICATE.value, _QUARANTINED.value
    names = [
        stored if one is _STORED else duplicate if one is _DUPLICATE else quarantined for one in outcomes
    ]
    rows: list[Row] = []
    at = 0
    for submission in submissions:
        source, run_id = submission.source, submission.run_id
        for row, (path, member, offset) in zip(submission.rows, submission.places, strict=True):
            (_, length, key, _, size, _, _, _, parser, message_id, subject, reason, _, _) = row
            rows.append((
                ids[at], key, _CHANNEL, 0, source, None, None, None, path, member, offset,
                length, message_id, subject, None, None, size, names[at],
                reason if sms_ids[at] is None else None, sms_ids[at],
                parser, run_id, written, written,
            ))  # fmt: skip
            at += 1
    return rows


def _stay_with_the_first(
    inserts: Inserts, rows: Sequence[Row], sms_ids: list[int | None], outcomes: list[Outcome]
) -> None:
    """Let mails whose bytes were read before stay with their SMS, whatever today's reading makes of them.

    Raises _Unusual where that made another one, which has just been inserted.
    """
    found = sms_by_content_key(inserts, [row[_KEY] for row in rows])
    for i, row in enumerate(rows) if found else ():
        sms_id = found.get(row[_KEY])
        if sms_id is not None and sms_id != sms_ids[i]:
            if outcomes[i] is _STORED:
                raise _Unusual
            sms_ids[i], outcomes[i] = sms_id, _DUPLICATE


def _check_repeated(
    inserts: Inserts, rows: Sequence[Row], fresh: Sequence[bool], sms_ids: Sequence[int | None],
    outcomes: list[Outcome],
) -> None:  # fmt: skip
    """Settle mails that were imported before (or earlier in this batch): those that were read are duplicates.

    Raises _Unusual where the two readings of a mail differ: only the writer knows what to do then.
    """
    repeated = [i for i, new in enumerate(fresh) if not new]
    known = inserts.arrivals_by_key([rows[i][_KEY] for i in repeated])
    for i in repeated:
        _, read = known[rows[i][_KEY], 0, _CHANNEL]
        if outcomes[i] is _STORED or (read is None and sms_ids[i] is not None):
            raise _Unusual
        if read is not None:
            outcomes[i] = _DUPLICATE
