"""Whose archive it is: root works on it as its owner, anybody else gets the exact `sudo -u` line."""

import os
import pwd
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ingestor.archive.engine import sqlite_path
from ingestor.archive.faults import user_name
from ingestor.errors import ConfigurationError

# capabilities(7), and the version of capset(2) that takes 64 bits.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2
_CAPABILITIES_3 = 0x20080522

OF_THE_UNIT = Path("/var/lib/ingestor")
"""The state directory of the shipped unit; its owner is whom a PostgreSQL server knows."""

_KEPT = ("INGESTOR_CONFIG", "INGESTOR_DATABASE_URL")


def ownership_advice(url: str, state_directory: Path) -> str | None:
    """Return one line with the command to use instead of this one, or None where this user may go on."""
    file = sqlite_path(url)
    for place in (file.absolute() if file else None, state_directory.absolute()):
        owner = _owner(place) if place else None
        if place is None or owner is None or owner == os.geteuid():
            continue
        if os.geteuid() == 0:
            return (
                f"root would leave files in {_folder(place)} that their owner {user_name(owner)} cannot "
                f"write; run: {sudo_line(owner)}"
            )
        if not _writable(place):
            whose = _owner(place.parent)
            if owner == 0 and whose:  # copied back by root, say, into a folder of the service's user
                line = shlex.join(["chown", f"{user_name(whose)}:", str(place)])
                return f"{place} belongs to root, who alone may write it; run: {line}"
            return f"{place} may not be written by this user; run: {sudo_line(owner)}"
    return None


def become_owner(url: str, state_directory: Path) -> None:
    """As root, go on as the owner of the archive where root would leave files that its owner cannot write.

    What root may read stays readable: an input in somebody's closed home, a credential of the unit. This
    thread and those it starts are changed, so call it before there are others. Anybody else stays himself.
    """
    owner = foreign_owner(url, state_directory)
    if owner is None:
        return
    import ctypes  # noqa: F401 - for root alone, and while he may still read it

    try:
        user = pwd.getpwuid(owner)
        group, groups = user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
        os.environ["HOME"] = user.pw_dir  # where PostgreSQL's library looks for .pgpass
    except KeyError:
        group, groups = owner, [owner]
    os.setgroups(groups)
    os.setresgid(group, group, 0)
    os.setresuid(owner, owner, 0)  # root is saved: what he may read is asked for below
    _go_on_reading()


@contextmanager
def as_owner(url: str, state_directory: Path) -> Iterator[None]:
    """As root, be the archive's owner meanwhile where it lies in PostgreSQL, which may know users by name.

    A file needs none of that: SQLite gives what root makes beside it to the owner of the file.
    """
    if sqlite_path(url) is not None or foreign_owner(url, state_directory) is None:
        yield
        return
    home, real, group, groups = os.environ.get("HOME"), os.getuid(), os.getegid(), os.getgroups()
    become_owner(url, state_directory)
    try:
        yield
    finally:
        os.setresuid(real, 0, 0)
        os.setresgid(group, group, group)
        os.setgroups(groups)
        if home is not None:
            os.environ["HOME"] = home


def foreign_owner(url: str, state_directory: Path) -> int | None:
    """Return for root whose archive it is, where it is somebody else's; None for anybody else."""
    if os.geteuid() != 0:
        return None
    file = sqlite_path(url)
    if file is not None:
        places = [file.absolute(), state_directory.absolute()]
    else:  # the folder one happens to stand in says nothing about the archive of a server
        places = [state_directory.absolute() if "STATE_DIRECTORY" in os.environ else OF_THE_UNIT]
    return next(filter(None, map(_owner, places)), None)


def _go_on_reading() -> None:
    """Take the right to read everything back, which went with the user id; a container may withhold it."""
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, lower bits first
    if system.capget(header, sets) == 0:
        wanted = _DAC_READ_SEARCH if sets[1] & _DAC_READ_SEARCH else _DAC_OVERRIDE
        sets[0] |= sets[1] & wanted
        system.capset(header, sets)


def refuse_closed(path: Path) -> NoReturn:
    """Raise ConfigurationError for an archive at `path` that this user may not even look at."""
    owner = _owner(path)
    hint = f"run: {sudo_line(owner)}" if owner is not None else "ask its owner"
    raise ConfigurationError(f"{path} may not be read by this user; {hint}")


def sudo_line(owner: int) -> str:
    """Return the command line of this process as user `owner` must type it."""
    kept = [name for name in _KEPT if name in os.environ]
    preserve = [f"--preserve-env={','.join(kept)}"] if kept else []
    program = Path(sys.argv[0]).name
    called = "ingestor" if program in ("ingestor", "__main__.py", "-c", "") else sys.argv[0]
    return shlex.join(["sudo", *preserve, "-u", user_name(owner), called, *sys.argv[1:]])


def _owner(place: Path) -> int | None:
    """Return who owns `place`, or where it does not exist yet the nearest folder above it."""
    for candidate in (place, *place.parents):
        try:
            return candidate.stat().st_uid
        except OSError:
            continue  # not there yet, or closed to us: then the folder's owner is who to ask
    return None


def _writable(place: Path) -> bool:
    """Say whether SQLite could work here: it needs the file and its folder."""
    if place.exists() and not os.access(place, os.W_OK):
        return False
    return os.access(_folder(place), os.W_OK | os.X_OK)


def _folder(place: Path) -> Path:
    return place if place.is_dir() else place.parent
