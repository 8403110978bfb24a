"""The daemon's own watch: looks at everything twice a minute, and tells what begins and what is over.

A thread of its own, which nobody waits for: neither a database nor a mail server that hangs is in the way of
an SMS. While the database is away the conditions live on in memory, and that very fact is told from there.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from ingestor.archive.engine import reading
from ingestor.archive.mailbox_state import read_sources
from ingestor.archive.queries import look_alikes, refusals, standing
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError
from ingestor.logs import get_logger
from ingestor.pauses import pauses
from ingestor.redaction import redact
from ingestor.replies.answering import credit, states_since
from ingestor.settings import Settings
from ingestor.timestamps import utc_now
from ingestor.watch import troubles
from ingestor.watch.conditions import Condition, Key, claim, load, save, step
from ingestor.watch.found import Live, Report, disks_of, judge, spool_of
from ingestor.watch.troubles import ENDS_SOON, Trouble, clock_off, silent

log = get_logger(__name__)

LOOK_SECONDS: Final = 30.0
FRESH: Final = timedelta(hours=1)
"""How long what came into the quarantine, or only looked like ours, counts as new."""
ASKED_OF_SQL: Final = frozenset(
    {"source", "login refused", "needs login", "archive differs", "archive refuses", "quarantine",
     "look-alikes", "source silent", "clock", "answers paused", "answers unknown", "credit",
     "secret ends", "retention due", "archive waits"}
)  # fmt: skip
"""What only the database can tell: while it is away these are neither begun nor over."""

Send = Callable[[list[Condition], str, datetime], None]


class Watcher:
    """Looks at `live` and at the archive of `engine` (None: not open yet); tells `channels`, by name.

    Both may be put in place of others while it looks. `stop` waits for no message in hand.
    """

    def __init__(
        self, live: Live, engine: Engine | None, channels: Mapping[str, Send], *, host: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:  # fmt: skip
        self._live, self.engine, self.channels = live, engine, channels
        self._host = host or socket.gethostname()
        self._clock = clock
        self._known: dict[Key, Condition] = {}
        self._written: dict[Key, Condition] | None = None
        """What stands in SQL, None where it was never read."""
        self._resting: dict[str, tuple[Iterator[float], float]] = {}
        self._stopped = threading.Event()
        self.stop = self._stopped.set
        self.start = threading.Thread(target=self._run, name="watcher", daemon=True).start

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception as fault:  # noqa: BLE001 - a look that fails must not be the last one
                log.warning("a look at the conditions failed", error=type(fault).__name__)

    def look(self) -> None:
        """Look once, write down what changed, and tell whom it is owed to."""
        now = self._clock()
        age = timedelta(minutes=self._live.settings.watch.after_minutes)
        found = self._of_this_machine(now)
        engine = self.engine
        try:
            if engine is None:
                raise ArchiveUnavailable("not open yet")
            self._read(engine)
            found += [one._replace(condition="archive waits") for one in troubles.of_commits(engine, 0.0)]
            found += self._of_archive(engine, now)
            unjudged: frozenset[str] = frozenset()
        except IngestorError:
            unjudged = ASKED_OF_SQL
        self._known = step(self._known, found, now, age, list(self.channels), unjudged)
        self._write()
        for name, send in self.channels.items():
            self._tell(name, send, now)

    def _of_this_machine(self, now: datetime) -> list[Trouble]:
        live, here = self._live, []
        here += troubles.of_disks(disks_of(live.settings))
        here += troubles.of_spool(spool_of(live.settings, now))
        here += _of_certificate(live.settings, now)
        if (why := live.archive_trouble()) is not None:
            here.append(Trouble("archive", "archive", f"it takes no writes ({why})", "run `ingestor check`"))
        if live.listener is not None and live.settings.webhook and (why := live.listener.keeper.trouble):
            name = live.settings.webhook.listen
            here += troubles.of_sources(
                [Report(name, "webhook", "no spool", why, None, None, now, late=True)]
            )
        here += [
            Trouble("hanging", part, "it finishes no cycle", "run `systemctl restart ingestor`")
            for part in live.hanging()
        ]
        return [one._replace(host=self._host) for one in here]

    def _of_archive(self, engine: Engine, now: datetime) -> list[Trouble]:
        settings = self._live.settings
        kinds = {"mailbox", "archive", "answers", "retention"}
        reports = judge(settings, [one for one in read_sources(engine) if one.kind in kinds], now)
        zone = ZoneInfo(settings.timezone) if settings.timezone else None
        refused = troubles.of_archive(refusals(engine), None)
        return [
            *troubles.of_secrets(settings, now),
            *troubles.of_sources(reports), *troubles.of_retention(reports),
            *(one._replace(condition="archive refuses") for one in refused),
            *troubles.of_unread(standing(engine), look_alikes(engine), now - FRESH),
            *_of_answers(engine, now), *_of_credit(engine, settings),
            *silent(engine, settings.watch.expect, now, zone), *clock_off(engine, now),
        ]  # fmt: skip

    def _read(self, engine: Engine) -> None:
        """Take what stands in SQL, where another daemon may have written, unless ours is newer."""
        stands = load(engine, self._host)
        if self._written is None or self._known == self._written:
            self._known = stands
        self._written = stands

    def _write(self) -> None:
        if self._written is None or self.engine is None:
            return
        try:
            save(self.engine, self._written, self._known)
            self._written = dict(self._known)
        except IngestorError:
            pass  # it lives on in memory, and is written at a later look

    def _tell(self, name: str, send: Send, now: datetime) -> None:
        """Tell one channel in one message all that it is owed."""
        lengths, until = self._resting.get(name, (pauses(60.0, 3600.0), 0.0))
        if monotonic() < until:
            return
        mine = [one for one in self._known.values() if name in one.owed and self._claimed(one, name)]
        if not mine:
            return
        try:
            send(mine, self._host, now)
        except IngestorError as fault:
            for one in mine:  # it is owed still
                now_known = self._known[one.key]
                self._known[one.key] = replace(now_known, owed=(*now_known.owed, name))
            self._write()
            self._resting[name] = lengths, monotonic() + next(lengths)
            log.warning("a notice could not be sent; it is tried again", channel=name, reason=str(fault))
        else:
            self._resting.pop(name, None)
            log.info("notice sent", channel=name, conditions=len(mine))

    def _claimed(self, one: Condition, name: str) -> bool:
        """Take `name` from those that `one` is owed to; False where another daemon is telling it."""
        owed = tuple(other for other in one.owed if other != name)
        try:
            if self._written is not None and self.engine and not claim(self.engine, one, owed):
                return False
        except IngestorError:
            pass  # the database is away, which may be what is to be told
        self._known[one.key] = replace(one, owed=owed)
        if self._written is not None and one.key in self._written:
            self._written[one.key] = self._known[one.key]
        return True


def _of_answers(engine: Engine, now: datetime) -> list[Trouble]:
    with reading(engine) as connection:
        unknown = states_since(connection, now - FRESH).get("unknown", 0)
    if not unknown:
        return []
    says, fix = f"of {unknown:,} nobody knows whether they were sent", "see `ingestor answers list --unknown`"
    return [Trouble("answers unknown", "answers", says, fix, grave=False)]


def _of_credit(engine: Engine, settings: Settings) -> list[Trouble]:
    if not settings.answer:
        return []
    with reading(engine) as connection:
        known = credit(connection)
    if known is None or known >= settings.answers.credit_floor:
        return []
    says = f"the credit ({known} EUR) is below answers.credit_floor: nothing is answered"
    return [Trouble("credit", "answers", says, "top the account up")]


def channels_of(settings: Settings) -> dict[str, Send]:
    """Return who is told, by name: `mail`, `webhook-1`…; the libraries are for those alone who want it."""
    watch = settings.watch
    found: dict[str, Send] = {}
    if watch.mail is None and not watch.webhook:
        return found
    from ingestor.watch import notices

    if (by_mail := watch.mail) is not None:
        found["mail"] = lambda told, host, now: notices.mail(by_mail, notices.notice_of(told, host, now), now)
    for number, hook in enumerate(watch.webhook, 1):
        found[f"webhook-{number}"] = lambda told, host, now, hook=hook: notices.webhook(  # type: ignore[misc]  # hook=hook binds it now
            hook, notices.notice_of(told, host, now)
        )
    return found


def _of_certificate(settings: Settings, now: datetime) -> list[Trouble]:
    webhook = settings.webhook
    if webhook is None or webhook.tls_certificate is None:
        return []
    from ingestor.http.tls import validity  # it needs what only [webhook] brings

    try:
        ends = validity(webhook.tls_certificate).ends
    except ConfigurationError as fault:
        return [Trouble("certificate", "certificate", redact(str(fault)), "run `ingestor check`")]
    if ends - now > ENDS_SOON:
        return []
    fix = "renew it; renewed files are taken up without a restart"
    return [Trouble("certificate", "certificate", f"it ends {ends:%Y-%m-%d}", fix, grave=ends <= now)]
