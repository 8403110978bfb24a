"""The mailboxes as a set: the daemon's threads, and the single pass of `run --once` over all at a time."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Engine

from ingestor.archive.queries import all_refused
from ingestor.archive.runs import balance, end_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError
from ingestor.intake.mailbox.answers import FolderMissing
from ingestor.intake.mailbox.thread import MailboxThread, judge_of
from ingestor.logs import get_logger
from ingestor.providers import mail_reader
from ingestor.providers.contract import Rules
from ingestor.replies.opt_outs import hearing, words_of
from ingestor.replies.scanning import read_old_sms
from ingestor.service import in_background
from ingestor.service.opening import Ended, Installation, open_archive, run_options
from ingestor.service.signals import (
    LAST_RESORT_SECONDS,
    MAILBOXES_SECONDS,
    WRITER_SECONDS,
    Signals,
    exit_at_once,
)
from ingestor.service.watchdog import Beat
from ingestor.settings import Mailbox, Settings, rules_for, state_directory

log = get_logger(__name__)

LOOK_SECONDS = 0.1
CATCH_UP_SECONDS = 15.0
TROUBLE_SECONDS = 60.0  # how long a database that went away is waited for


class Mailboxes:
    """One thread a mailbox, which tries again by itself whatever goes wrong. For the main thread alone."""

    def __init__(self, make: Callable[[Mailbox], MailboxThread]) -> None:
        """Make threads by `make`, with today's rules."""
        self._make = make
        self.threads: Sequence[MailboxThread] = ()
        self._waiting: Sequence[MailboxThread] = ()

    def start(self, mailboxes: Sequence[Mailbox]) -> None:
        """Start a thread for each of `mailboxes`; where none is to be had, say so, and leave it to `tend`."""
        self.threads = self._waiting = [self._make(mailbox) for mailbox in mailboxes]
        for thread, fault in self.tend():
            log.error(
                "no thread can be started for a mailbox; it is tried again", mailbox=thread.name,
                reason=type(fault).__name__, needs="a higher TasksMax of the unit, or more memory",
            )  # fmt: skip

    def tend(self) -> list[tuple[MailboxThread, Exception]]:
        """Start the threads that could not be started so far, and return those that still cannot."""
        refused: list[tuple[MailboxThread, Exception]] = []
        for thread in self._waiting:
            try:
                thread.start()
            except (RuntimeError, MemoryError) as fault:
                refused.append((thread, fault))
        self._waiting = [thread for thread, _ in refused]
        return refused

    def beats(self) -> list[Beat]:
        """Return how each thread stands; one that waits to be started has its last try for a cycle."""
        return [Beat(f"mailbox {one.name}", one.progress, one.stall_limit) for one in self.threads]

    def again(self, settings: Settings, writer: Writer, engine: Engine, run: int) -> list[Callable[[], bool]]:
        """Return a step for each mailbox that reads yesterday's and today's mails once more: `read_again`."""
        now = datetime.now(UTC)

        def read_to(name: str) -> tuple[bool, Mapping[str, int]]:
            own = next((one for one in self.threads if one.name == name), None)
            return (own is None or (own.last_success or now) > now), own.read_to if own else {}

        rules = rules_for(settings, "agile")
        return [
            partial(read_again, one, rules, writer, engine, run, partial(read_to, one.name))
            for one in settings.mailbox
        ]

    def stop(self, seconds: float) -> None:
        """Stop all threads at once and wait up to `seconds` for them together."""
        for thread in self.threads:
            thread.stop()
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            if not thread.join(max(deadline - time.monotonic(), 0)):
                # A silent name server cannot be interrupted. Nothing uncommitted counts as done.
                log.warning("mailbox thread left behind", mailbox=thread.name, seconds=seconds)
        self.threads = self._waiting = ()


