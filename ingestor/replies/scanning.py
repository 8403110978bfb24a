"""Reading the SMS of the archive for opt-outs: those of an earlier program, or all again by other words.

In steps, beside a daemon that takes SMS in: how far it has come is written down with the events of each
step, so that a kill costs a step at most, and two who do it at once do no harm. What of them may be an
opt-out, or the undoing of one, waits for a person to decide.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, text, update

from ingestor.archive.columns import Ordered, in_parts
from ingestor.archive.engine import reading, writing
from ingestor.archive.tables import consent_scans, sms, sms_content
from ingestor.errors import ArchiveUnavailable, IngestorError
from ingestor.logs import get_logger
from ingestor.replies.figures import OPEN, Scan, scan_state
from ingestor.replies.opt_outs import EVERY, Event, Said, events_of, read_secret, write_events
from ingestor.replies.words import Words
from ingestor.timestamps import utc_now

STEP = 2000  # SMS at once: with the events of all of them still under 0.3 s in an SQLite file
GAP_SECONDS = 0.02  # for the daemon's writer
_RETRY_SECONDS = 10.0
_STOP_SECONDS = 0.3
_SECONDS_BETWEEN_LINES = 5.0

log = get_logger(__name__)


def begin_scan(engine: Engine, words: Words, *, anew: bool = False) -> Scan:
    """Write down that all SMS are to be read by `words`, and return how far that is.

    What has begun by the same words goes on where it stopped; what is finished is read `anew` where asked.
    """
    with writing(engine) as connection:
        found = scan_state(connection)
        begun = found.words == words.mark and (found.until is not None or found.done)
        if begun and not (found.done and anew):
            return found
        until = connection.execute(select(func.coalesce(func.max(sms.c.id), 0))).scalar_one()
        now = utc_now()
        finished = None if until else now
        connection.execute(
            update(consent_scans).values(
                words=words.mark, after_id=0, until_id=until, started_at=now, finished_at=finished
            )
        )
        return Scan(words.mark, 0, until, finished)


def scan_step(engine: Engine, words: Words) -> Scan | None:
    """Read the next SMS, write down their events and how far it is; return that, None where other words are
    being read for by now: whoever began that goes on.
    """
    with reading(engine) as connection:
        found = scan_state(connection)
        if found.words != words.mark or found.done:
            return found if found.done else None
        query = (
            select(sms.c.id, sms_content.c.originator, sms.c.originator_kind, sms.c.destination,
                   sms.c.received_at, sms_content.c.text)
            .join(sms_content, sms_content.c.sms_id == sms.c.id)
            .where(sms.c.id > found.after, sms.c.id <= (found.until or 0))
            .order_by(sms.c.id).limit(STEP)
        )  # fmt: skip
        said = [Said(*row) for row in connection.execute(query)]
    events = list(events_of(words, said))
    now = utc_now()
    last = not said
    after = found.after if last else said[-1].sms_id
    with writing(engine) as connection:
        if events:
            write_events(connection, read_secret(connection), events, now)
        c = consent_scans.c
        connection.execute(
            update(consent_scans)
            .where(c.words == words.mark, c.after_id == found.after, c.finished_at.is_(None))
            .values(after_id=after, finished_at=now if last else None)
        )
    return Scan(found.words, after, found.until, now if last else None)


def scan(engine: Engine, words: Words) -> Iterator[Scan]:
    """Read all SMS by `words` that are still to be read; give after each step how far it is. It ends as
    `scan_step` does; raises ArchiveUnavailable where the archive is away, and called again it goes on.
    """
    while (found := scan_step(engine, words)) is not None:
        yield found
        if found.done:
            return
        time.sleep(GAP_SECONDS)


def read_old_sms(engine: Engine, words: Words, stop_wished: Callable[[], bool]) -> None:
    """Read what is still to be read, in the foreground, until a stop is wished; the next call goes on."""
    begin_scan(engine, words)
    for _ in scan(engine, words):
        if stop_wished():
            return


class BackgroundScan:
    """The daemon's: a thread that reads what is still to be read, while SMS come in, and then ends."""

    def __init__(self, engine: Engine, words: Words, may_write: Callable[[], bool]) -> None:
        """Prepare; `may_write` says whether the archive is fit to be written to."""
        self._engine, self._words, self._may_write = engine, words, may_write
        self._stop = threading.Event()
        self._told = 0.0
        self._thread = threading.Thread(target=self._run, name="opt-out scan", daemon=True)
        self.start = self._thread.start

    def stop(self) -> None:
        """End soon; what of a step is not done then is done again."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._may_write() and self._whole():
                    return
            except IngestorError as error:
                log.warning("opt-outs wait for the archive", reason=str(error))
            self._stop.wait(_RETRY_SECONDS)

    def _whole(self) -> bool:
        found = begin_scan(self._engine, self._words)
        if found.done:
            return True
        self._told = time.monotonic()
        if found.until:
            log.info("old SMS are read for opt-outs", after=found.after, until=found.until)
        for found in scan(self._engine, self._words):
            self._tell(found)
            if self._stop.is_set():
                break
            if not self._may_write():
                raise ArchiveUnavailable("the archive is not fit to be written to")
        return found.done

    def _tell(self, found: Scan) -> None:
        if found.done:
            if found.until:
                log.info("old SMS have been read for opt-outs", until=found.until)
        elif time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            log.info("old SMS are being read for opt-outs", after=found.after, until=found.until)


_LISTED: Final = (
    "SELECT v.sms_id, v.at, v.number, v.scope, v.reason, content.text"
    + OPEN.replace(
        "WHERE v.kind", "LEFT JOIN sms_content AS content ON content.sms_id = v.sms_id\nWHERE v.kind", 1
    )
    + " ORDER BY v.at DESC, v.sms_id DESC"
)
_ONE: Final = """
SELECT sms.received_at, sms.destination, content.originator FROM sms
JOIN sms_content AS content ON content.sms_id = sms.id WHERE sms.id = :sms_id
"""


def open_reviews(connection: Connection, limit: int | None = None) -> list[Mapping[str, Any]]:
    """Return the SMS that wait for a person, the newest first: sms_id, at, number, scope, reason, text."""
    statement = text(_LISTED + (f" LIMIT {limit:d}" if limit else "")).columns(at=Ordered())
    return [dict(row) for row in connection.execute(statement).mappings()]


def decide(
    connection: Connection, sms_id: int, kind: str, reason: str, now: datetime, *, every: bool
) -> bool:
    """Write down what a person says of an SMS: it was an opt-out (`add`), undid one (`remove`) or neither.

    It counts from the SMS's own time. Return whether there is such an SMS; `every`: for all our numbers.
    """
    row = connection.execute(text(_ONE).columns(received_at=Ordered()), {"sms_id": sms_id}).first()
    if row is None:
        return False
    scope = EVERY if every else row.destination
    event = Event(row.originator, scope, kind, row.received_at, sms_id, reason=reason)
    write_events(connection, read_secret(connection), [event], now)
    return True


def dismiss_before(engine: Engine, before: datetime, reason: str, now: datetime) -> int:
    """Write down that none of the SMS sent before `before` that wait for a person was an opt-out, each by an
    event of its own; return how many. In steps, beside a daemon: given again, it goes on where it was killed.
    """
    with reading(engine) as connection:
        old = [row for row in open_reviews(connection) if row["at"] < before]
    for some in in_parts(old):
        events = [
            Event(row["number"], row["scope"], "dismiss", row["at"], row["sms_id"], reason=reason)
            for row in some
        ]
        with writing(engine) as connection:
            write_events(connection, read_secret(connection), events, now)
        time.sleep(GAP_SECONDS)
    return len(old)
