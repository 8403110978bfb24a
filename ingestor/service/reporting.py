"""How the run stands, told to systemd and to the table that `ingestor status` reads."""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Engine

from ingestor.archive.cursors import drop_source, note_source, read_sources
from ingestor.archive.runs import Balance, balance
from ingestor.errors import IngestorError
from ingestor.service import living

if TYPE_CHECKING:
    from ingestor.intake.listener import Listener
    from ingestor.intake.listener.posts_read import EndpointCounts

log = structlog.get_logger(__name__)

REPORT_SECONDS = 10.0
ARCHIVE = "archive file"
"""The name among the sources under which `status` shows what is wrong with the file itself."""
DIFFERS = "archive"
"""The name under which it shows what somebody changed in it."""

ENDPOINT = "endpoint"
"""What the rows of the single endpoints are called among the sources."""

LISTENER_LIMIT = 60.0
"""Seconds without a finished round after which the listener hangs."""


class Reporter:
    """Keeps `text`, and the rows of the daemon and its listener among the sources.

    It asks the database, which may hang; so it has a thread of its own that nobody ever waits for.
    """

    def __init__(
        self, engine: Engine, run: int, installation: str, listener: "tuple[str, Listener] | None",
        hangs: Callable[[], bool],
    ) -> None:  # fmt: skip
        """Tell about run `run` of `installation`, and about `listener`, given with its address.

        `hangs` says whether the watchdog finds the listener hanging.
        """
        self._engine, self.run, self._listener, self._hangs = engine, run, listener, hangs
        self._name = f"{living.KIND} {installation}"
        self._stopped = Event()
        self._thread = Thread(target=self._work, name="reporter", daemon=True)
        self._archive: str | None = None
        self._differences: str | None = None
        self._noted: dict[str, str | None] = {}
        self._endpoints: dict[str, tuple[str, EndpointCounts]] = {}
        self.text = "reading"
        """A line for people: the balance of the run and the state of every source."""

    def start(self) -> None:
        """Report now, and every ten seconds from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Report no more; a report in hand is not waited for."""
        self._stopped.set()

    def note_archive(self, trouble: str | None) -> None:
        """Let `status` say what is wrong with the archive's file, until it hears None."""
        self._archive = trouble

    def note_differences(self, found: str | None) -> None:
        """Let `status` say how the archive differs from what this version makes, until it hears None."""
        self._differences = found

    def note_daemon(self, state: str) -> None:
        """Write down that the daemon is `running`, or `stopped` by somebody. Raises IngestorError."""
        detail = living.note_of_this_process(self.run)
        note_source(
            self._engine, self._name, living.KIND, state, detail,
            poll_seconds=int(REPORT_SECONDS), now=datetime.now(UTC), success=True,
        )  # fmt: skip

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                self.note_daemon("running")
                self._note(ARCHIVE, "growing", self._archive)
                self._note(DIFFERS, "changed", self._differences)
                self._note_listener()
                self.text = self._line()
            except IngestorError as error:
                self.text = str(error)
            except Exception as error:  # noqa: BLE001 - a report that fails must not be the last one
                log.warning("a report failed", error=type(error).__name__)
            self._stopped.wait(REPORT_SECONDS)

    def _line(self) -> str:
        counts = in_words(balance(self._engine, self.run))
        silent = {living.KIND, ENDPOINT}
        sources = [source for source in read_sources(self._engine) if source.kind not in silent]
        states = "; ".join(f"{source.name}: {source.state}" for source in sources)
        return f"{counts}; {states}" if states else counts

    def _note(self, name: str, state: str, trouble: str | None) -> None:
        """Write down what ails the archive; the first time also that there is nothing."""
        if self._noted.get(name, "") == trouble:
            return
        if trouble is None:
            drop_source(self._engine, name)
        else:
            note_source(
                self._engine, name, "archive", state, trouble, poll_seconds=None,
                now=datetime.now(UTC), success=False,
            )  # fmt: skip
        self._noted[name] = trouble

    def _note_listener(self) -> None:
        """Write down how the listener fares, as the mailboxes do themselves."""
        if self._listener is None:
            return
        address, listener = self._listener
        state = "hanging" if self._hangs() else "no spool" if listener.spool_trouble else "listening"
        detail = f"{listener.accepted} accepted, {listener.spool_depth} in the spool"
        note_source(
            self._engine, address, "webhook", state, listener.spool_trouble or detail,
            poll_seconds=int(6 * REPORT_SECONDS), now=datetime.now(UTC), success=state == "listening",
        )  # fmt: skip
        for name, counts in listener.endpoints.items():
            self._note_endpoint(f"{ENDPOINT} {name}", "open" if state == "listening" else state, counts)

    def _note_endpoint(self, name: str, state: str, counts: "EndpointCounts") -> None:
        """Write down an endpoint where something is new; its last success is the newest POST, if one came.

        What came before this start stays: a provider that is silent since must be seen.
        """
        if self._endpoints.get(name) == (state, counts):
            return
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.outcomes.items())
        detail = f"{counts.posts} POSTs since the start" + (f": {outcomes}" if outcomes else "")
        note_source(
            self._engine, name, ENDPOINT, state, detail, poll_seconds=None,
            now=counts.newest or datetime.now(UTC), success=counts.newest is not None,
        )  # fmt: skip
        self._endpoints[name] = (state, counts)


def in_words(counts: Balance) -> str:
    """Return the balance as a sum that adds up, like `5 read = 4 stored + 1 ignored`."""
    parts = (
        (counts.stored, "stored"),
        (counts.duplicate, "duplicate"),
        (counts.ignored, "ignored"),
        (counts.quarantined, "quarantined"),
        (counts.failed, "failed"),
    )
    terms = [f"{count} {name}" for count, name in parts if count or name == "stored"]
    return f"{counts.read} read = " + " + ".join(terms)
