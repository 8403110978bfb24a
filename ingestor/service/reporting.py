"""How the run stands, told to systemd and to the table that `ingestor status` reads.

The daemon leaves notes in the archive; `daemons` is what another process makes of them: whether one lives.
"""

import json
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine

from ingestor.archive.mailbox_state import Source, drop_source, note_source
from ingestor.archive.runs import Balance, Run, balance
from ingestor.errors import IngestorError
from ingestor.logs import get_logger
from ingestor.watch.found import ENDPOINT, Live

if TYPE_CHECKING:
    from ingestor.intake.listener.listener import Listener
    from ingestor.intake.listener.posts import EndpointCounts

log = get_logger(__name__)

REPORT_SECONDS = 10.0
KIND: Final = "daemon"
"""What the notes are called among the sources."""
SILENT: Final = timedelta(seconds=60)
"""Without a note for so long a daemon hangs, or its machine is gone. It leaves one every ten seconds."""
_BEGUN: Final = datetime.now(UTC)
_REMEMBERED: Final = timedelta(days=1)

ARCHIVE = "archive file"
"""The name among the sources under which `status` shows what is wrong with the file itself."""
DIFFERS = "archive"
"""The name under which it shows what somebody changed in it."""

LISTENER_LIMIT = 60.0
"""Seconds without a finished round after which the listener hangs."""


class Reporter:
    """Keeps `text`, and the rows of the daemon and its listener among the sources.

    It asks the database, which may hang; so it has a thread of its own that nobody ever waits for: `start`
    begins it, and `stop` leaves a report in hand behind.
    """

    def __init__(self, engine: Engine, run: int, installation: str, live: Live) -> None:
        """Tell about run `run` of `installation`, and about the parts of `live`."""
        self._engine, self.run, self._live = engine, run, live
        self._name = f"{KIND} {installation}"
        self._stopped = Event()
        self._noting = Lock()  # a report in hand at the stop must not be what stands in the end
        self.start = Thread(target=self._work, name="reporter", daemon=True).start
        self.stop = self._stopped.set
        self._archive: str | None = None
        self._noted: dict[str, str | None] = {}
        self._endpoints: dict[str, tuple[str, EndpointCounts]] = {}
        self._listened: datetime | None = None
        self._counts = str(Balance(0, 0, 0, 0, 0, 0))

    @property
    def text(self) -> str:
        """A line for people: the run's balance as last read, and how every source fares at this moment."""
        states = self._states()
        if self._listener is not None:
            states[self._listener[0]] = self._listener_state(self._listener[1])
        states |= {ARCHIVE: "growing"} if self._archive else {}
        states |= {DIFFERS: "changed"} if self._live.differs else {}
        return "; ".join([self._counts, *(f"{name}: {state}" for name, state in sorted(states.items()))])

    def note_archive(self, trouble: str | None) -> None:
        """Let `status` say what is wrong with the archive's file, until it hears None."""
        self._archive = trouble

    def note_daemon(self, state: str) -> None:
        """Write down that the daemon is `running`, or `stopped` by somebody. Raises IngestorError."""
        with self._noting:
            if state == "running" and self._stopped.is_set():
                return
            spool = self._listener[1].keeper.depth if self._listener else None
            detail = note_of_this_process(self.run, spool, self._parts())
            note_source(
                self._engine, self._name, KIND, state, detail,
                poll_seconds=int(REPORT_SECONDS), now=datetime.now(UTC), success=True,
            )  # fmt: skip

    def _states(self) -> dict[str, str]:
        return {one.name: one.state for one in self._live.mailboxes()}

    @property
    def _listener(self) -> "tuple[str, Listener] | None":
        webhook, listener = self._live.settings.webhook, self._live.listener
        return (webhook.listen, listener) if webhook and listener else None

    def _parts(self) -> dict[str, object]:
        """Return how our parts fare: daemons share rows, and who wrote last hides the others."""
        parts: dict[str, object] = {"mailboxes": self._states()}
        if self._listener is not None:
            address, listener = self._listener
            state = self._listener_state(listener)
            self._listened = datetime.now(UTC) if state == "listening" else self._listened
            parts["listener"] = {
                "name": address, "state": state, "detail": self._listener_detail(listener),
                "last_success": self._listened and self._listened.isoformat(),
            }  # fmt: skip
            parts["posts"] = {name: dict(one.outcomes) for name, one in listener.posts.by_endpoint.items()}
            parts["requests"] = {name: one.posts for name, one in listener.posts.by_endpoint.items()}
        return parts

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                self.note_daemon("running")
                self._note(ARCHIVE, "growing", self._archive)
                self._note(DIFFERS, "changed", self._live.differs)
                self._note_listener()
                self._counts = str(balance(self._engine, self.run))
            except IngestorError as error:
                self._counts = str(error)
            except Exception as error:  # noqa: BLE001 - a report that fails must not be the last one
                log.warning("a report failed", error=type(error).__name__)
            self._stopped.wait(REPORT_SECONDS)

    def _note(self, name: str, state: str, trouble: str | None) -> None:
        """Write down what ails the archive; the first time also that there is nothing."""
        if self._noted.get(name, "") == trouble:
            return
        if trouble is None:
            drop_source(self._engine, name)
        else:
            note_source(
                self._engine, name, "archive", state, trouble, poll_seconds=None,
                now=datetime.now(UTC), success=False,
            )  # fmt: skip
        self._noted[name] = trouble

    def _note_listener(self) -> None:
        """Write down how the listener fares, as the mailboxes do themselves."""
        if self._listener is None:
            return
        address, listener = self._listener
        state = self._listener_state(listener)
        note_source(
            self._engine, address, "webhook", state, self._listener_detail(listener),
            poll_seconds=int(6 * REPORT_SECONDS), now=datetime.now(UTC), success=state == "listening",
        )  # fmt: skip
        for name, counts in listener.posts.by_endpoint.items():
            # Where something is new; what came before this start stays: who is silent since must be seen.
            now = ("open" if state == "listening" else state, counts)
            if self._endpoints.get(name) != now:
                note_source(
                    self._engine, f"{ENDPOINT} {name}", ENDPOINT, now[0],
                    _in_words(counts.posts, counts.outcomes), poll_seconds=None,
                    now=counts.newest or datetime.now(UTC), success=counts.newest is not None,
                )  # fmt: skip
                self._endpoints[name] = now

    def _listener_detail(self, listener: "Listener") -> str:
        keeper = listener.keeper
        return keeper.trouble or f"{listener.posts.accepted} accepted, {keeper.depth} in the spool"

    def _listener_state(self, listener: "Listener") -> str:
        if "webhook" in self._live.hanging():
            return "hanging"
        return "no spool" if listener.keeper.trouble else "listening"


