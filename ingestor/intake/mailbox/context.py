"""What each step of a mailbox's work is given: settings, memory, the way to the writer, the right to act."""

import concurrent.futures
import contextlib
import math
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine

from ingestor.archive.items import Action, Item, Receipt, Submission
from ingestor.archive.mailbox_state import release_lease, take_lease
from ingestor.archive.writer import Writer
from ingestor.errors import IngestorError, MailboxUnavailable
from ingestor.logs import get_logger
from ingestor.providers.contract import MailReader, Rules
from ingestor.record import Outcome
from ingestor.settings import Mailbox

if TYPE_CHECKING:  # it costs memory, and not everybody has what it needs
    from ingestor.intake.mailbox.trust import Judge

LEASE_SECONDS: Final = 20.0
"""How long the right to act lasts without being renewed: with LOOK_SECONDS below the 30 s in which another
daemon takes over."""

LEASE_LEFT: Final = 12.0
"""What must be left of it before something is begun on the server."""

LOOK_SECONDS: Final = 4.0
"""Between two looks of one who waits: to renew the right to act, or to take it over."""

LAST_SECONDS: Final = 2.0
"""How long a commit in hand is waited for once the thread is asked to stop."""

HANGS_UP: Final = "the connection breaks when it is fetched"
NO_MEMORY: Final = "there is not enough memory to fetch it"
UNWRITABLE: Final = "the archive cannot write it"
LONGEST_STREAK: Final = 50


Place = tuple[str, int, int]
"""Folder, UIDVALIDITY and UID of a mail."""

log = get_logger(__name__)


class Stopped(Exception):
    """The wait was ended because the mailbox's thread is asked to stop."""


class Bell:
    """Rung in one thread, it ends every wait of another, now and from now on."""

    def __init__(self) -> None:
        self._listening, self._ringing = os.pipe()
        os.set_blocking(self._listening, False)
        os.set_blocking(self._ringing, False)

    def __del__(self) -> None:
        os.close(self._listening)
        os.close(self._ringing)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of rings already
            os.write(self._ringing, b"!")

    def fileno(self) -> int:
        return self._listening

    def wait(self, seconds: float) -> bool:
        """Wait until the bell rings: True; False when `seconds` have passed."""
        return bool(ready(seconds, self))

    @property
    def rung(self) -> bool:
        return self.wait(0)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long what may take, in seconds."""

    connect: float = 30.0
    """TCP and TLS, until the server's greeting."""
    silence: float = 60.0
    """The longest wait for a byte when an answer is due."""
    hurried: float = 15.0
    """The same for mails over which a connection broke before, since others wait behind them; a command then
    takes a quarter of its time at most."""
    command: float = 300.0
    """One command in all, however slowly its answer dribbles in."""
    idle: float = 300.0
    """IDLE is left and entered again: routers forget silent connections, Dovecot and GMX after 10 minutes."""
    retry_first: float = 1.0
    retry_longest: float = 300.0
    refused_first: float = 120.0
    """A wrong password is tried again one to two minutes later at first, at most four times in ten minutes:
    many servers lock an account after five. A slip of the server's costs no more than that."""
    token_refused_first: float = 600.0
    """The same for an access token, which no try locks out and no time mends: five to ten minutes."""
    refused_longest: float = 3600.0
    settled: float = 30.0
    """A connection that lived this long starts the next retries from the beginning."""
    retry_flapping: float = 8.0
    """The longest pause after a connection that finished a pass, however soon it broke then: mail that came
    meanwhile must not wait for minutes, and a server that ends each connection must not be hammered."""


def ready(seconds: float, *waited_for: Any) -> set[int]:
    """Return the file numbers that can be read (or are at their end) within `seconds`."""
    poll = select.poll()
    for one in waited_for:
        poll.register(one, select.POLLIN)
    return {number for number, _ in poll.poll(max(0.0, seconds) * 1000)}


