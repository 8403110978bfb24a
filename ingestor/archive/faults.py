"""Driver errors, sorted by what can be done about them and put into one line each.

No statement, parameter or value ever gets into a message: it would carry message text into a log.
"""

import contextlib
import errno
import os
import pwd
import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    PendingRollbackError,
    ProgrammingError,
    ResourceClosedError,
    TimeoutError,  # noqa: A004 - the pool's, not the operating system's
)

from ingestor.errors import (
    ArchiveUnavailable,
    ConfigurationError,
    IngestorError,
    SchemaMismatch,
    TransactionGivenUp,
)

# Classes of SQLSTATE that pass by themselves or when an administrator mends the server.
_PASSING = ("08", "53", "57", "58", "F0", "XX", "25", "40", "55P03", "55006")
_DEADLOCK, _SERIALISATION = "40P01", "40001"
_UNDEFINED = ("42P01", "42703")
_NO_SCHEMA = "3F000"
_NOT_ALLOWED = "42501"
_OUR_FAULT = "42"  # what is left of this class: syntax, types, names of functions

# The server takes no more writes, or ends: a primary that was demoted keeps its connections, and whoever
# asks one of them whether it lives hears yes. Of 20 writes after a switchover none came through.
_ELSEWHERE = ("25006", "57P01", "57P02", "57P03", "08")

_BAD_OPTION = r"invalid (?:[a-z_]+ value|integer value|port number|URI|channel_binding)|bad value for"

_hosts: "WeakKeyDictionary[Engine, str]" = WeakKeyDictionary()

# No connection became free, or one was found dead between two statements. Any other error that SQLAlchemy
# raises by itself is a fault of the program, which no waiting mends.
_PASSING_IN_THE_POOL = (TimeoutError, DisconnectionError, PendingRollbackError, ResourceClosedError)

DATA_ERRORS = (DataError, IntegrityError, UnicodeError, OverflowError, TypeError, ValueError)
"""What one bad item can cause; everything else concerns the whole batch."""


@contextlib.contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn driver errors into the program's own, but those that one item, or the program, is at fault for."""
    try:
        yield
    except (DBAPIError, engine.dialect.loaded_dbapi.Error) as raised:
        error = raised if isinstance(raised, DBAPIError) else _of_sqlalchemy(engine.dialect, raised)
        mapped = translate(engine, error)
        if mapped is None:
            raise
        if _is_elsewhere(engine, error):
            engine.dispose()  # the next connection is made anew, by the URL's list of hosts
            _hosts.pop(engine, None)
        raise mapped from None
    except _PASSING_IN_THE_POOL as error:
        raise ArchiveUnavailable(f"{place(engine)} cannot be used now ({type(error).__name__})") from None


def is_data_error(error: BaseException) -> bool:
    """Say whether one item of a batch may have caused `error`."""
    if isinstance(error, ProgrammingError | InterfaceError):
        # sqlite3 says so when a value is of no type it knows.
        return "binding parameter" in str(error.orig)
    return isinstance(error, DATA_ERRORS)


def place(engine: Engine) -> str:
    """Return how to call the database in a message: never with its password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return f"the SQLite file {url.database}"
    return f"PostgreSQL at {_hosts.get(engine) or _listed(engine)}, database {url.database!r}"


def note_host(engine: Engine, dbapi_connection: Any) -> None:
    """Note which of its hosts `engine` is connected to."""
    info = dbapi_connection.info
    _hosts[engine] = f"{info.host or 'the local socket'}:{info.port}"


def _listed(engine: Engine) -> str:
    _, options = engine.dialect.create_connect_args(engine.url)
    hosts = str(options.get("host") or "the local socket").split(",")
    ports = str(options.get("port") or 5432).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return " or ".join(f"{host}:{port or 5432}" for host, port in zip(hosts, ports, strict=False))


def _is_elsewhere(engine: Engine, error: DBAPIError) -> bool:
    state = _sqlstate(error) or ""
    return engine.dialect.name == "postgresql" and (
        state.startswith(_ELSEWHERE) or error.connection_invalidated
    )


def refused(error: BaseException) -> str:
    """Return what kind of refusal a data error is, without any value."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    constraint = getattr(getattr(original, "diag", None), "constraint_name", None)
    return " ".join(part for part in (type(original).__name__, state, constraint) if part)


