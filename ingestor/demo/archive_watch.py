"""Reading the demo's archive while the daemon writes it, by the SQL that everybody may use."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

OUTCOMES = ("stored", "duplicate", "ignored", "quarantined", "failed")
PAUSE = 0.01


class ArchiveWatch:
    """A reader of the archive: what is new, and what the run's balance says."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read over `connection`."""
        self._connection = connection
        self._shown = 0

    def new_sms(self) -> Iterator[tuple[int, str, str, str]]:
        """Yield (id, received_at, originator, text) of each SMS that was not there before."""
        rows = self._connection.execute(
            "SELECT id, received_at, originator, text FROM inbound_sms WHERE id > ? ORDER BY id",
            (self._shown,),
        )
        for row in rows.fetchall():
            self._shown = row[0]
            yield row

    def balance(self) -> dict[str, int]:
        """Return `read` and the count of each outcome of the newest run."""
        row = self._connection.execute(
            "SELECT read, stored, duplicate, ignored, quarantined, failed FROM runs ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return dict(zip(("read", *OUTCOMES), row or (0,) * 6, strict=True))


@contextmanager
def watching(archive: Path, go_on: Callable[[], None], deadline: float) -> Iterator[ArchiveWatch]:
    """Give a reader of `archive` as soon as a run stands in it.

    `go_on` is called while nothing is there yet and raises when nothing will be. Raise TimeoutError at
    `deadline` (monotonic).
    """
    while True:
        try:
            uri = f"file:{quote(str(archive.absolute()))}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)
        except sqlite3.OperationalError:
            pass
        else:
            with closing(connection):
                if _has_run(connection):
                    yield ArchiveWatch(connection)
                    return
        go_on()
        pause(deadline)


def pause(deadline: float) -> None:
    """Wait a moment; raise TimeoutError when `deadline` (monotonic) has passed."""
    if time.monotonic() > deadline:
        raise TimeoutError
    time.sleep(PAUSE)


def _has_run(connection: sqlite3.Connection) -> bool:
    try:
        return bool(connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone())
    except sqlite3.OperationalError:
        return False