def read_again(
    mailbox: Mailbox, rules: Rules, writer: Writer, engine: Engine, run: int,
    read_to: Callable[[], tuple[bool, Mapping[str, int]]],
) -> bool:  # fmt: skip
    """Read what came to `mailbox` yesterday or today once more, also what was moved away; count it in `run`.

    Return True. Raises IngestorError where that could not be done now. What is to be done on the server is
    left to the mailbox's own thread, and so is what is new, which may be answered: `read_to` says whether
    that has caught up, and where it stands.
    """
    until = time.monotonic() + CATCH_UP_SECONDS
    while not read_to()[0] and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    since = (datetime.now(UTC) - timedelta(days=1)).date()
    MailboxThread(mailbox, rules, writer, engine, run).rescan(None, since, read_to()[1])
    if mailbox.move_to is not None and mailbox.after_store == "move":
        untouched = mailbox.model_copy(update={"after_store": "keep"})
        with suppress(FolderMissing):  # nothing was ever moved
            MailboxThread(untouched, rules, writer, engine, run).rescan(mailbox.move_to, since)
    return True


def require_judges(settings: Settings) -> None:
    """Raise ConfigurationError where a table [mailbox.trust] needs what is not installed."""
    for mailbox in settings.mailbox:
        judge_of(mailbox, mail_reader("agile"), rules_for(settings, "agile"))


def run_once(settings: Settings) -> Ended:
    """Read every mailbox once and return how it went.

    Only the main thread may call this. Raise ConfigurationError where there is no mailbox, ArchiveUnavailable
    where the database is not there: somebody waits for this command, so it does not wait itself.
    """
    if not settings.mailbox:
        raise ConfigurationError("there is no [[mailbox]] to read once; add one, or leave --once out")
    words = words_of(settings.opt_out)
    begun = time.monotonic()
    with Signals(exit_at_once, LAST_RESORT_SECONDS) as signals:
        engine, run = open_archive(settings, "run --once", run_options(settings))
        with ExitStack() as stops:
            stops.callback(engine.dispose)
            writer = Writer(Store(engine, hearing(words)))
            writer.start()
            stops.callback(writer.stop, WRITER_SECONDS)
            installation = Installation(state_directory(settings))
            stops.callback(installation.close)
            rules = rules_for(settings, "agile")
            readers = [
                MailboxThread(one, rules, writer, engine, run, holder=installation.id)
                for one in settings.mailbox
            ]
            failures = _pass_over(readers, writer, signals)
            writer.stop(WRITER_SECONDS)
            read_old_sms(engine, words, lambda: signals.stop_wished)
            end_run(engine, run, datetime.now(UTC))
            done = balance(engine, run)
            if done.quarantined and not done.stored and (why := all_refused(engine)):
                failures |= dict.fromkeys((one.name for one in readers), why)
            return Ended(run, done, time.monotonic() - begun, failures)


def _pass_over(readers: Sequence[MailboxThread], writer: Writer, signals: Signals) -> dict[str, str]:
    """Let each of `readers` make one pass, or until a stop is wished; return the failures by mailbox. One
    that was still going then has not failed: its cursor says how far it got.
    """
    passes = {one: in_background(f"mailbox {one.name}", one.run_once) for one in readers}
    sound = time.monotonic()
    running = list(readers)
    while running and not signals.stop_wished and time.monotonic() - sound < TROUBLE_SECONDS:
        wait([passes[running[0]]], LOOK_SECONDS)
        running = [one for one in running if not passes[one].done()]
        if writer.trouble is None:
            sound = time.monotonic()
    for one in running:
        one.stop()
    wait([passes[one] for one in running], MAILBOXES_SECONDS)
    if running and not signals.stop_wished:
        raise ArchiveUnavailable(f"{writer.trouble}; nothing is lost, call this again")
    for one in running:
        log.warning("mailbox not read to its end", mailbox=one.name, reason="stopped by a signal")
    ended = {one.name: passes[one].exception() for one in readers if one not in running}
    return {name: _in_words(fault) for name, fault in ended.items() if fault is not None}


def _in_words(fault: BaseException) -> str:
    if isinstance(fault, IngestorError):
        return str(fault)
    log.error("thread died", exc_info=fault)
    return "it was stopped before it came to its end"
