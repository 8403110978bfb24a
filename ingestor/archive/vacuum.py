"""Leaving no bytes of what was erased: in the -wal, in free pages, in the gaps of pages.

SQLite overwrites what is deleted (`secure_delete`) from this schema on; what was written before may lie in
free pages. And where rows move from one page to another, a copy may stay in a gap of the old page: of 5,480
rows that were erased in many steps 2 were found so. `VACUUM` writes the file anew without either.
"""

import time
from typing import Any, Final

from sqlalchemy import Engine

from ingestor.archive.engine import reading, writing
from ingestor.archive.faults import translated
from ingestor.archive.open_file import open_file
from ingestor.archive.tables import ERASABLE
from ingestor.archive.words import forget_erased

_CLEAN: Final = 1
"""Of PRAGMA user_version: every byte was written under `secure_delete`."""
_CHECKPOINT_SECONDS = 10.0
_BUSY_MS = 60_000


def leave_no_bytes(engine: Engine) -> str | None:
    """Bring the file and its -wal, or the tables, up to what was erased; return what is left to do."""
    if engine.dialect.name != "sqlite":
        _vacuum_tables(engine, "VACUUM")
        return None
    forget_erased(engine)
    file = open_file(engine)
    deadline = time.monotonic() + _CHECKPOINT_SECONDS
    while file is not None and file.checkpoint() is not None:
        if time.monotonic() > deadline:
            return (
                f"a reader keeps what was erased in {file.path.name}-wal: end its transaction; then "
                "`ingestor db vacuum` empties it at once, and a daemon within the hour"
            )
        time.sleep(0.05)
    with reading(engine) as connection:
        clean = connection.exec_driver_sql("PRAGMA user_version").scalar_one() == _CLEAN
    return None if clean else (
        "this archive was written by an earlier version: its free pages may hold what was erased until "
        "`ingestor db vacuum` was called once"
    )  # fmt: skip


def vacuum(engine: Engine) -> None:
    """Write the whole file, or the tables of content, anew; whoever stores meanwhile waits or spools."""
    if engine.dialect.name != "sqlite":
        _vacuum_tables(engine, "VACUUM (FULL)")
        return
    with translated(engine), engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        driver.execute("PRAGMA temp_store = FILE")  # it takes as much as the archive
        driver.execute("VACUUM")
        driver.execute("PRAGMA temp_store = MEMORY")
    with writing(engine) as connection:
        connection.exec_driver_sql(f"PRAGMA user_version = {_CLEAN}")
    leave_no_bytes(engine)


def _vacuum_tables(engine: Engine, how: str) -> None:
    """Let PostgreSQL go over the tables of content, as far as this role owns them."""
    with translated(engine), engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection  # no transaction: VACUUM takes none
        for table in ERASABLE:
            driver.execute(f"{how} {table}")
