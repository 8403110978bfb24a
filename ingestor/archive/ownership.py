"""Whose archive it is: the exact `sudo -u` line for somebody who should not work on it as himself."""

import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from ingestor.archive.engine import sqlite_path
from ingestor.errors import ConfigurationError

_KEPT = ("INGESTOR_CONFIG", "INGESTOR_DATABASE_URL")


def ownership_advice(url: str, state_directory: Path) -> str | None:
    """Return one line with the command to use instead, or None where this user may go on.

    There is something to say when this user may not write the archive (or the state directory), and when
    root would leave files in it that its owner cannot write afterwards.
    """
    file = sqlite_path(url)
    for place in (file.absolute() if file else None, state_directory.absolute()):
        if place is None:
            continue
        owner = _owner(place)
        if owner is None or owner == os.geteuid():
            continue
        if os.geteuid() == 0:
            return (
                f"root would leave files in {_folder(place)} that their owner {_name(owner)} cannot write; "
                f"run: {sudo_line(owner)}"
            )
        if not _writable(place):
            return f"{place} may not be written by this user; run: {sudo_line(owner)}"
    return None


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
    return shlex.join(["sudo", *preserve, "-u", _name(owner), called, *sys.argv[1:]])


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
    if place.is_dir():
        return os.access(place, os.W_OK | os.X_OK)
    if place.exists() and not os.access(place, os.W_OK):
        return False
    return os.access(_folder(place), os.W_OK | os.X_OK)


def _folder(place: Path) -> Path:
    return place if place.is_dir() else place.parent


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