class Lease:
    """The right to act on a mailbox (flag, move, delete): one daemon at a time has it.

    It keeps daemons out of each other's way, and is no promise's foundation: what is read and stored is safe
    whoever has it. `holder` says who wants it.
    """

    def __init__(self, engine: Engine, mailbox: str, holder: Callable[[], str]) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._holder = holder
        self._until = 0.0
        self._told = False
        self._fault: str | None = None

    @property
    def ours(self) -> bool:
        return time.monotonic() < self._until

    def held(self) -> bool:
        """Renew the lease, or take it if nobody else has it; say whether it is ours."""
        now = time.monotonic()
        if self._until - now >= LEASE_LEFT:
            return True
        self._until = 0.0
        try:
            if take_lease(self._engine, f"mailbox {self._mailbox}", self._holder(), LEASE_SECONDS):
                self._until, self._told, self._fault = now + LEASE_SECONDS, False, None
        except IngestorError as fault:
            if str(fault) != self._fault:
                self._fault = str(fault)
                log.warning("who acts on the mailbox cannot be settled now; nothing is done on the server",
                            mailbox=self._mailbox, reason=self._fault)  # fmt: skip
        return self._until > 0

    def stand_by(self, count: int) -> None:
        """Say, once, that somebody else has it, and that `count` things stay pending."""
        if not self._told and self._fault is None:
            self._told = True
            log.info(
                "another daemon acts on this mailbox; what is to be done on the server stays pending",
                mailbox=self._mailbox, count=count,
            )  # fmt: skip

    def release(self) -> None:
        """Give it back, if it is ours: others need not wait for its end."""
        if self._until:
            self._until = 0.0
            with contextlib.suppress(IngestorError):
                release_lease(self._engine, f"mailbox {self._mailbox}", self._holder())


@dataclass(slots=True)
class Suspects:
    """Mails during whose fetch the connection broke, and how often; remembered over connections.

    After a break the same mails are fetched in smaller groups, then one by one, and the one that breaks it
    again is put off into `pending`: it must not hold up the others.
    """

    group_sizes: Sequence[int] = (750, 25, 1)
    breaks: dict[Place, int] = field(default_factory=dict)
    reasons: dict[Place, str] = field(default_factory=dict)
    narrowed: int = 0
    """How often a break has told something: it is progress as long as this grows, and it cannot for ever."""
    streak: int = 0  # of breaks since a mail came

    def of(self, place: Place) -> int:
        return self.breaks.get(place, 0)

    def put_off(self, place: Place) -> bool:
        return self.of(place) >= len(self.group_sizes)

    def broke(self, places: Sequence[Place], reason: str) -> None:
        for place in places:
            self.reasons[place] = reason
            self.breaks[place] = self.of(place) + 1
        self.streak += 1
        # Where nothing comes at all it is not these mails: then it is a failure like any other.
        self.narrowed += self.streak <= LONGEST_STREAK

    def recall(self, places: Iterable[Place]) -> None:
        for place in places:
            self.breaks[place] = len(self.group_sizes)

    def passed(self, places: Iterable[Place]) -> None:
        self.streak = 0
        if self.breaks:
            for place in places:
                if not self.reasons.get(place, "").startswith(UNWRITABLE):  # that shows later
                    self.breaks.pop(place, None)
                    self.reasons.pop(place, None)

    def size_for(self, place: Place, largest: int) -> int:
        """Return the largest group this mail may be fetched in: `largest` where it broke no connection."""
        broken = self.of(place)
        return self.group_sizes[min(broken, len(self.group_sizes) - 1)] if broken else largest


@dataclass(slots=True)
class Memory:
    """What a mailbox remembers over its connections; a crash may take all of it."""

    waiting: int = 0  # how much was to be done on the server when it was last counted
    suspects: Suspects = field(default_factory=Suspects)
    missing: dict[str, str] = field(default_factory=dict)
    """Why a configured folder is not read now, by its name."""
    idle_again_at: float = 0.0
    rescanned: dict[str, tuple[int, int]] = field(default_factory=dict)
    """UIDVALIDITY of a folder, and up to which UID a rescan has handed it over."""
    read_to: dict[str, int] = field(default_factory=dict)
    """Up to which UID each folder was read, whatever the archive knows of it."""
    near_misses_full: date | None = None
    """The day of UTC on which no more near misses are kept."""
    unkept: set[str] = field(default_factory=set)
    """Folders that are opened read-write, because the server forgets their numbers otherwise."""
    archive_key: bytes = b""
    dictionary: tuple[int, bytes] | None = None
    """What payloads are packed with, once the archive has been asked."""
    told: set[tuple[str, ...]] = field(default_factory=set)

    def is_news(self, *what: str) -> bool:
        """Say whether `what` was not told yet, and remember that it is now."""
        news = what not in self.told
        self.told.add(what)
        return news


