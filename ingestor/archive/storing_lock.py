"""Who erases, or changes what is stored, keeps out who stores."""

import time
from typing import Final

from sqlalchemy import Connection, func, select

ERASURES_LOCK: Final = 0x657261736564
"""Of PostgreSQL ("erased"): shared by whoever stores, and held alone by whoever erases."""

_TRIES, _PAUSE = 200, 0.005


def keep_storing_out(connection: Connection) -> None:
    """Wait until nobody stores on PostgreSQL; SQLite has one writer at a time.

    It asks again and again: whoever waits in the server's queue makes all that come later wait behind him.
    """
    if connection.dialect.name != "postgresql":
        return
    for _ in range(_TRIES):
        if connection.execute(select(func.pg_try_advisory_xact_lock(ERASURES_LOCK))).scalar():
            return
        time.sleep(_PAUSE)
    connection.execute(select(func.pg_advisory_xact_lock(ERASURES_LOCK)))
