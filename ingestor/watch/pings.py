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


def ping_cycles(
    live: "Live", url: str, send: Callable[[str, bytes], None], stopped: threading.Event,
    every: float = EVERY_SECONDS,
) -> None:  # fmt: skip
    """Ping `url` whenever every part of `live` has finished a cycle since the last ping, until `stopped`."""
    before: dict[str, float] = {}
    pause, heard = min(every, 1.0), True
    while not stopped.wait(pause):
        pause, finished = min(every, 1.0), live.finished()
        if not finished or any(at <= before.get(part, 0.0) for part, at in finished.items()):
            continue
        before, pause = finished, every
        overdue = live.overdue(datetime.now(UTC))
        for again in islice(pauses(1.0, 16.0), _TRIES):
            try:
                send(extended(url, "/fail") if overdue else url, (overdue or "ok").encode())
            except IngestorError as fault:
                if heard:
                    log.warning("a dead-man ping was not heard", reason=str(fault))
                heard = False
                if stopped.wait(min(again, every)):
                    return
            else:
                if not heard:
                    log.info("dead-man pings are heard again")
                heard = True
                break


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

    stopped = threading.Event()
    threading.Thread(target=ping_cycles, args=(live, url, post, stopped), name="pings", daemon=True).start()
    return stopped.set


def extended(url: str, path: str, query: str = "") -> str:
    """Return `url` with `path` behind its path, before its query, and with `query` behind that."""
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

    All have the same rid. The job itself waits for no answer, its end for both, ten seconds each at most.
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
            post(extended(url, path, f"rid={rid}"), says.encode())
        except IngestorError as fault:
            log.warning("a dead-man ping was not heard", reason=str(fault))

    rid = uuid.uuid4()
    beginning = threading.Thread(target=ping, args=("/start", ""), name="ping", daemon=True)
    beginning.start()
    try:
        yield ended
    finally:
        beginning.join()  # heard after the end it would say that a job which is over goes on
        ping("" if ended.code == 0 else "/fail", f"exit code {ended.code}")