class Unwritable(MailboxUnavailable):
    """What was read can never be written as it is; waiting mends neither it nor the program."""


class Delivery:
    """Submits to the writer and counts the outcomes. While one submission is stored the next is fetched."""

    def __init__(self, writer: Writer, stop: Bell, suspects: Suspects) -> None:
        self.tally: Counter[Outcome] = Counter()
        self.waiting = False
        """True while nothing but the writer's answer is waited for."""
        self.settled_at = time.monotonic()
        """When something was last committed, by `time.monotonic()`."""
        self._writer = writer
        self._stop = stop
        self._suspects = suspects
        self._in_flight: tuple[Submission, concurrent.futures.Future[Receipt]] | None = None

    def submit(self, submission: Submission) -> None:
        """Hand over `submission`, after the one before it has been committed."""
        self.settle()
        self._in_flight = submission, self._writer.submit(submission)

    def settle(self) -> None:
        """Wait until everything handed over is committed.

        Raises Stopped when the thread is asked to stop and the commit does not come within seconds: it then
        happens, whole, or not at all, and the cursor tells. Raises Unwritable where the program cannot write
        it: its mails are then suspects like those over which a server hangs up.
        """
        if self._in_flight is None:
            return
        submission, future = self._in_flight
        self.waiting = True
        try:
            receipt = self._wait(future)
        except (IngestorError, Stopped):
            raise
        except Exception as fault:
            if not submission.items:
                raise
            reason = f"{UNWRITABLE} ({type(fault).__name__})"
            places = [item.position for item in submission.items if isinstance(item, Item)]
            self._suspects.broke(
                [(one.folder or "", one.uidvalidity or 0, one.uid or 0) for one in places], reason
            )
            raise Unwritable(reason) from None
        finally:
            self.waiting = False
            self._in_flight = None
        self.tally.update(receipt.outcomes)
        self.tally[Outcome.IGNORED] += submission.ignored
        self.tally[Outcome.FAILED] += submission.failed
        self.settled_at = time.monotonic()

    def _wait(self, future: concurrent.futures.Future[Receipt]) -> Receipt:
        until = math.inf
        while not concurrent.futures.wait((future,), 0.1).done:
            if self._stop.rung:
                until = min(until, time.monotonic() + LAST_SECONDS)
            if time.monotonic() > until:
                raise Stopped
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Stopped from None


@dataclass(frozen=True, slots=True)
class Context:
    """One mailbox and what it works with. `run_id` None is the writer's own run; `clock` gives aware UTC."""

    mailbox: Mailbox
    rules: Rules
    reader: MailReader
    engine: Engine
    run_id: int | None
    clock: Callable[[], datetime]
    lease: Lease
    delivery: Delivery
    memory: Memory
    judge: "Judge | None" = None
    """Who says whether a mail comes from whom it says, where somebody asks."""

    @property
    def after_store(self) -> Action | None:
        wanted = self.mailbox.after_store
        return None if wanted == "keep" else Action(wanted)

    @property
    def log(self) -> Any:
        return get_logger(__name__).bind(mailbox=self.mailbox.name)


def account_of(mailbox: Mailbox) -> str:
    """Return a mailbox's login and server in one spelling: standard ports and a last dot say nothing."""
    host = mailbox.host.rstrip(".").casefold()
    with contextlib.suppress(UnicodeError):
        host = host.encode("idna").decode()
    port = "" if mailbox.port in {143, 993} else f":{mailbox.port}"
    return f"{mailbox.username}@{host}{port}"


def grouped(weighted: Iterable[tuple[int, int, int]], largest_weight: int) -> Iterator[list[int]]:
    """Yield UIDs in groups; each comes with its weight and the largest group it may be part of."""
    group: list[int] = []
    total = 0
    room = 0
    for uid, weight, size in weighted:
        if group and (total + weight > largest_weight or len(group) >= min(room, size)):
            yield group
            group, total, room = [], 0, size
        group.append(uid)
        total += weight
        room = min(room or size, size)
    if group:
        yield group
