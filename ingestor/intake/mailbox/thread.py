"""One mailbox, one thread, one connection: kept alive, and reporting how it fares."""

import contextlib
import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from ingestor.archive.mailbox_state import note_source
from ingestor.archive.writer import Writer
from ingestor.errors import (
    ArchiveUnavailable,
    CredentialsRefused,
    IngestorError,
    LoginFault,
    MailboxUnavailable,
)
from ingestor.intake.mailbox.answers import FolderMissing
from ingestor.intake.mailbox.context import Bell, Context, Delivery, Lease, Memory, Stopped, Timing
from ingestor.intake.mailbox.login import Credential, NotOpened, entering
from ingestor.intake.mailbox.session import Session, connect
from ingestor.intake.mailbox.visit import Visit
from ingestor.logs import get_logger
from ingestor.pauses import pauses
from ingestor.providers import mail_reader
from ingestor.providers.contract import MailReader, Rules
from ingestor.record import Outcome
from ingestor.settings import Mailbox

if TYPE_CHECKING:  # it costs memory, and not everybody has what it needs
    from ingestor.intake.mailbox.trust import Judge

NOTED_EVERY = 10.0  # seconds between two reports of the same state, unless the mailbox is polled more often

_UNREADABLE = (
    "refused", "failing", "misconfigured", "needs_login", "needs_consent", "needs_secret", "clock",
)  # fmt: skip
_TOLD = dict.fromkeys(_UNREADABLE, "mailbox cannot be read") | {
    "unreachable": "mailbox cannot be reached; it is tried again",
    # Said here too: a writer with nothing to write does not notice that the archive is gone.
    "waiting": "mailbox waits for the archive",
}
"""What the log says when a mailbox comes into a state; of a missing folder the visit tells."""

log = get_logger(__name__)


