"""Where the files of tests and of their servers lie: in memory where that has room, else on the disk.

A database of PostgreSQL is 300 files: making and dropping one takes 12 ms of the processor in memory, and
180 on a disk's file system, almost all of it in the kernel.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")
_ENOUGH = 4_000_000_000  # a suite takes half of that; a container's default is 64 MB
_CHOSEN = "PYTEST_DEBUG_TEMPROOT"  # of pytest's own folders; workers inherit it


def choose(config: pytest.Config) -> None:
    """Choose the memory, unless somebody has chosen, or the long trials run: their archives are large."""
    short = "not torture" in config.getoption("markexpr")
    if _CHOSEN not in os.environ and short and _has_room():
        os.environ[_CHOSEN] = str(_MEMORY)


def _has_room() -> bool:
    """Say whether files fit there, and programs among them may be run."""
    if not os.access(_MEMORY, os.W_OK) or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(_MEMORY).free > _ENOUGH


def new_folder(prefix: str, *, on_disk: bool = False) -> Path:
    """Make a folder for a server; its path is short, as sockets need it."""
    memory = os.environ.get(_CHOSEN) == str(_MEMORY) and not on_disk
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if memory else "/tmp"))
