"""Whether the daemon lives: the note that it leaves in the archive, and what another process makes of it."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from ingestor.archive.cursors import Source
from ingestor.archive.runs import Run

KIND: Final = "daemon"
"""What the notes are called among the sources."""
SILENT: Final = timedelta(seconds=60)
"""Without a note for so long a daemon hangs, or its machine is gone. It leaves one every ten seconds."""
_REMEMBERED: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that ever wrote here. `since`: its last note, or its stop, aware UTC.

    `state` is `running`, `silent` (it lives and says nothing), `stopped` (cleanly, as by `systemctl stop`) or
    `gone` (killed, crashed, or its machine is off). `late` is what makes the exit code of `status` 1.
    """

    state: str
    since: datetime
    host: str | None
    pid: int | None
    run: int
    late: bool = False

    @property
    def lives(self) -> bool:
        """Whether there is a process."""
        return self.state in {"running", "silent"}


def note_of_this_process(run: int) -> str:
    """Return who this process is and which run is its own, for `daemons` of any other process."""
    stands = _stands(os.getpid())
    return json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "run": run, "machine": _machine(),
         "started": stands and stands[1]}
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
        if one.lives or missed or fresh:
            late = one.state != "running"
            judged.append(Daemon(one.state, one.since, one.host, one.pid, one.run, late))
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
    return Daemon(state, source.updated_at, note.get("host"), note.get("pid"), int(note.get("run", 0)))


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
