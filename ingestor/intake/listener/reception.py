"""From an admitted request to a durable one: the writer first, the spool where it does not answer in time.

Everything here runs in the listener's event loop, except `_finished` and `_spooled`, which the writer's and
the spool's threads call.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import partial

import structlog

from ingestor.archive.entries import Item, Receipt, Submission
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
    items_of,
    new_identity,
    reader,
)
from ingestor.providers.contract import Answer, Post

_log = structlog.get_logger()

_MOST_ITEMS = 250

# A turn of the event loop sees a part of what many clients send at once. Waiting for the rest of it makes one
# commit of two or three, and a lone POST waits for one turn without work.
_GATHERING_SECONDS = 0.005

# Two threads that both want the interpreter wake each other for every system call of either, which took as
# long as the work itself: with many clients at once the loop got twice as many POSTs through when it waited
# for the writer, and another quarter when it wrote into a file itself. No longer than this, and not again
# before the writer was that quick.
_COURTESY_SECONDS = 0.05


class _Entry:
    """One POST from its arrival to its answer."""

    __slots__ = ("accepted", "answered", "exchange", "received", "since")

    def __init__(self, exchange: Exchange, received: ReceivedPost, accepted: Answer, since: float) -> None:
        self.exchange = exchange
        self.received = received
        self.accepted = accepted
        self.since = since
        self.answered = False


class _Group:
    """The POSTs of a few turns of the event loop, handed to the writer together.

    A POST is never split over two groups, so it still becomes durable whole or not at all; one future for
    all of them instead of one each is a third of the cost of a POST in this thread.
    """

    __slots__ = ("entries", "future", "items", "seen", "since", "spooled")

    def __init__(self, since: float) -> None:
        self.entries: list[_Entry] = []
        self.items: list[Item] = []
        self.since = since
        self.seen = 0
        self.future: Future[Receipt] | None = None
        self.spooled = False


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
        self._gathering: _Group | None = None
        self._submitted: dict[_Group, None] = {}
        self._done: deque[tuple[_Group, Future[Receipt]]] = deque()
        self._writer_is_prompt = True

    @property
    def in_flight(self) -> int:
        """How many POSTs wait for their answer."""
        return len(self._unanswered)

    def take(
        self, exchange: Exchange, admission: Admission, body: bytes, query: bytes, content_type: str,
        content_encoding: str,
    ) -> None:  # fmt: skip
        """Make one POST durable, then answer it."""
        if len(self._unanswered) >= self._limits.in_flight or self._bytes > self._limits.in_flight_bytes:
            exchange.reply(gate.OVERLOADED)
            return
        door = admission.door
        now = self._now()
        post = Post(body, query, content_type, now, content_encoding)
        received = ReceivedPost(new_identity(now), door.name, door.provider, admission.client, post)
        entry = _Entry(exchange, received, reader(door.provider).ACCEPTED, self._loop.time())
        self._unanswered[received.identity] = entry
        self._bytes += len(body)
        items = items_of(received, self.rules)
        if not items:
            self._accept(entry)
        elif self._writer.trouble is not None:
            self._spool(entry, with_writer=False)
        else:
            self._gather(entry, items)

    def look_after(self) -> None:
        """Send to the spool what the writer has not answered in time; called a few times a second."""
        now = self._loop.time()
        for group in list(self._submitted):
            if group.since > now - self._patience:
                break
            self._give_up_on_writer(group)
        for entry in list(self._unanswered.values()):
            if entry.since > now - self._limits.answer_seconds:
                break
            self._refuse(entry)

    def hurry(self, seconds: float) -> None:
        """Stop waiting for the writer longer than `seconds`: the daemon wants to end."""
        self.stopping = True
        self._patience = min(seconds, self._patience)

    # To the writer

    def _gather(self, entry: _Entry, items: tuple[Item, ...]) -> None:
        group = self._gathering
        if group is None:
            group = self._gathering = _Group(entry.since)
            self._loop.call_soon(self._submit_when_quiet)
        group.entries.append(entry)
        group.items.extend(items)
        if len(group.items) >= _MOST_ITEMS:
            self._submit()

    def _submit_when_quiet(self) -> None:
        group = self._gathering
        if group is None:
            return
        if len(group.items) > group.seen and self._loop.time() < group.since + _GATHERING_SECONDS:
            group.seen = len(group.items)
            self._loop.call_soon(self._submit_when_quiet)
        else:
            self._submit()

    def _submit(self) -> None:
        group, self._gathering = self._gathering, None
        if group is None:
            return
        try:
            work = Submission(self._run_id, tuple(group.items))
            group.future = self._writer.submit(work, here=self._writer_is_prompt)
        except (IngestorError, RuntimeError) as fault:  # it is stopping
            _log.warning("the writer took no POST", error=type(fault).__name__)
            for entry in group.entries:
                self._spool(entry, with_writer=False)
        else:
            self._submitted[group] = None
            if self._writer_is_prompt and self._done_at_once(group.future):
                self._done.append((group, group.future))
                self._loop.call_soon(self._collect)
            else:
                group.future.add_done_callback(partial(self._finished, group))

    def _done_at_once(self, future: "Future[Receipt]") -> bool:
        try:
            future.exception(_COURTESY_SECONDS)
        except TimeoutError:
            self._writer_is_prompt = False
        return future.done()

    def _finished(self, group: _Group, future: "Future[Receipt]") -> None:
        self._done.append((group, future))
        try:
            self._loop.call_soon_threadsafe(self._collect)
        except RuntimeError:  # the loop has ended: nobody waits for an answer any more
            self._settle_with_keeper(group, future)

    def _collect(self) -> None:
        while self._done:
            group, future = self._done.popleft()
            self._submitted.pop(group, None)
            self._writer_is_prompt = self._loop.time() < group.since + _COURTESY_SECONDS
            group.future = None  # else each would live on in a cycle until the garbage collector finds it
            if group.spooled:
                self._settle_with_keeper(group, future)
            if durable(future):
                for entry in group.entries:
                    self._accept(entry)
            elif not group.spooled:
                for entry in group.entries:
                    self._spool(entry, with_writer=False)

    # To the spool

    def _give_up_on_writer(self, group: _Group) -> None:
        if group.spooled or group.future is None:
            return
        group.spooled = True
        for entry in group.entries:
            self._spool(entry, with_writer=True)
        group.future.cancel()  # what the writer has not begun it gives back

    def _settle_with_keeper(self, group: _Group, future: "Future[Receipt]") -> None:
        done = durable(future)
        if group.spooled:
            for entry in group.entries:
                self._keeper.settle(entry.received, durable=done)

    def _spool(self, entry: _Entry, *, with_writer: bool) -> None:
        self._keeper.keep(entry.received, partial(self._spooled, entry), with_writer=with_writer)

    def _spooled(self, entry: _Entry, fault: OSError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._accept if fault is None else self._refuse, entry)
        except RuntimeError:  # the loop has ended: the provider heard nothing and sends it again
            return

    # To the client

    def _accept(self, entry: _Entry) -> None:
        if not entry.answered:
            self._settle(entry)
            self.accepted += 1
            self.last_accepted = entry.received.post.arrived_at
            entry.exchange.reply(entry.accepted)

    def _refuse(self, entry: _Entry) -> None:
        if not entry.answered:
            self._settle(entry)
            entry.exchange.reply(gate.NOT_DURABLE)

    def _settle(self, entry: _Entry) -> None:
        entry.answered = True
        del self._unanswered[entry.received.identity]
        self._bytes -= len(entry.received.post.body)
