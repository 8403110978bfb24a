"""From an admitted request to a durable one: the writer first, the spool where it does not answer in time.

With `spool_first` both: the spool, then the writer, and what is in the spool is answered in any case.
Everything here runs in the server's event loop, but for `_finished` and what the spool's thread calls.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import Any

from ingestor.archive.items import Receipt, Submission
from ingestor.errors import IngestorError
from ingestor.http import OVERLOADED, Bounds, Headers, Refusal, RefusalLog
from ingestor.intake.listener import gate
from ingestor.intake.listener.gate import Admission
from ingestor.intake.listener.posts import (
    EMPTY,
    SPOOLED,
    PostsRead,
    ReceivedPost,
    RulesByProvider,
    Taker,
    committed,
    new_identity,
    reader,
    submission_of,
)
from ingestor.intake.listener.replay import Keeper
from ingestor.logs import get_logger
from ingestor.providers.contract import Answer, Post
from ingestor.timestamps import utc_now

_log = get_logger(__name__)

_HEALTHY = Answer(200, "text/plain", b"ok")
_LONGEST_WAIT_AT_STOP = 3.0


@dataclass(frozen=True, slots=True)
class Limits(Bounds):
    """Bounds of the server, and how long a POST may take to become durable; Agile gives up after 30 s.

    After `writer_seconds` a POST goes to the spool, after `answer_seconds` even that has not helped.
    """

    writer_seconds: float = 5.0
    answer_seconds: float = 20.0
    in_flight: int = 1024
    in_flight_bytes: int = 64 * 1024 * 1024


class _Entry(Future[Receipt]):
    """One POST from its arrival to its answer: the future that the writer fulfils.

    The library's has a condition for threads that wait: 3 % of the CPU of a POST, and nobody waits. Who has
    `turn` first decides: the writer that begins with it, or who takes it back.
    """

    def __init__(
        self, received: ReceivedPost, answer: "asyncio.Future[Refusal | None]", since: float,
        finished: "Callable[[_Entry, Receipt | None], None]",
    ) -> None:  # fmt: skip
        self.received = received
        self.answer = answer
        self.since = since
        self.with_writer = False
        self.spooled = False
        self.in_spool = False
        self.outcomes: tuple[str, ...] = (SPOOLED,)
        self._finished = finished
        self._turn = Lock()

    def set_running_or_notify_cancel(self) -> bool:
        return self._turn.acquire(blocking=False)

    def cancel(self) -> bool:
        taken_back = self._turn.acquire(blocking=False)
        if taken_back:
            self._finished(self, None)
        return taken_back

    def set_result(self, result: Receipt) -> None:
        self._finished(self, result)

    def set_exception(self, exception: BaseException | None) -> None:  # noqa: ARG002 - a future's signature
        """Go on without the writer, which has said why."""
        self._finished(self, None)


class Reception:
    """Takes admitted POSTs, and answers each once it is durable."""

    def __init__(
        self, writer: Taker, keeper: Keeper, rules: RulesByProvider, limits: Limits, refusals: RefusalLog,
        posts: PostsRead, *, spool_first: bool = False,
    ) -> None:  # fmt: skip
        self.rules = rules
        self._writer = writer
        self._keeper = keeper
        self._limits = limits
        self._refusals = refusals
        self._posts = posts
        self._loop: asyncio.AbstractEventLoop  # there once the server has begun
        self._spool_first = spool_first
        self._patience = limits.writer_seconds
        self._unanswered: dict[bytes, _Entry] = {}
        self._bytes = 0
        self._done: deque[tuple[_Entry, Receipt | None]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._unanswered)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        admission: Admission = scope["state"]["admission"]
        body = await _whole_body(receive)
        if body is None:  # the client left in the middle of it: it was never told anything
            return
        if admission.entrance is None:
            answer: Answer | Refusal = _HEALTHY
        elif len(self._unanswered) >= self._limits.in_flight or self._bytes > self._limits.in_flight_bytes:
            answer = OVERLOADED
        else:
            answer = await self._take(admission, body, scope)
        if isinstance(answer, Refusal):
            self._refusals.note(answer, admission.client)
            answer = Answer(answer.status, "", b"")
        await _send(send, answer, close=answer.status >= 300)

    def look_after(self) -> None:
        """Send to the spool what the writer has not answered in time; called in each round."""
        self._posts.tick()
        self._collect()  # nothing is left waiting for a wake-up that a fault in between has cost
        now = self._loop.time()
        for entry in list(self._unanswered.values()):
            if entry.since > now - min(self._patience, self._limits.answer_seconds):
                break
            self._give_up_on_writer(entry)
            if entry.since <= now - self._limits.answer_seconds:
                self._answer(entry, gate.NOT_DURABLE)

    def hurry(self, seconds: float) -> None:
        """Wait for the writer no longer than a third of `seconds`: the daemon wants to end."""
        self._patience = min(_LONGEST_WAIT_AT_STOP, seconds / 3, self._patience)

    async def _take(self, admission: Admission, body: bytes, scope: Any) -> Answer | Refusal:
        entrance = admission.entrance
        assert entrance is not None  # noqa: S101 - the caller has looked
        now = utc_now()
        head: Headers = scope["state"]["head"]
        content_type = head.get(b"content-type", b"").decode("latin-1")
        encoding = head.get(b"content-encoding", b"").decode("latin-1")
        post = Post(body, scope["query_string"], content_type, now, encoding)
        received = ReceivedPost(new_identity(now), entrance.name, entrance.provider, admission.client, post)
        work = submission_of(received, self.rules)
        accepted: Answer = reader(entrance.provider).ACCEPTED
        outcomes: tuple[str, ...] = (EMPTY,)
        if work is not None:
            entry = _Entry(received, self._loop.create_future(), self._loop.time(), self._finished)
            self._unanswered[received.identity] = entry
            self._bytes += len(body)
            self._submit(entry, work)
            verdict = await entry.answer
            if isinstance(verdict, Refusal):
                return verdict
            outcomes = entry.outcomes
        self._posts.note(entrance.name, outcomes, now)
        return accepted

    # To the writer

    def _submit(self, entry: _Entry, work: Submission) -> None:
        if self._writer.trouble is not None:
            self._spool(entry, with_writer=False)
        elif self._spool_first:
            entry.spooled = True
            told = partial(self._in_spool, entry, work)
            self._keeper.keep(entry.received, told, with_writer=True)
        else:
            self._hand_over(entry, work)

    def _in_spool(self, entry: _Entry, work: Submission, fault: OSError | None) -> None:
        """Go on to the writer, with or without the spool; called in the spool's thread."""
        entry.spooled = entry.in_spool = fault is None
        try:
            self._loop.call_soon_threadsafe(self._hand_over, entry, work)
        except RuntimeError:  # the loop has ended
            if fault is None:
                self._keeper.settle(entry.received, durable=False)

    def _hand_over(self, entry: _Entry, work: Submission) -> None:
        try:
            self._writer.submit(work, entry)
        except (IngestorError, RuntimeError) as fault:  # it is stopping
            _log.warning("the writer took no POST", error=type(fault).__name__)
            if entry.in_spool:
                self._keeper.settle(entry.received, durable=False)
                self._answer(entry, None)
            else:
                self._spool(entry, with_writer=False)
        else:
            entry.with_writer = True

    def _finished(self, entry: _Entry, receipt: Receipt | None) -> None:
        """Take note, in the writer's thread; the loop is woken once for all POSTs of a commit."""
        self._done.append((entry, receipt))
        if len(self._done) > 1:
            return
        try:
            self._loop.call_soon_threadsafe(self._collect)
        except RuntimeError:  # the loop has ended: nobody waits for an answer any more
            self._collect_for_keeper()

    def _collect(self) -> None:
        while self._done:
            entry, receipt = self._done.popleft()
            entry.with_writer = False
            outcomes = committed(receipt)
            if entry.spooled:
                self._keeper.settle(entry.received, durable=outcomes is not None)
            if outcomes is not None:
                entry.outcomes = outcomes
                if entry.received.identity not in self._unanswered:  # it was counted as spooled
                    self._posts.note(entry.received.source, entry.outcomes, None)
                self._answer(entry, None)
            elif entry.in_spool:
                self._answer(entry, None)
            elif not entry.spooled:
                self._spool(entry, with_writer=False)

    def _collect_for_keeper(self) -> None:
        while self._done:
            entry, receipt = self._done.popleft()
            if entry.spooled:
                self._keeper.settle(entry.received, durable=committed(receipt) is not None)

    # To the spool

    def _give_up_on_writer(self, entry: _Entry) -> None:
        if entry.in_spool:
            self._answer(entry, None)
        if entry.spooled or not entry.with_writer:
            return
        entry.spooled = True
        self._spool(entry, with_writer=True)
        entry.cancel()  # what the writer has not begun it gives back

    def _spool(self, entry: _Entry, *, with_writer: bool) -> None:
        self._keeper.keep(entry.received, partial(self._spooled, entry), with_writer=with_writer)

    def _spooled(self, entry: _Entry, fault: OSError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._answer, entry, None if fault is None else gate.NOT_DURABLE)
        except RuntimeError:  # the loop has ended: the provider heard nothing and sends it again
            return

    # To the client

    def _answer(self, entry: _Entry, refusal: Refusal | None) -> None:
        """Let the request go on, once: durable, or refused."""
        if self._unanswered.pop(entry.received.identity, None) is None:
            return
        self._bytes -= len(entry.received.post.body)
        if not entry.answer.done():
            entry.answer.set_result(refusal)


async def _whole_body(receive: Any) -> bytes | None:
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def _send(send: Any, answer: Answer, *, close: bool) -> None:
    start, body = _messages(answer, close)
    await send(start)
    await send(body)


@lru_cache(maxsize=64)
def _messages(answer: Answer, close: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    headers = [(b"content-length", str(len(answer.body)).encode())]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode()))
    if close:
        headers.append((b"connection", b"close"))
    start = {"type": "http.response.start", "status": int(answer.status), "headers": headers}
    return start, {"type": "http.response.body", "body": answer.body}
