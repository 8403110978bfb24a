"""Worker processes that turn blocks into rows, and the memory they share with the parent.

They are forked before the parent loads the database, so that each costs little memory. Block and answer
travel in a slot of shared memory: over a pipe, a worker that is done would stand still while the parent
writes to the database. A worker ends when its pipe does: with the parent, however that ended.

`concurrent.futures` was tried in its place (95 lines, 2026-11): 96 us of processor time a mail instead of 84,
60,000 mails in 5.5 s instead of 4.0, and a worker that dies is not named. So this stays.
"""

import contextlib
import gc
import marshal
import mmap
import os
import pickle
import signal
from collections.abc import Sequence
from itertools import count
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn

from ingestor.errors import IngestorError
from ingestor.intake.files.blocks import BLOCK
from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.parse import Findings, MailReader
from ingestor.providers import MAIL_READERS, mail_reader

SLOTS_A_WORKER = 3
"""One that is worked on, and enough in waiting to outlast a transaction of the parent."""


def _loads(message: bytes | memoryview) -> Any:
    return marshal.loads(message)  # noqa: S302 -- between a process and its own fork


class WorkersGone(IngestorError):
    """A worker process ended when it should not have."""


class Pool:
    """`jobs` worker processes and their slots. Make it early, `start` it when the rules are known."""

    def __init__(self, jobs: int) -> None:
        """Fork, without a thread, with all loaded that a worker needs (shared, it is there once), no more:
        an import of 500 MB of mails took 183 MB of memory, not 208 (2026-11-26)."""
        for name in MAIL_READERS:
            mail_reader(name)
        gc.freeze()
        slots = SLOTS_A_WORKER * jobs + 2
        self._memory = mmap.mmap(-1, slots * BLOCK)
        self._free = list(range(slots))
        self._connections: list[Connection] = []
        self._pids: list[int] = []
        self._owed: list[int] = []
        self._slots: dict[int, int] = {}
        for _ in range(jobs):
            self._fork()

    def _fork(self) -> None:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            # A sibling that kept the other end of this pipe would keep its owner alive.
            for connection in (*self._connections, ours):
                connection.close()
            _work(theirs, self._memory)
        theirs.close()
        self._connections.append(ours)
        self._pids.append(pid)
        self._owed.append(0)

    def start(self, *reader: Any) -> None:
        """Give the workers what a `parse.MailReader` is made of."""
        message = pickle.dumps(reader)
        for connection in self._connections:
            self._send(connection, message)

    @property
    def outstanding(self) -> int:
        return sum(self._owed)

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    def _view(self, slot: int, length: int) -> memoryview:
        return memoryview(self._memory)[slot * BLOCK : slot * BLOCK + length]

    def submit(self, number: int, data: bytes | bytearray | memoryview, task: tuple[Any, ...]) -> None:
        """Have a worker do `task` on `data`, while there is room; what it finds comes under `number`."""
        slot = self._free.pop()
        with self._view(slot, len(data)) as view:
            view[:] = data
        worker = min(range(len(self._owed)), key=self._owed.__getitem__)
        self._send(self._connections[worker], marshal.dumps((number, slot, *task)))
        self._owed[worker] += 1
        self._slots[number] = slot

    def collect(self, *, block: bool) -> list[tuple[int, Findings]]:
        """Return what has been found; `block` waits for one at least, if any is owed."""
        if not self.outstanding:
            return []
        answers = []
        for ready in wait(self._connections, None if block else 0):
            worker = self._connections.index(ready)  # type: ignore[arg-type]  # only connections were waited for
            answers.append(self._receive(worker))
        return answers

    def _receive(self, worker: int) -> tuple[int, Findings]:
        connection = self._connections[worker]
        try:
            number, size = _loads(connection.recv_bytes())
            slot = self._slots.pop(number)
            if size < 0:
                answer = _loads(connection.recv_bytes())
            else:
                with self._view(slot, size) as view:
                    answer = _loads(view)
        except (EOFError, OSError):
            raise self._gone(worker) from None
        self._owed[worker] -= 1
        self._free.append(slot)
        return number, Findings(*answer)

    def _send(self, connection: Connection, message: bytes) -> None:
        try:
            connection.send_bytes(message)
        except OSError:
            raise self._gone(self._connections.index(connection)) from None

    def _gone(self, worker: int) -> WorkersGone:
        _, status = os.waitpid(self._pids[worker], 0)
        self._pids[worker] = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return WorkersGone(f"a reading process {how}; what was committed is safe, resume the import")

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        for pid in self._pids:
            if pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        self._connections, self._pids, self._owed = [], [], []
        with contextlib.suppress(BufferError):
            self._memory.close()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work(connection: Connection, memory: mmap.mmap) -> NoReturn:
    """Serve one parent, and never return into its code."""
    code = 70
    # The parent reads, the database writes, and all else waits for them: they come first. With two workers on
    # two cores that was worth 3 to 7 %.
    os.nice(5)
    try:
        # Both go to the whole process group; the parent decides when the work is over.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _serve(connection, memory)
        code = 0
    except (EOFError, OSError):
        code = 0  # the parent has gone
    finally:
        os._exit(code)


def _serve(connection: Connection, memory: mmap.mmap) -> None:
    arguments: Sequence[Any] = pickle.loads(connection.recv_bytes())  # noqa: S301 -- from our own parent
    reader = MailReader(*arguments)
    # Rows are many small tuples and no cycles: the collector would only walk them again and again.
    gc.freeze()
    gc.disable()
    for turn in count():
        if turn % 64 == 63:
            gc.collect()
        number, slot, kind, what, origins = _loads(connection.recv_bytes())
        base = slot * BLOCK
        if kind == "mbox":
            length, dialect = what
            found = reader.read_mbox(memory[base : base + length], Dialect(dialect), *origins)
        else:
            with memoryview(memory) as view, view[base : base + BLOCK] as part:
                found = reader.read_mails(part, what, origins)
        answer = marshal.dumps(found.plain())
        if len(answer) <= BLOCK:
            memory[base : base + len(answer)] = answer
            connection.send_bytes(marshal.dumps((number, len(answer))))
        else:
            connection.send_bytes(marshal.dumps((number, -1)))
            connection.send_bytes(answer)