class MailboxThread:
    """Reads one mailbox from `start` to `stop`; or, without them, once (`run_once`) or again (`rescan`).

    `rules` are the mail provider's, `run_id` is what outcomes are counted under (None: the writer's own run),
    `holder` says who acts on the mailbox. Password and token are read when they are due.
    """

    def __init__(
        self, mailbox: Mailbox, rules: Rules, writer: Writer, engine: Engine, run_id: int | None, *,
        timing: Timing | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        holder: Callable[[], str] | None = None,
    ) -> None:  # fmt: skip
        nobody_else = str(uuid.uuid4())
        lease = Lease(engine, mailbox.name, holder or (lambda: nobody_else))
        memory, self._stop = Memory(), Bell()
        self._delivery = Delivery(writer, self._stop, memory.suspects)
        self.name = mailbox.name
        self.state = "starting"
        """`starting`, `watching`, `polling`, `no folder` (none of those configured), `unreachable`,
        `refused` (the login), `needs_login`, `needs_consent`, `needs_secret` or `clock` (there is no access
        token: `LoginFault`), `waiting` (for the archive), `misconfigured`, `failing` or `stopped`."""
        self.last_success: datetime | None = None
        """When all its folders were last read (aware UTC)."""
        reader = mail_reader("agile")
        self._context = Context(
            mailbox, rules, reader, engine, run_id, clock, lease, self._delivery, memory,
            judge_of(mailbox, reader, rules),
        )  # fmt: skip
        self._credential = Credential(mailbox)
        self._timing = timing or Timing()
        self._writer = writer
        self._worked_at = time.monotonic()
        self._waiting_for = 0.0
        self._noted_at = -math.inf
        self._passed = False
        """Whether this connection, or the last one, finished a pass."""
        self._first_refused()
        self._begin_anew()
        self._thread = threading.Thread(target=self._run, name=f"mailbox-{mailbox.name}", daemon=True)

    @property
    def progress(self) -> float:
        """`time.monotonic()` when work was last finished: a committed chunk, a cycle, an attempt."""
        return max(self._worked_at, self._delivery.settled_at)

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """How many mails ended how since this thread was made."""
        return dict(self._delivery.tally)

    @property
    def stall_limit(self) -> float:
        """Seconds without `progress` after which the thread is stuck: endless while the archive is down."""
        if self._delivery.waiting and self._writer.trouble is not None:
            return math.inf
        return self._waiting_for + 2 * self._timing.command

    def start(self) -> None:
        """Begin to read, in a thread of its own. Raises RuntimeError or MemoryError where there is none."""
        self._worked(0.0)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end: within seconds, even in the middle of a hung read."""
        self._stop.ring()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end; return whether it has ended, or could not be started."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def run_once(self) -> Counter[Outcome]:
        """Make one full pass over all folders, in the caller's thread; return the outcomes.

        Raises an IngestorError where the mailbox or a folder of it could not be read; `stop` ends it early.
        """
        try:
            tally = self._once(Visit.full_pass)
        except IngestorError as fault:
            self._note(_state_of(fault), str(fault), success=False)  # the caller says it
            raise
        self._note("read once", None, success=True)
        return tally

    @property
    def read_to(self) -> dict[str, int]:
        """Up to which UID each folder was read so far, by the server's name of it."""
        return dict(self._context.memory.read_to)

    def rescan(
        self, folder: str | None = None, since: date | None = None, read_to: Mapping[str, int] | None = None
    ) -> Counter[Outcome]:
        """Read a folder (None: every configured one) again from its beginning, or from day `since` on.

        With `read_to` (that of another thread) what nobody has read yet is left to who is to read it. Neither
        the cursor moves, nor what `status` says. Raises an IngestorError where it could not be read.
        """
        folders = (folder,) if folder is not None else self._context.mailbox.folders

        def read(visit: Visit) -> None:
            for one in folders:
                visit.rescan(one, since, read_to)

        return self._once(read)

    def _once(self, work: Callable[[Visit], None]) -> Counter[Outcome]:
        before = Counter(self._delivery.tally)
        try:
            while not self._done_over_one_connection(work):
                if self._stop.wait(self._timing.retry_first / 4):
                    raise IngestorError("stopped before the end")
        finally:
            self._context.lease.release()
        return self._delivery.tally - before

    def _done_over_one_connection(self, work: Callable[[Visit], None]) -> bool:
        """Do `work`; return False where the connection broke, but got it further: then do it again."""
        progress = self._achieved()
        session: Session | None = None
        try:
            session = self._connect()
            visit = Visit(self._context, session)
            work(visit)
            visit.check_folders()
        except Stopped:
            raise IngestorError("stopped before the end") from None
        except MailboxUnavailable as fault:
            try:
                self._delivery.settle()
            except MailboxUnavailable:  # what was handed over last is not in the archive
                self._context.memory.rescanned.clear()
            if isinstance(fault, FolderMissing) or self._achieved() == progress:
                raise
            return False
        finally:
            self._settle()
            if session is not None:
                session.close()
        return True

    def _achieved(self) -> int:
        """Return a number that grows with each mail handed over and with each suspicion narrowed down."""
        return self._delivery.tally.total() + self._context.memory.suspects.narrowed

    def _connect(self) -> Session:
        def enter(credential: str) -> Session:
            return connect(self._context.mailbox, credential, self._timing, self._stop)

        return entering(self._credential, self._stop, enter)

    # The thread

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            began, narrowed = time.monotonic(), self._context.memory.suspects.narrowed
            pause = self._timing.retry_longest
            try:
                self._live()
            except Stopped:
                break
            except Exception as fault:  # noqa: BLE001 - whatever happens, the mailbox is tried again
                with contextlib.suppress(Exception):  # even where the report fails, for want of memory, say
                    if self._context.memory.suspects.narrowed > narrowed:
                        # Told already, and no failure: the next connection knows which mails to leave out.
                        pause = self._timing.retry_first / 4
                    else:
                        pause = self._pause_after(fault, time.monotonic() - began)
            self._settle()
            self._worked(pause)
        self._settle()
        with contextlib.suppress(Exception):
            self._context.lease.release()
            self._enter("stopped", None)

    def _settle(self) -> None:
        """Wait for what is in the writer's hands, however it ends: the cursor tells what was committed."""
        with contextlib.suppress(Exception):
            self._delivery.settle()

    def _live(self) -> None:
        session = self._connect()
        try:
            self._first_refused()
            self._passed = False
            visit = Visit(self._context, session)
            for wait in visit.cycles(self._timing):
                self._worked(wait)
                self._passed = True
                missing = "; ".join(self._context.memory.missing.values()) or None
                self._enter("watching" if visit.watching else "polling", missing, success=missing is None)
        finally:
            session.close()

    def _worked(self, waiting_for: float) -> None:
        self._worked_at, self._waiting_for = time.monotonic(), waiting_for

    def _first_refused(self) -> None:
        by_token = self._context.mailbox.by_token
        first = self._timing.token_refused_first if by_token else self._timing.refused_first
        self._refusals = pauses(first, self._timing.refused_longest)

    def _begin_anew(self) -> None:
        """Forget earlier faults: the next pause is a short one."""
        self._failures = pauses(self._timing.retry_first, self._timing.retry_longest)
        self._flaps = pauses(self._timing.retry_first, self._timing.retry_flapping)

    def _pause_after(self, fault: Exception, lived: float) -> float:
        """Report a fault, and return how many seconds to wait before the next attempt."""
        if isinstance(fault, CredentialsRefused | NotOpened):
            # Slowly, or the server locks the account for good.
            self._enter(_state_of(fault), str(fault))
            return next(self._refusals)
        if isinstance(fault, LoginFault) and fault.pause is not None:
            self._enter(fault.state, str(fault))
            return fault.pause
        if lived > self._timing.settled:
            self._begin_anew()
        pause, after_a_pass = next(self._failures), next(self._flaps)
        if self._passed:
            pause, self._passed = after_a_pass, False
        if isinstance(fault, IngestorError):
            self._enter(_state_of(fault), str(fault))
        else:
            # Its words may be anybody's: only its kind is fit for a log.
            place = fault.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_name}:{place.tb_lineno}" if place else "?"
            self._enter("failing", f"{type(fault).__name__} in {where}")
        return pause

    def _enter(self, state: str, detail: str | None, *, success: bool = False) -> None:
        before, self.state = self.state, state
        if success:
            self.last_success = self._context.clock()
        if state != before and state in _TOLD:
            tell = log.warning if state in {"unreachable", "waiting"} else log.error
            tell(_TOLD[state], mailbox=self.name, state=state, reason=detail)
        elif state != before and state in {"watching", "polling"}:
            log.info("mailbox is read", mailbox=self.name, state=state, before=before)
        every = min(NOTED_EVERY, self._context.mailbox.poll_seconds)
        if state != before or not success or time.monotonic() - self._noted_at >= every:
            self._note(state, detail, success=success)

    def _note(self, state: str, detail: str | None, *, success: bool) -> None:
        context = self._context
        with contextlib.suppress(IngestorError):  # the writer says what ails the archive
            note_source(
                context.engine, self.name, "mailbox", state, detail, context.mailbox.poll_seconds,
                context.clock(), success=success,
            )  # fmt: skip
            self._noted_at = time.monotonic()


def judge_of(mailbox: Mailbox, reader: MailReader, rules: Rules) -> "Judge | None":
    """Return who judges the senders of `mailbox`, if anybody. Raises ConfigurationError as `Judge` does."""
    if mailbox.trust is None:
        return None
    from ingestor.intake.mailbox.trust import Judge

    return Judge(mailbox.trust, reader, rules)


def _state_of(fault: IngestorError) -> str:
    match fault:
        case CredentialsRefused():
            return "refused"
        case LoginFault():
            return fault.state
        case ArchiveUnavailable():
            return "waiting"
        case FolderMissing():
            return "no folder"
    return "unreachable" if fault.retry else "misconfigured"