def translate(engine: Engine, error: DBAPIError) -> IngestorError | None:
    """Return the program's own error for `error`, None where one item, or the program, is at fault."""
    if is_data_error(error):
        return None
    if engine.dialect.name == "sqlite":
        return _of_sqlite(engine, error)
    return _of_postgresql(engine, error)


def _of_sqlite(engine: Engine, error: DBAPIError) -> IngestorError | None:
    original = error.orig
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    name = place(engine)
    if code == sqlite3.SQLITE_BUSY or code == sqlite3.SQLITE_LOCKED:
        return ArchiveUnavailable(f"{name} is locked by another program")
    if code == sqlite3.SQLITE_FULL:
        return ArchiveUnavailable(f"the disk of {name} is full; make room")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        why = unwritable(Path(engine.url.database or ""))
        return ArchiveUnavailable(
            "; ".join(why) if why is not None
            else _asked(engine)
            or f"{name} cannot be opened; check that it exists and who may read its folder"
        )  # fmt: skip
    if code == sqlite3.SQLITE_IOERR:
        return ArchiveUnavailable(
            _asked(engine)
            or f"the disk of {name} is full, or fails to read or write; look at `df` and at the kernel's log"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return IngestorError(f"{name} is damaged or no SQLite database; restore it from a copy")
    if "no such table" in str(original) or "no such column" in str(original):
        return SchemaMismatch(f"{name} lacks the tables of this program; run: ingestor db upgrade")
    if code == sqlite3.SQLITE_ERROR:
        return None  # no statement that SQLite knows: a fault of the program
    return ArchiveUnavailable(
        f"{name} refuses to work ({getattr(original, 'sqlite_errorname', type(original).__name__)})"
    )


_CURES: Final = {
    errno.ENOSPC: "make room (df, df -i)",
    errno.EDQUOT: "make room, or raise the quota of who writes it",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f, LimitFSIZE=)",
    errno.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "raise the machine's limit of open files (fs.file-max)",
}


def _asked(engine: Engine) -> str | None:
    error = refusal(Path(engine.url.database or ""))
    if error is None:
        return None
    return f"{place(engine)} cannot be written ({error.strerror}); {_CURES[error.errno or 0]}"


def refusal(path: Path) -> OSError | None:
    """Return what the system says of another page behind those of the SQLite file `path`; None if it is no
    want of room.

    SQLite keeps that to itself: a full disk on which it cannot make the -wal is "unable to open", a quota or
    a limit of a file's size a "disk I/O error".
    """
    beside = Path(f"{path}.{os.getpid()}.probe")
    with contextlib.suppress(OSError):
        try:
            end = max(
                one.stat().st_size for one in (path, Path(f"{path}-wal")) if one.is_file() or one == path
            )
            probe = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(probe, b"probe", end)
                os.fsync(probe)
            finally:
                os.close(probe)
                beside.unlink()
        except OSError as error:
            return error if error.errno in _CURES else None
    return None


