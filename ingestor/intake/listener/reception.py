"""From an admitted request to a durable one: the writer first, the spool where it does not answer in time.

Everything here runs in the listener's event loop, except `_finished`, which the writer's thread calls.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import partial

import structlog

from ingestor.archive.entries import Receipt, Submission
from ingestor.errors import IngestorError
from ingestor.intake.listener import gate
from ingestor.intake.listener.connection import Connection, Exchange
from ingestor.intake.listener.gate import Admission
from ingestor.intake.listener.keeper import Keeper
from ingestor.intake.listener.limits import Limits
from ingestor.intake.listener.received import (
    ReceivedPost,
    RulesByProvider,
    Taker,
    durable,
    reader,
    submission,
)
from ingestor.providers.contract import Answer, Post

_log = structlog.get_logger()


class _Entry:
    """A POST that is not answered yet, or whose answer came from the spool while the writer still had it."""

    __slots__ = ("accepted", "answered", "exchange", "future", "received", "since", "spooling")

    def __init__(self, exchange: Exchange, received: ReceivedPost, accepted: Answer, since: float) -> None:
        self.exchange = exchange
        self.received = received
        self.accepted = accepted
        self.since = since
        self.answered = False
        self.spooling = False
        self.future: Future[Receipt] | None = None


class Reception:
    """Takes admitted POSTs, and answers each once it is durable."""

    def __init__(
        self, writer: Taker, keeper: Keeper, rules: RulesByProvider, run_id: int | None, limits: Limits,
        loop: asyncio.AbstractEventLoop, now: Callable[[], datetime], forget: Callable[[Connection], None],
    ) -> None:  # fmt: skip
        self.rules = rules
        self.stopping = False
        self.accepted = 0
        self.last_accepted: datetime | None = None
        self.gone = forget
        self._writer = writer
        self._keeper = keeper
        self._run_id = run_id
        self._limits = limits
        self._loop = loop
        self._now = now
        self._patience = limits.writer_seconds
        self._unanswered: dict[bytes, _Entry] = {}
        self._bytes = 0
        self._done: deque[tuple[_Entry, Future[Receipt]]] = deque()
        self._woken = False

    @property
    def in_flight(self) -> int:
        """How many POSTs wait for their answer."""
        return len(self._unanswered)

    def take(
        self, exchange: Exchange, admission: Admission, body: bytes, query: bytes, content_type: str
    ) -> None:
        """Make one POST durable, then answer it."""
        if len(self._unanswered) >= self._limits.in_flight or self._bytes > self._limits.in_flight_bytes:
            exchange.reply(gate.OVERLOADED)
            return
        door = admission.door
        post = Post(body, query, content_type, self._now())
        received = ReceivedPost(uuid.uuid4().bytes, door.name, door.provider, admission.client, post)
        entry = _Entry(exchange, received, reader(door.provider).ACCEPTED, self._loop.time())
        work = submission(received, self.rules, self._run_id)
        self._unanswered[received.identity] = entry
        self._bytes += len(body)
        if work is None:
            self._accept(entry)
        elif self._writer.trouble is not None:
            self._spool(entry, with_writer=False)
        else:
            self._submit(entry, work)

    def look_after(self) -> None:
        """Send to the spool what the writer has not answered in time; called a few times a second."""
        late = self._loop.time() - self._patience
        for entry in list(self._unanswered.values()):
            if entry.since > late:
                break
            if not entry.spooling and entry.future is not None:
                self._spool(entry, with_writer=True)
                entry.future.cancel()  # what the writer has not begun it gives back

    def hurry(self, seconds: float) -> None:
        """Stop waiting for the writer longer than `seconds`: the daemon wants to end."""
        self.stopping = True
        self._patience = min(seconds, self._patience)

    def _submit(self, entry: _Entry, work: Submission) -> None:
        try:
            future = self._writer.submit(work)
        except (IngestorError, RuntimeError) as fault:  # it is stopping
            _log.warning("the writer took no POST", error=type(fault).__name__)
            self._spool(entry, with_writer=False)
        else:
            entry.future = future
            future.add_done_callback(partial(self._finished, entry))

    def _finished(self, entry: _Entry, future: "Future[Receipt]") -> None:
        """Wake the loop, once for all that the writer finishes in one go."""
        self._done.append((entry, future))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop is closed: everything was answered, or its connection is gone
                self._settle_with_keeper(entry, future)

    def _collect(self) -> None:
        self._woken = False
        while self._done:
            entry, future = self._done.popleft()
            if entry.spooling:
                self._settle_with_keeper(entry, future)
            if durable(future):
                self._accept(entry)
            elif not entry.spooling:
                self._spool(entry, with_writer=False)

    def _settle_with_keeper(self, entry: _Entry, future: "Future[Receipt]") -> None:
        self._keeper.settle(entry.received, durable=durable(future))

    def _spool(self, entry: _Entry, *, with_writer: bool) -> None:
        entry.spooling = True
        self._keeper.keep(entry.received, partial(self._spooled, entry), with_writer=with_writer)

    def _spooled(self, entry: _Entry, fault: OSError | None) -> None:
        """Called by the keeper's thread."""
        self._loop.call_soon_threadsafe(self._answer_spooled, entry, fault)

    def _answer_spooled(self, entry: _Entry, fault: OSError | None) -> None:
        if fault is None:
            self._accept(entry)
        elif not entry.answered:
            self._settle(entry)
            entry.exchange.reply(gate.NOT_DURABLE)

    def _accept(self, entry: _Entry) -> None:
        if not entry.answered:
            self._settle(entry)
            self.accepted += 1
            self.last_accepted = entry.received.post.arrived_at
            entry.exchange.reply(entry.accepted)

    def _settle(self, entry: _Entry) -> None:
        entry.answered = True
        del self._unanswered[entry.received.identity]
        self._bytes -= len(entry.received.post.body)
