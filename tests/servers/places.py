"""Where the files of the tests' servers lie."""

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ENOUGH = 2_000_000_000  # some clusters for each worker; a container's default of 64 MB is not


def new_folder(prefix: str, *, on_disk: bool = False) -> Path:
    """Make a folder in memory where that has room, else in /tmp; its path is short, as sockets need it.

    A database of PostgreSQL is 300 files: making and dropping one takes 25 ms of the processor in memory,
    and 180 on a disk's file system.
    """
    fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if fits and not on_disk else "/tmp"))