def _of_postgresql(engine: Engine, error: DBAPIError) -> IngestorError | None:
    state = _sqlstate(error)
    if state is None and error.statement is None and re.search(_BAD_OPTION, str(error.orig)):
        return ConfigurationError(f"database.url: {_brief(error)}")
    if state is None and isinstance(error, ProgrammingError):
        return None  # psycopg refused our own call: a fault of the program
    name = place(engine)
    if state in _UNDEFINED:
        return SchemaMismatch(f"{name} lacks the tables of this program; run: ingestor db upgrade")
    if state == _NO_SCHEMA:
        return ArchiveUnavailable(
            f"{name} has no schema to make tables in: the search_path of this role names none that is there; "
            "make it, or ALTER ROLE … RESET search_path"
        )
    if state == _NOT_ALLOWED:
        return ConfigurationError(
            f"{name} refuses this role a right that it needs; see OPERATING.md and AUDITING.md on roles"
        )
    if state is not None and state.startswith(_OUR_FAULT):
        return None
    if state == _SERIALISATION and engine.get_execution_options().get("read_only"):
        return ArchiveUnavailable(
            f"{name} is a standby and ended what it was asked, since the primary had changed those rows or "
            "tables meanwhile; call it again, or at the primary (max_standby_streaming_delay gives it longer)"
        )
    if state in (_DEADLOCK, _SERIALISATION):
        return TransactionGivenUp(f"{name} gave a transaction up for another's sake")
    if state == "25006":
        return ArchiveUnavailable(
            f"{name} takes no writes: a standby, or a role that only reads (SQLSTATE 25006)"
        )
    if state == "53100":
        return ArchiveUnavailable(f"the disk of {name} is full; make room")
    if state is None or state.startswith(_PASSING) or error.connection_invalidated:
        return ArchiveUnavailable(f"{name} cannot be reached or is not ready ({_brief(error)})")
    return ArchiveUnavailable(f"{name} refuses to work (SQLSTATE {state})")


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _brief(error: DBAPIError) -> str:
    """Return libpq's own reason: it names host, port and role, never a password or a value."""
    if _sqlstate(error):
        return f"SQLSTATE {_sqlstate(error)}"
    lines = str(error.orig).strip().splitlines()
    # With several hosts the first line says only that all of them failed.
    said = " ".join(
        line.strip() for line in (lines if len(lines) > 1 and lines[0].endswith(":") else lines[:1])
    )
    return said[:500] or type(error.orig).__name__


@contextlib.contextmanager
def as_sqlalchemy(connection: Connection) -> Iterator[Any]:
    """Give the driver's connection, and raise its errors as SQLAlchemy's, as for any statement of its own."""
    try:
        yield connection.connection.dbapi_connection
    except connection.dialect.loaded_dbapi.Error as error:
        driver: Any = None if connection.invalidated else connection.connection.dbapi_connection
        lost = connection.dialect.is_disconnect(cast("Any", error), driver, None)
        if lost:
            connection.invalidate(error)  # else the pool tries to roll it back, and logs a traceback
        raise _of_sqlalchemy(connection.dialect, error, lost=lost) from error


def _of_sqlalchemy(dialect: Dialect, error: Exception, *, lost: bool = False) -> DBAPIError:
    wrapped = DBAPIError.instance(
        "INSERT", None, error, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect,
        connection_invalidated=lost,
    )  # fmt: skip
    return cast("DBAPIError", wrapped)


def unwritable(place: Path) -> tuple[str, str] | None:
    """Return what keeps this user from writing `place`, a file or a folder, and what to do; or None."""
    # SQLite needs the folder of its file too, and what lies beside it. The advice is never to work as root.
    folder = place if place.is_dir() else place.parent
    if read_only(folder):
        return (
            f"{folder} lies on a read-only file system",
            (
                "mount it read-write, after a look at the kernel's log (where only the service finds it so: "
                f"ReadWritePaths={folder} by `systemctl edit ingestor`)"
            ),
        )
    beside = (Path(f"{place}-wal"), Path(f"{place}-shm"))
    places = dict.fromkeys((place, folder, *beside))
    closed = [one for one in places if one.exists() and not os.access(one, os.W_OK)]
    if not closed:
        return None
    if place.is_file() and is_snapshot(place):
        return f"{place} is a snapshot, for reading only", "name the archive in database.url"
    return f"{closed[0]} may not be written by this user", _given_back(closed[0])


def read_only(folder: Path) -> bool:
    """Say whether nobody may write `folder`, since its file system is mounted so."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def is_snapshot(path: Path) -> bool:
    """Say whether the SQLite file at `path` is what `ingestor snapshot` made."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    query = "SELECT 1 FROM sqlite_master WHERE name = 'snapshot_of'"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            return connection.execute(query).fetchone() is not None
    except sqlite3.Error:
        return False


def _given_back(place: Path) -> str:
    me = os.geteuid()
    owner = place.stat().st_uid
    if owner == me:
        return shlex.join(["chmod", "u+rwX", str(place)])
    if owner == 0 or place.parent.stat().st_uid == me:
        return shlex.join(["chown", f"{user_name(me)}:", str(place)])
    return f"run it as the owner: sudo -u {user_name(owner)} ingestor …"


def user_name(user: int) -> str:
    """Return the name of `user`, or # and the number."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
