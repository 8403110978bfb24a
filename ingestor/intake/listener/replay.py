"""The thread that keeps the spool: it writes what must wait, and replays it when the database is back.

Where the spool comes first, a file stays in the folder `kept` for ten minutes after its commit. A standby
that lacked the commit and is promoted gets it from there: the POST is the same arrival, by its UUID.
"""

import errno
import heapq
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingestor.archive.items import Receipt, Submission
from ingestor.errors import IngestorError
from ingestor.intake.listener import spool
from ingestor.intake.listener.posts import (
    PostsRead,
    ReceivedPost,
    RulesByProvider,
    Taker,
    committed,
    submission_of,
)
from ingestor.intake.listener.spool import SpoolFolder, moved
from ingestor.logs import get_logger

_log = get_logger(__name__)

_FILES_AT_ONCE = 64
_REPLAYS_AT_ONCE = 256
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_AFTER_FAILURE = 15.0
_SECONDS_KEPT = 600.0
_SECONDS_BETWEEN_EXPIRIES = 30.0
_SECONDS_BETWEEN_PROOFS = 2.0
_MOVED = OSError(errno.ESTALE, "the folder was moved or replaced while it was open; put it back")

Told = Callable[[OSError | None], None]


@dataclass(frozen=True, slots=True)
class _Keep:
    received: ReceivedPost
    told: Told
    with_writer: bool


@dataclass(frozen=True, slots=True)
class _Settle:
    name: str
    durable: bool


