"""Looking, at the start and each day, whether somebody changed the archive; and what the daemon does then."""

import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from ingestor.archive.intact import Difference, Grade, NotCompared, differences
from ingestor.archive.store import Store
from ingestor.errors import IngestorError

COMPARE_SECONDS = 24 * 3600.0
SAY_SECONDS = 3600.0
LOOK_SECONDS = 60.0
_MOST_NAMED = 5

log = structlog.get_logger(__name__)


class ArchiveGuard:
    """Compares the archive with what this version makes of it, and holds the store back where that is unsafe.

    Where only a guard or a view of ours differs, storing goes on. Where rows may be refused, swallowed,
    hidden or doubled, POSTs go to the spool and mails stay on their servers. Either is said each hour.
    """

    def __init__(
        self, engine: Engine, store: Store, tell: Callable[[str | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`tell` hears what differs, in one line, and None when that is over."""
        self._engine, self._store, self._tell, self._clock = engine, store, tell, clock
        self._compared = self._said = -COMPARE_SECONDS
        self._found: list[Difference] = []

    def look(self) -> None:
        """Compare where a day is over, or something differed the last time; called once a minute."""
        now = self._clock()
        if not self._found and now - self._compared < COMPARE_SECONDS:
            return
        try:
            found = differences(self._engine)
        except NotCompared as reason:  # what was found before stands until it is seen to be over
            if now - self._compared >= COMPARE_SECONDS:
                self._compared = now
                log.info("the archive is not compared with what this version makes", reason=str(reason))
            return
        except IngestorError:
            return  # the writer says what ails the archive, and in a minute it is looked at again
        self._compared = now
        self._take(found, now)

    def _take(self, found: list[Difference], now: float) -> None:
        before, self._found = self._found, found
        if not found:
            self._store.held = None
            self._tell(None)
            if before:
                log.info("the archive is as this version makes it again")
            return
        harmed = [one for one in found if one.grade is Grade.HARM]
        self._store.held = f"the archive was changed: {named(harmed)}; `ingestor check`" if harmed else None
        self._tell(named(found))
        if found != before or now - self._said >= SAY_SECONDS:
            self._said = now
            log.error(
                "the archive is not as this version makes it",
                differs=named(found),
                consequence="POSTs go to the spool, mails wait" if harmed else "storing goes on",
                needs="ingestor check, and ingestor db repair for what is ours",
            )


def named(found: list[Difference]) -> str:
    """Return the first few of `found` in one line."""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return ", ".join(map(str, found[:_MOST_NAMED])) + more
