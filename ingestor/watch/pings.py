"""Dead-man pings: somebody outside hears of each finished cycle, and misses us when there is none.

Conventions of healthchecks.io: a POST to the URL is a success, to URL/fail a failure, the body a line for
people. The thread only looks at the parts; no part ever waits for it.
"""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from ingestor.errors import IngestorError
from ingestor.logs import get_logger
from ingestor.pauses import pauses
from ingestor.settings import kept_secret
from ingestor.settings.watch import Watch

if TYPE_CHECKING:  # who imports files pings too, and needs none of the daemon's parts
    from ingestor.watch.found import Live

log = get_logger(__name__)

EVERY_SECONDS: Final = 60.0
"""The shortest time between two pings: a switch that hears more drops them."""
_TRIES: Final = 5


class Pinger:
    """Pings `url` whenever every part of `live` has finished a cycle since the last ping."""

    def __init__(
        self, live: "Live", url: str, send: Callable[[str, bytes], None], *, every: float = EVERY_SECONDS
    ) -> None:
        """`send` posts a body to a URL and raises IngestorError where nobody heard it."""
        self._live, self._url, self._send, self._every = live, url, send, every
        self._before: dict[str, float] = {}
        self._silent = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pings", daemon=True)

    def start(self) -> None:
        """Begin: the first ping follows the first finished cycle."""
        self._thread.start()

    def stop(self) -> None:
        """Ping no more; one in hand is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        pause = min(self._every, 1.0)
        while not self._stopped.wait(pause):
            pause = min(self._every, 1.0)
            finished = self._live.finished()
            if finished and all(at > self._before.get(part, 0.0) for part, at in finished.items()):
                self._before = finished
                pause = self._every
                self._ping(self._live.overdue(datetime.now(UTC)))

    def _ping(self, overdue: str | None) -> None:
        url = failing(self._url) if overdue else self._url
        for pause in islice(pauses(1.0, 16.0), _TRIES):
            try:
                self._send(url, (overdue or "ok").encode())
            except IngestorError as fault:
                if not self._silent:
                    log.warning("a dead-man ping was not heard", reason=str(fault))
                self._silent = True
            else:
                if self._silent:
                    log.info("dead-man pings are heard again")
                self._silent = False
                return
            if self._stopped.wait(min(pause, self._every)):
                return


def begin(live: "Live", watch: Watch) -> Callable[[], None]:
    """Ping where `watch` asks for it, and return what stops it; a URL that cannot be had stops nothing."""
    try:
        url = kept_secret(*watch.place_of("ping"))
    except IngestorError as error:
        log.error("no dead-man pings are sent", reason=str(error))  # noqa: TRY400 - the sentence says it all
        url = None
    if url is None:
        return lambda: None
    from ingestor.watch.notices import post  # its libraries are for those alone who want pings

    pinger = Pinger(live, url, post)
    pinger.start()
    return pinger.stop


def failing(url: str) -> str:
    """Return the URL that says failure: /fail behind the path, before a query."""
    return _with(url, "/fail", "")


def _with(url: str, path: str, query: str) -> str:
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, query)))
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path if path else parts.path, query=query))


@dataclass(slots=True)
class Ended:
    """How a job ended: `code` is its exit code, 1 unless it says another."""

    code: int = 1


@contextlib.contextmanager
def pinged(watch: Watch, what: str) -> Iterator[Ended]:
    """Ping the URL `what` (`import_ping`, `backup_ping`) of `watch`: /start, then itself or /fail.

    All have the same rid. The job waits for no answer but that of the last ping, ten seconds at most.
    """
    ended = Ended()
    try:
        url = kept_secret(*watch.place_of(what))
    except IngestorError as fault:
        log.warning("a dead-man ping cannot be sent", reason=str(fault))
        url = None
    if url is None:
        yield ended
        return
    from ingestor.watch.notices import post  # its libraries are for those alone who want pings

    def ping(path: str, says: str) -> None:
        try:
            post(_with(url, path, f"rid={rid}"), says.encode())
        except IngestorError as fault:
            log.warning("a dead-man ping was not heard", reason=str(fault))

    rid = uuid.uuid4()
    threading.Thread(target=ping, args=("/start", ""), name="ping", daemon=True).start()
    try:
        yield ended
    finally:
        ping("" if ended.code == 0 else "/fail", f"exit code {ended.code}")