class Keeper:
    """Writes POSTs to the spool folder in batches and replays them in the order of their arrival.

    A POST that the writer still holds is not replayed; written twice, after a crash, it is one arrival.
    """

    def __init__(
        self, directory: Path, writer: Taker, rules: RulesByProvider, posts: PostsRead, *,
        keeps: bool = False, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`keeps` says that a file stays after its commit, for ten minutes by `clock`."""
        self.rules = rules
        self._posts = posts
        self._keeps, self._clock = keeps, clock
        self._kept: deque[tuple[float, str]] = deque()
        self._again: dict[str, int] = {}
        self._asked: int | None = None
        self.depth = 0
        self.trouble: str | None = None
        self._directory = directory
        self._folder = SpoolFolder(directory)
        self._moved: int | None = None
        self._proven = 0.0
        self._writer = writer
        self._jobs: queue.SimpleQueue[_Keep | _Settle | None] = queue.SimpleQueue()
        self._ready: list[str] = []
        self._held: set[str] = set()
        self._replaying: dict[str, tuple[str, Future[Receipt]]] = {}
        self._deferred: list[tuple[float, str]] = []
        self._replayed = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook-spool", daemon=True)

    def start(self) -> None:
        """Prove the folder, take up what an earlier run left in it, and start the thread.

        Raises ConfigurationError where it can never be written; of a full disk, which may pass, it warns.
        """
        try:
            self._folder.open()
        except OSError as fault:
            self._note_fault(fault)
        if (why := moved(self._directory)) is not None:
            _log.error("POSTs were left in a spool folder that was moved", reason=why)
        self._ready = spool.names(self._directory)
        # Committed when, the files do not say; by a daemon whose settings may have been others.
        self._kept.extend((self._clock(), name) for name in spool.names(self._directory / spool.KEPT))
        self._count()
        if self._ready:
            _log.info("POSTs wait in the spool from an earlier run", posts=len(self._ready))
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Write what is queued and end; what waits for its replay stays on disk. Say whether it ended."""
        self._stopping.set()
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._folder.close()
        return True

    def keep(self, received: ReceivedPost, told: Told, *, with_writer: bool) -> None:
        """Write `received` to the spool; `told` gets None once it is durable, or the fault.

        `with_writer`: the writer has it too, and `settle` must follow.
        """
        self._jobs.put(_Keep(received, told, with_writer))

    def settle(self, received: ReceivedPost, *, durable: bool) -> None:
        """Say how the writer ended with a POST kept `with_writer`: its file may go, or is to be replayed."""
        self._jobs.put(_Settle(spool.name_of(received), durable))

    def submit_again(self, run: int) -> None:
        """Submit all that is kept after its commit once more, to be counted under `run`."""
        self._asked = run
        self._jobs.put(None)

    @property
    def left_again(self) -> int:
        """How many of those are not committed yet."""
        return len(self._again) + (self._asked is not None)

    def _run(self) -> None:
        while True:
            try:
                jobs = self._next_jobs()
                self._stay_in_place()
                self._prove_again()
                self._work(jobs)
                if self._stopping.is_set() and self._jobs.empty():
                    return
                self._collect()
                self._replay()
                self._expire()
            except Exception:  # noqa: BLE001 - this thread holds acknowledged SMS: it must outlive every fault
                _log.exception("the spool thread failed and goes on")
                time.sleep(1.0)

    def _stay_in_place(self) -> None:
        """Take another folder that somebody put at the path, once nothing waits in the old one."""
        if self._folder.in_place:
            if self._moved is not None:
                self._moved, self.trouble = None, None
                self._folder.forget()
                _log.info("the spool folder is in its place again", directory=str(self._directory))
            return
        if self._moved != self.depth:
            self._moved = self.depth
            self._folder.note(self.depth)
        self._note_fault(_MOVED)
        if not self.depth and self._directory.is_dir():
            try:
                self._folder.open()
            except (OSError, IngestorError):
                return
            self._ready = spool.names(self._directory)

    def _prove_again(self) -> None:
        """After a full disk see whether there is room again: `status` must not wait for the next POST."""
        if self.trouble is None or self._moved is not None:
            return
        if time.monotonic() < self._proven + _SECONDS_BETWEEN_PROOFS:
            return
        self._proven = time.monotonic()
        try:
            self._folder.prove()
        except (OSError, IngestorError):
            return
        self.trouble = None
        _log.info("the spool takes writes again", directory=str(self._directory))

    def _next_jobs(self) -> list[_Keep | _Settle]:
        jobs: list[_Keep | _Settle] = []
        # Without anything to look after it sleeps until somebody brings something.
        waits = self._ready or self._deferred or self._replaying or self.trouble is not None
        rest = _SECONDS_BETWEEN_EXPIRIES if self._kept else None
        timeout = _SECONDS_BETWEEN_LOOKS if waits else rest
        with suppress(queue.Empty):
            while len(jobs) < _FILES_AT_ONCE:
                if (job := self._jobs.get(timeout=timeout)) is not None:
                    jobs.append(job)
                timeout = 0.0
        return jobs

    def _work(self, jobs: list[_Keep | _Settle]) -> None:
        self._write([job for job in jobs if isinstance(job, _Keep)])
        for job in jobs:
            if isinstance(job, _Settle) and job.name in self._held:
                self._held.discard(job.name)
                if job.durable:
                    self._done(job.name)
                else:
                    heapq.heappush(self._ready, job.name)
        if (run := self._asked) is not None:
            self._take_up_kept(run)
            self._asked = None
        self._count()

    def _write(self, jobs: list[_Keep]) -> None:
        if not jobs:
            return
        results: list[str | OSError] = [_MOVED for _ in jobs]
        if self._folder.in_place:
            written = spool.store(self._folder.place, [job.received for job in jobs])
            if self._folder.in_place:  # else they lie where no restart looks
                results = written
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, OSError):
                self._note_fault(result)
                job.told(result)
                continue
            if not self.depth and not (self._keeps and job.with_writer):
                _log.warning("POSTs go to the spool", reason=self._writer.trouble or "the database is slow")
            self.trouble = None
            if job.with_writer:
                self._held.add(result)
            else:
                heapq.heappush(self._ready, result)
            self._count()
            job.told(None)

    def _note_fault(self, fault: OSError) -> None:
        if self.trouble is None:
            _log.error("the spool takes no write", directory=str(self._directory), error=fault.strerror)
        self.trouble = f"the spool takes no write: {fault.strerror}"

    def _collect(self) -> None:
        for name, (endpoint, future) in list(self._replaying.items()):
            if future.done():
                del self._replaying[name]
                outcomes = committed(None if future.exception() else future.result())
                if outcomes is not None:
                    self._posts.note(endpoint, outcomes, None)
                    self._done(name)
                    self._replayed += 1
                else:
                    self._later(name)
        self._count()
        if self._replayed and not self.depth:
            _log.info("the spool is empty again", posts=self._replayed)
            self._replayed = 0

    def _replay(self) -> None:
        """Hand the oldest to the writer, a bounded number at once.

        Only when the last ones are done: topping up one by one made commits of one or two each.
        """
        if self._replaying:
            return
        while self._deferred and self._deferred[0][0] <= time.monotonic():
            heapq.heappush(self._ready, heapq.heappop(self._deferred)[1])
        while (
            self._ready
            and len(self._replaying) < _REPLAYS_AT_ONCE
            and self._writer.trouble is None
            and not self._stopping.is_set()
        ):
            name = heapq.heappop(self._ready)
            try:
                received = spool.read(self._folder.place, name)
                work = submission_of(received, self.rules)
            except FileNotFoundError:
                _log.warning("a POST that waited in the spool is gone; somebody removed its file", file=name)
                self._again.pop(name, None)
            except OSError as fault:
                _log.error("a spool file cannot be read now", file=name, error=fault.strerror)
                self._later(name)
            except (spool.Corrupt, KeyError) as fault:
                self._set_aside(name, fault)
            else:
                if work is not None:
                    self._submit(name, received.source, work)
                else:
                    self._remove(name)
        self._count()

    def _submit(self, name: str, endpoint: str, work: Submission) -> None:
        work = work._replace(run_id=self._again.get(name))
        try:
            future = self._writer.submit(work)
        except (IngestorError, RuntimeError):
            self._later(name)
        else:
            self._replaying[name] = endpoint, future
            future.add_done_callback(lambda _: self._jobs.put(None))

    def _later(self, name: str) -> None:
        """Let one that failed wait without holding up those behind it."""
        heapq.heappush(self._deferred, (time.monotonic() + _SECONDS_AFTER_FAILURE, name))

    def _set_aside(self, name: str, fault: Exception) -> None:
        self._again.pop(name, None)
        try:
            spool.set_aside(self._folder.place, name)
        except OSError as why:
            _log.error("a spool file is corrupt", file=name, set_aside=False, error=why.strerror)
        else:
            reason = str(fault) if isinstance(fault, spool.Corrupt) else "unknown provider"
            _log.error("a spool file is corrupt", file=name, set_aside=True, reason=reason)

    def _done(self, name: str) -> None:
        """Let a file go whose POST is committed, at once or in ten minutes."""
        if not self._keeps:
            self._remove(name)
            return
        self._again.pop(name, None)
        try:
            spool.set_aside(self._folder.place, name, spool.KEPT)
        except FileNotFoundError:
            return
        except OSError:  # it is the same arrival when it is submitted once more
            self._later(name)
        else:
            self._kept.append((self._clock(), name))

    def _take_up_kept(self, run: int) -> None:
        while self._kept:
            _, name = self._kept.popleft()
            with suppress(FileNotFoundError):
                (self._folder.place / spool.KEPT / name).rename(self._folder.place / name)
                self._again[name] = run
                heapq.heappush(self._ready, name)

    def _expire(self) -> None:
        while self._kept and self._kept[0][0] <= self._clock() - _SECONDS_KEPT:
            self._remove(f"{spool.KEPT}/{self._kept[0][1]}")
            self._kept.popleft()

    def _remove(self, name: str) -> None:
        self._again.pop(name, None)
        try:
            (self._folder.place / name).unlink(missing_ok=True)
        except OSError as fault:  # read-only, or no more ours: the same arrival when it is submitted again
            self._note_fault(fault)
            if "/" not in name:
                self._later(name)

    def _count(self) -> None:
        self.depth = len(self._ready) + len(self._deferred) + len(self._held) + len(self._replaying)
