"""The daemon: it starts its parts in order, watches that they make progress, and stops them in reverse."""

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.mailbox_state import drop_source
from ingestor.archive.runs import balance, end_run
from ingestor.archive.store import Store
from ingestor.archive.wal_care import wal_care
from ingestor.archive.words import keep_up
from ingestor.archive.writer import Writer
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.logs import get_logger
from ingestor.providers import ENDPOINTS
from ingestor.providers.contract import Rules
from ingestor.redaction import redact_secrets
from ingestor.replies.answering import NAME as ANSWERS
from ingestor.replies.opt_outs import hearing, words_of
from ingestor.replies.scanning import BackgroundScan
from ingestor.service.mailboxes import Mailboxes, require_judges
from ingestor.service.opening import (
    Ended,
    Installation,
    WriterToBe,
    open_archive,
    patiently,
    run_options,
)
from ingestor.service.reporting import LISTENER_LIMIT, Reporter
from ingestor.service.retention import LOOK_SECONDS as RETENTION_SECONDS
from ingestor.service.retention import RetentionCare
from ingestor.service.schedule import (
    FAILOVER_SECONDS,
    GUARD_SECONDS,
    ArchiveGuard,
    FailoverCare,
    next_run,
    schedule,
)
from ingestor.service.signals import (
    ANSWERS_SECONDS,
    LAST_RESORT_SECONDS,
    LISTENER_SECONDS,
    MAILBOXES_SECONDS,
    RUN_SECONDS,
    WRITER_SECONDS,
    Signals,
    Wish,
    exit_at_once,
)
from ingestor.service.watchdog import Beat, Notifier, Watchdog
from ingestor.settings import Mailbox, Settings, require_work, rules_for, state_directory
from ingestor.watch import pings
from ingestor.watch.found import Live
from ingestor.watch.watcher import Watcher, channels_of

if TYPE_CHECKING:
    from ingestor.intake.listener.listener import Listener
    from ingestor.replies.worker import AnswerWorker

log = get_logger(__name__)

WAL_SECONDS = 10.0  # between two looks at the SQLite file
LOOK_SECONDS = 3.0  # between two looks at the parts; a signal is heard at once
YOUNG_SECONDS = 15.0
YOUNG_LOOK_SECONDS = 0.5  # what `systemctl status` shows just after a start is how it is
WRITER_LIMIT = 120.0
ANSWERS_RELOAD_SECONDS = 2.0
ANSWERS_LIMIT = 600.0  # an answer with the longest time-outs, and a name that is not resolved
PAGES_SECONDS = 0.5

RESTART_ONLY = ("database", "webhook", "metrics", "opt_out", "retention")


def tune_interpreter() -> None:
    """Set the interpreter up for two busy threads, the listener's and the writer's.

    The garbage collector looks less often, and never at what is loaded for good: messages come and go without
    cycles, and under a load of POSTs it took a twelfth of the time. And a thread that comes back from the
    disk waits at most one millisecond for the other, not five: everybody in its commit waits for it.
    """
    gc.freeze()
    gc.enable()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what the imports took beside what they left: 2 MB
    gc.set_threshold(20_000, 20, 50)
    sys.setswitchinterval(0.001)