def _in_words(posts: int, outcomes: Mapping[str, int]) -> str:
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    return f"{posts} POSTs since the start" + (f": {told}" if told else "")


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that ever wrote here. `since`: its last note, or its stop; `begun`: its start; aware UTC.

    `state` is `running`, `silent` (it lives and says nothing), `stopped` (cleanly, as by `systemctl stop`) or
    `gone` (killed, crashed, or its machine is off). `late` is what makes the exit code of `status` 1.
    `spool` is how many POSTs waited in the spool of its machine then, None where it had none; `parts` is how
    what it reads and listens to fared.
    """

    state: str
    since: datetime
    host: str | None
    pid: int | None
    run: int
    late: bool = False
    begun: datetime | None = None
    spool: int | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lives(self) -> bool:
        """Whether there is a process."""
        return self.state in {"running", "silent"}


def note_of_this_process(
    run: int, spool: int | None = None, parts: Mapping[str, object] | None = None
) -> str:
    """Return for `daemons` of another process who this is, its run, and how many POSTs its spool has."""
    stands = _stands(os.getpid())
    return json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "run": run, "machine": _machine(),
         "started": stands and stands[1], "begun": _BEGUN.isoformat(),
         "spool": spool, "parts": parts or {}}
    )  # fmt: skip


def daemons(noted: Sequence[Source], last: Run | None, now: datetime) -> list[Daemon]:
    """Return every daemon among `noted` as it fares at `now` (aware UTC), the living first.

    `last` is the newest run of `run` or `run --once`. It speaks for a daemon of an earlier version, which
    left no notes; where mailboxes are read by `run --once` since, nobody misses the daemon that was stopped.
    """
    found = [_daemon(source, now) for source in noted if source.kind == KIND]
    if not found and last is not None and last.command == "run":
        if last.ended_at is not None:
            found = [Daemon("stopped", last.ended_at, None, None, last.id)]
        elif now - last.started_at > SILENT:
            found = [Daemon("gone", last.started_at, None, None, last.id)]
    served = any(one.lives for one in found)
    judged = []
    for one in found:
        once = last is not None and last.command == "run --once" and last.started_at > one.since
        missed = not served and not once
        fresh = one.state == "gone" and now - one.since < _REMEMBERED
        # Nobody else can replay the spool of another machine, however long ago that was.
        if one.lives or missed or fresh or one.spool:
            late = one.state != "running"
            judged.append(replace(one, late=late))
    return sorted(judged, key=lambda one: (not one.lives, now - one.since))


def _daemon(source: Source, now: datetime) -> Daemon:
    try:
        note: Mapping[str, Any] = json.loads(source.detail or "{}")
    except ValueError:
        note = {}
    silent = now - source.updated_at > SILENT
    lives = _lives(note)
    if source.state == "stopped":
        state = "stopped"
    elif lives is False or (lives is None and silent):
        state = "gone"
    else:
        state = "silent" if silent else "running"
    begun = datetime.fromisoformat(note["begun"]) if "begun" in note else None
    return Daemon(
        state, source.updated_at, note.get("host"), note.get("pid"), int(note.get("run", 0)), begun=begun,
        spool=note.get("spool"), parts=note.get("parts", {}),
    )  # fmt: skip


def as_told(noted: Sequence[Source], judged: Sequence[Daemon]) -> list[Source]:
    """Return what is `noted` of the sources as the daemons among `judged` that live tell of it.

    A daemon that stopped, or fares badly by itself, hides nothing of the others: each has its listener in a
    row of its own, a mailbox is read where one of them reads it, and the POSTs of all are counted.
    """
    living = [one for one in judged if one.lives and one.parts]
    if not living:
        return list(noted)
    listeners = [one for one in living if "listener" in one.parts]
    told = [_told_by(one, living, listeners) for one in noted if one.kind != "webhook" or not listeners]
    hosts = Counter(one.host for one in listeners)
    for one in listeners:
        where = f" on {one.host}" if len(listeners) > 1 else ""
        where += f", pid {one.pid}" if hosts[one.host] > 1 else ""
        told.append(_listener_of(one, where))
    return told


def _told_by(source: Source, living: Sequence[Daemon], listeners: Sequence[Daemon]) -> Source:
    if source.kind == "mailbox":
        # A mailbox writes its row at once, a daemon its note every ten seconds.
        over = source.state == "stopped"
        fresh = [one for one in living if over or one.since >= source.updated_at]
        states = [one.parts["mailboxes"].get(source.name) for one in fresh]
        best = next((one for one in ("watching", "polling") if one in states), None)
        best = best or next(filter(None, states if over else []), source.state)
        return source if best == source.state else replace(source, state=best, detail=None)
    if source.kind == ENDPOINT and listeners:
        name = source.name.removeprefix(f"{ENDPOINT} ")
        outcomes: Counter[str] = Counter()
        for one in listeners:
            outcomes.update(one.parts["posts"].get(name, {}))
        posts = sum(one.parts["requests"].get(name, 0) for one in listeners)
        states = [one.parts["listener"]["state"] for one in listeners]
        state = "open" if "listening" in states else states[0]
        return replace(source, state=state, detail=_in_words(posts, outcomes))
    return source


def _listener_of(daemon: Daemon, where: str) -> Source:
    told, poll = daemon.parts["listener"], int(6 * REPORT_SECONDS)
    last = told["last_success"] and datetime.fromisoformat(told["last_success"])
    return Source(told["name"] + where, "webhook", told["state"], told["detail"], poll, last, daemon.since)


def _lives(note: Mapping[str, Any]) -> bool | None:
    """Return whether the process of a note is there, None where only its own machine can tell."""
    pid = note.get("pid")
    if not isinstance(pid, int) or note.get("machine") is None or note["machine"] != _machine():
        return None
    stands = _stands(pid)
    if stands is not None:
        return stands[0] not in "ZX" and stands[1] == note.get("started")
    try:
        os.kill(pid, 0)  # /proc may hide other users' processes (hidepid); this does not
    except ProcessLookupError:
        return False
    except OSError:
        return None
    return None


def _machine() -> str | None:
    """Return what is the same for all processes that see each other's numbers, and for no others.

    Not the boot's id: the unit's ProcSubset=pid hides it. machine-id(5) wants its id hashed.
    """
    try:
        numbers = Path("/proc/self/ns/pid").readlink()
        identity = Path("/etc/machine-id").read_bytes() if Path("/etc/machine-id").exists() else b""
    except OSError:
        return None
    return f"{socket.gethostname()} {blake2b(identity, digest_size=8).hexdigest()} {numbers}"


def _stands(pid: int) -> tuple[str, int] | None:
    """Return the state letter and the start (in ticks since the boot) of a process; see proc(5), stat."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return fields[0], int(fields[19])
