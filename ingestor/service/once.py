"""`run --once`: one full pass over every mailbox, all at the same time, then the end."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from threading import Thread
from typing import Protocol

import structlog

from ingestor.archive.queries import all_refused
from ingestor.archive.runs import balance, end_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError
from ingestor.intake.mailbox import MailboxThread
from ingestor.service.daemon import LAST_RESORT_SECONDS, MAILBOXES_SECONDS, WRITER_SECONDS
from ingestor.service.ended import Ended
from ingestor.service.installation import Installation
from ingestor.service.opening import open_archive
from ingestor.service.reloading import run_options
from ingestor.service.signals import Signals, exit_at_once
from ingestor.settings import Settings, rules_for, state_directory

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.1
TROUBLE_SECONDS = 60.0  # how long a database that went away is waited for


class Passing(Protocol):
    """What a pass needs of `intake.mailbox.MailboxThread`."""

    def run_once(self) -> object:
        """Read every folder once; raise IngestorError where that could not be done."""

    def stop(self) -> None:
        """End soon, after the batch in hand."""


class Pass:
    """One mailbox's pass in a thread of its own."""

    def __init__(self, name: str, reader: Passing) -> None:
        """Prepare the pass of mailbox `name`."""
        self.name = name
        self.reader = reader
        self.failure: str | None = "it was stopped before it came to its end"
        self.thread = Thread(target=self._run, name=f"mailbox {name}", daemon=True)

    def _run(self) -> None:
        try:
            self.reader.run_once()
        except IngestorError as error:
            self.failure = str(error)
        else:
            self.failure = None


def run_once(settings: Settings) -> Ended:
    """Read every mailbox once and return how it went.

    Only the main thread may call this. Raise ConfigurationError where there is no mailbox, ArchiveUnavailable
    where the database is not there: somebody waits for this command, so it does not wait itself.
    """
    if not settings.mailbox:
        raise ConfigurationError("there is no [[mailbox]] to read once; add one, or leave --once out")
    begun = time.monotonic()
    with Signals(exit_at_once, LAST_RESORT_SECONDS) as signals:
        engine, run = open_archive(settings, "run --once", run_options(settings))
        with ExitStack() as stops:
            stops.callback(engine.dispose)
            writer = Writer(Store(engine))
            writer.start()
            stops.callback(writer.stop, WRITER_SECONDS)
            installation = Installation(state_directory(settings))
            stops.callback(installation.close)
            rules = rules_for(settings, "agile")
            passes = [
                Pass(one.name, MailboxThread(one, rules, writer, engine, run, holder=installation.id))
                for one in settings.mailbox
            ]
            failures = _pass_over(passes, writer, signals)
            writer.stop(WRITER_SECONDS)
            end_run(engine, run, datetime.now(UTC))
            done = balance(engine, run)
            if done.quarantined and not done.stored and (why := all_refused(engine)):
                failures |= dict.fromkeys((one.name for one in passes), why)
            return Ended(run, done, time.monotonic() - begun, failures)


def _pass_over(passes: Sequence[Pass], writer: Writer, signals: Signals) -> dict[str, str]:
    """Run all `passes` to their end, or until a stop is wished; return the failures by mailbox.

    A pass that was still going when the stop came has not failed: its cursor says how far it got.
    """
    for one in passes:
        one.thread.start()
    sound = time.monotonic()
    running = list(passes)
    while running and not signals.stop_wished and time.monotonic() - sound < TROUBLE_SECONDS:
        running[0].thread.join(LOOK_SECONDS)
        running = [one for one in running if one.thread.is_alive()]
        if writer.trouble is None:
            sound = time.monotonic()
    _stop(running)
    if running and not signals.stop_wished:
        raise ArchiveUnavailable(f"{writer.trouble}; nothing is lost, call this again")
    failures = {one.name: one.failure for one in passes if one not in running and one.failure is not None}
    for one in running:
        log.warning("mailbox not read to its end", mailbox=one.name, reason="stopped by a signal")
    return failures


def _stop(running: Sequence[Pass]) -> None:
    for one in running:
        one.reader.stop()
    deadline = time.monotonic() + MAILBOXES_SECONDS
    for one in running:
        one.thread.join(max(deadline - time.monotonic(), 0))