class Daemon:
    """One run of the daemon, from the settings to the end of its row in `runs`."""

    def __init__(self, settings: Settings, read_again: Callable[[], Settings], notifier: Notifier) -> None:
        """Run `settings`; on SIGHUP `read_again` returns newer ones or raises ConfigurationError."""
        self._settings = settings
        self._read_again = read_again
        self._notifier = notifier
        self._watchdog = Watchdog(notifier)
        self._writer_to_be = WriterToBe()
        self._listener: Listener | None = None
        self._answers: AnswerWorker | None = None
        self._live = Live(settings, hanging=lambda: sorted(self._watchdog.hanging))
        self._ended: Ended | None = None
        self._stopping_since: float | None = None
        self._told = ""
        self._refused = ""

    def run(self) -> Ended | None:
        """Run until a signal ends it; return how it went, or None where the archive cannot tell.

        Only the main thread may call this. Raise ConfigurationError when there is nothing to do,
        SchemaMismatch when the archive is not for this program.
        """
        require_work(self._settings)
        self._words = words_of(self._settings.opt_out)
        with Signals(exit_at_once, LAST_RESORT_SECONDS) as signals, ExitStack() as listening:
            self._start_listener(listening)
            self._start_pages(listening)
            open_engine(self._settings.database.url).dispose()  # what is wrong with the URL is not waited for
            self._watcher = Watcher(self._live, None, channels_of(self._settings))
            self._watcher.start()
            listening.callback(self._watcher.stop)
            archive = patiently(
                partial(open_archive, self._settings, "run", run_options(self._settings)),
                stop_wished=signals.wait_for_stop,
                tell=self._say,
                alive=self._notifier.alive,
            )
            if archive is not None:
                with ExitStack() as stops:
                    self._start(*archive, stops, listening)
                    self._loop(signals)
                    self._stopping_since = monotonic()
                    log.info("daemon stops")
                    self._notifier.stopping("stopping")
        return self._ended

    def _start(self, engine: Engine, run: int, stops: ExitStack, listening: ExitStack) -> None:
        self._engine, self._run, self._begun = engine, run, monotonic()
        stops.callback(self._end_run)
        store = Store(engine, hearing(self._words))
        self._writer = Writer(store)
        self._writer.run = run
        self._writer.start()
        stops.callback(self._stop_writer)
        self._may_write = lambda: store.held is None
        old_sms = BackgroundScan(engine, self._words, self._may_write)
        old_sms.start()
        stops.callback(old_sms.stop)
        stops.push(listening.pop_all())  # the listener stops before the writer
        self._writer_to_be.writer = self._writer
        self._live.writer = self._writer
        self._installation = Installation(state_directory(self._settings))
        stops.callback(self._installation.close)
        stops.callback(self._end_answers, ANSWERS_SECONDS)
        self._live.credit = lambda: getattr(self._answers, "credit", None)  # a reload may be taking it away
        self._mailboxes = Mailboxes(self._reader)
        stops.callback(self._mailboxes.stop, MAILBOXES_SECONDS)
        self._mailboxes.start(self._settings.mailbox)
        self._live.mailboxes = lambda: self._mailboxes.threads
        address = self._settings.webhook.listen if self._settings.webhook else ""
        self._reporter = Reporter(engine, run, self._installation.id(), self._live)
        self._reporter.start()
        stops.callback(self._reporter.stop)
        self._guard = ArchiveGuard(engine, store, partial(setattr, self._live, "differs"))
        self._guard.look()
        self._wal_care = wal_care(engine, lambda: self._writer.progress, self._reporter.note_archive)
        self._retention = RetentionCare(engine, self._settings.retention)
        directory = state_directory(self._settings)
        self._failover = FailoverCare(
            engine, directory, lambda: self._run, self._begin_day, self._given_again
        )
        self._failover.look()
        stops.callback(self._failover.stop)
        scheduler = schedule(self._jobs(), {"new day": self._begin_day})
        stops.callback(scheduler.shutdown, wait=False)  # a call in hand is not waited for
        self._watcher.engine = engine
        self._stop_pings = pings.begin(self._live, self._settings.watch)
        stops.callback(lambda: self._stop_pings())  # noqa: PLW0108 - a reload puts another in its place
        self._begin_answers()
        stops.callback(self._end_answers, None)
        stops.callback(self._retention.stop)
        names = [mailbox.name for mailbox in self._settings.mailbox]
        tune_interpreter()
        log.info("daemon started", run=run, mailboxes=names, webhook=address or None)
        self._say(self._text())

    def _say(self, text: str) -> None:
        """Tell the service manager how we are. The first word ends the start, also where it is that the
        archive is waited for: POSTs are spooled by then, and `systemctl start` keeps nobody waiting.
        """
        (self._notifier.status if self._told else self._notifier.ready)(text)
        self._told = text

    def _text(self) -> str:
        return self._reporter.text + self._refused

    def _reader(self, mailbox: Mailbox) -> MailboxThread:
        rules = rules_for(self._settings, "agile")
        return MailboxThread(mailbox, rules, self._writer, self._engine, None, holder=self._installation.id)

    def _start_listener(self, stops: ExitStack) -> None:
        """Listen where it is asked for, before anything else: until the archive is open POSTs are spooled."""
        webhook = self._settings.webhook
        if webhook is None:
            return
        from ingestor.intake.listener.listener import Listener

        directory = state_directory(self._settings)
        if not directory.is_dir():
            raise ConfigurationError(
                f"the folder {directory} does not exist; make it, or change database.url"
            )
        rules = listener_rules(self._settings)
        self._listener = Listener(webhook, rules, self._writer_to_be, directory / "spool")
        self._listener.start()
        stops.callback(self._stop_listener, self._listener)

    def _stop_listener(self, listener: "Listener") -> None:
        """Finish the requests that have begun; they have what the mailboxes left of their share, too."""
        gone = 0.0 if self._stopping_since is None else monotonic() - self._stopping_since
        listener.stop(LISTENER_SECONDS + max(0.0, MAILBOXES_SECONDS - gone))

    def _start_pages(self, stops: ExitStack) -> None:
        """Serve [metrics] where it is asked for, also while the archive is waited for."""
        self._live.listener = self._listener
        if self._settings.metrics is None:
            return
        # Imported only where there is a [metrics] to serve: it is an extra.
        try:
            from ingestor.watch.metrics import serve
        except ModuleNotFoundError:
            raise ConfigurationError(
                "[metrics] needs what is not installed: pip install 'agile-sms-ingestor[metrics]'"
            ) from None
        stops.callback(serve(self._settings.metrics, self._live).stop, PAGES_SECONDS)

    def _begin_answers(self) -> None:
        """Answer by today's rules from now on, and by no other any more."""
        self._end_answers(ANSWERS_RELOAD_SECONDS)
        self._answers = None
        if self._settings.answer:
            from ingestor.replies.worker import AnswerWorker  # megabytes that few need

            self._answers = AnswerWorker(self._engine, self._settings, self._may_write)
            self._answers.start()
        else:
            with suppress(IngestorError):
                drop_source(self._engine, ANSWERS)

    def _end_answers(self, seconds: float | None) -> None:
        """Let no further request begin, and wait so long for the one on its way."""
        if self._answers is not None:
            self._answers.ask_to_stop()
            if seconds is not None:
                self._answers.join(seconds)

    def _jobs(self) -> dict[str, tuple[float, Callable[[], None]]]:
        """Return what the schedule calls every so many seconds: the looks at the archive and its file."""
        jobs: dict[str, tuple[float, Callable[[], None]]] = {}
        jobs["archive guard"] = (GUARD_SECONDS, self._guard.look)
        if self._engine.dialect.name == "postgresql":
            jobs["failover"] = (FAILOVER_SECONDS, self._failover.look)
        if self._wal_care is not None:
            jobs["archive file"] = (WAL_SECONDS, self._wal_care.look)
        if self._settings.database.index_texts:
            jobs["words"] = (GUARD_SECONDS, partial(keep_up, self._engine, self._retention.stopping))
        if self._settings.retention.asks:
            jobs["retention"] = (RETENTION_SECONDS, self._retention.look)
        return jobs

    def _given_again(self, run: int) -> list[Callable[[], bool]]:
        """Return what is to be done once another server was promoted, counted in `run`."""
        steps = self._mailboxes.again(self._settings, self._writer, self._engine, run)
        listener = self._listener
        if listener is not None:
            listener.keeper.submit_again(run)
            steps.append(lambda: not listener.keeper.left_again)
        return steps

    def _loop(self, signals: Signals) -> None:
        # Systemd wants to hear at least twice in the time that it gives.
        between = min(LOOK_SECONDS, (self._notifier.watchdog_seconds or float("inf")) / 3)
        while True:
            young = monotonic() - self._begun < YOUNG_SECONDS
            wish = signals.next_wish(min(between, YOUNG_LOOK_SECONDS) if young else between)
            if wish is Wish.STOP:
                return
            if wish is Wish.RELOAD:
                self._reload()
            self._mailboxes.tend()
            self._watchdog.look(self._beats(), monotonic())
            if (text := self._text()) != self._told:
                self._say(text)

    def _beats(self) -> list[Beat]:
        beats = self._mailboxes.beats()
        if self._writer.queued:
            beats.append(Beat("writer", self._writer.progress, WRITER_LIMIT))
        if self._listener is not None:
            beats.append(Beat("webhook", self._listener.progress, LISTENER_LIMIT))
        if self._answers is not None:
            beats.append(Beat("answers", self._answers.progress, ANSWERS_LIMIT))
        return beats

    def _reload(self) -> None:
        """Take over newer mailboxes and numbers; where something is wrong with them the old ones stay."""
        self._notifier.reloading()
        try:
            wanted = self._read_again()
            settings = merged(self._settings, wanted)
            require_work(settings)
            require_judges(settings)
        except IngestorError as error:
            log.error(  # noqa: TRY400 - the sentence says it all; a traceback would bury it
                "reload refused", reason=str(error), consequence="the old configuration stays"
            )
            self._refused = f"; reload refused, the old configuration stays: {redact_secrets(str(error))}"
            self._reloaded()
            return
        for what in RESTART_ONLY:
            if getattr(self._settings, what) != getattr(wanted, what):
                log.warning("a restart is needed", changed=what, needs="systemctl restart ingestor")
        self._settings = self._live.settings = settings
        # All of them, changed or not: a password that was changed in its file is tried at once.
        self._mailboxes.stop(MAILBOXES_SECONDS)
        self._mailboxes.start(self._settings.mailbox)
        if self._listener is not None:
            self._listener.reload(listener_rules(self._settings))
        self._begin_answers()
        self._watcher.channels = channels_of(self._settings)
        self._stop_pings()
        self._stop_pings = pings.begin(self._live, settings.watch)
        log.info("configuration reloaded", mailboxes=[mailbox.name for mailbox in self._settings.mailbox])
        self._refused = ""
        self._reloaded()

    def _reloaded(self) -> None:
        self._told = ""
        self._say(self._text())

    def _begin_day(self) -> None:
        """Close the run's row and begin another: a year's uptime would be one open balance."""
        options = run_options(self._settings)
        self._run = self._reporter.run = next_run(self._engine, self._writer, self._run, options)

    def _stop_writer(self) -> None:
        if not self._writer.stop(WRITER_SECONDS):
            log.warning("the writer was left with work", submissions=self._writer.queued,
                        consequence="it is read again")  # fmt: skip

    def _end_run(self) -> None:
        """Close the run's row and note its balance, unless the database keeps us waiting."""
        ending = Thread(target=self._end_run_now, name="end-run", daemon=True)
        try:
            ending.start()
        except RuntimeError:  # there is no thread to be had
            self._end_run_now()
        else:
            ending.join(RUN_SECONDS)
        if self._ended is None:
            log.warning("the run stays open", run=self._run, reason="the database does not answer")

    def _end_run_now(self) -> None:
        try:
            end_run(self._engine, self._run, datetime.now(UTC))
            self._ended = Ended(self._run, balance(self._engine, self._run), monotonic() - self._begun)
            with suppress(IngestorError):
                self._reporter.note_daemon("stopped")
            self._engine.dispose()
        except (IngestorError, LookupError) as error:
            log.warning("the run stays open", run=self._run, reason=str(error))


def listener_rules(settings: Settings) -> dict[str, Rules]:
    """Return the rules of each provider that can post."""
    return {provider: rules_for(settings, provider) for provider in ENDPOINTS}


def merged(old: Settings, new: Settings) -> Settings:
    """Return `new` with those sections of `old` that only a restart can change."""
    return new.model_copy(update={section: getattr(old, section) for section in RESTART_ONLY})
