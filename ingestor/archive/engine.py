"""Opening the archive: connections set up the same way everywhere, and driver errors put into words.

SQLite: WAL, synchronous=FULL, foreign keys, a busy timeout, and `BEGIN IMMEDIATE` for whoever writes (a
deferred transaction that turns into a writer fails at once, whatever the timeout). PostgreSQL:
what a transaction needs is said in the message that begins it; nothing is SET for a session, and the server
keeps no prepared statement, so that a pooler may share it. PgBouncer in transaction mode hands the same
session to everybody in turn: one `default_transaction_read_only` in it made every write of the daemon fail.
"""

import contextlib
import os
import select
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from ingestor.archive.columns import send_binary
from ingestor.archive.faults import as_sqlalchemy, note_host, place, translated
from ingestor.archive.open_file import OpenFile, require_in_place
from ingestor.errors import ArchiveUnavailable, ConfigurationError, nearest

_DEFAULTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "ingestor",
    "client_encoding": "utf8",  # whatever PGCLIENTENCODING or the role would have
}

# A role, a database or a server may set otherwise: psycopg reads ISO's times alone, and writes NULL into an
# array as a word; a warning tells of a commit that no standby has. Only `on` and above wait until the commit
# is on the disk, and on that of a synchronous standby. JIT compiles for 60 to 190 ms what takes two to answer
# from the views of an archive that nobody has analyzed.
_BEGIN = (
    "BEGIN ISOLATION LEVEL {}; SET LOCAL TIME ZONE 'UTC'; SET LOCAL datestyle = 'ISO';"
    " SET LOCAL array_nulls = on; SET LOCAL standard_conforming_strings = on;"
    " SET LOCAL quote_all_identifiers = off; SET LOCAL client_min_messages = warning; SET LOCAL jit = off;"
    " SELECT set_config('synchronous_commit', 'on', true)"
    " WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
)

# Of a table without statistics, as each is until autovacuum's first look, PostgreSQL takes a key for one of
# 200 and reads all of it for 500 of them: a first import of 100,000 mails took 112 s on a busy machine; on a
# quiet one it takes 17 s now. Where a table has to be read whole it is so still.
_BY_KEY = "; SET LOCAL enable_seqscan = off"

# The server warns (01000) where somebody cancels the wait for a synchronous standby: COMMIT ends well, and
# the rows may be gone when the standby is promoted.
_NOT_SURE = "a commit may be on no standby"

# psycopg's own arguments, which a URL can give as text only.
_OF_THE_PROGRAM = {
    "prepare_threshold": "the archive prepares no statement on the server, so that poolers work",
    "autocommit": "the archive begins its transactions itself",
    "row_factory": "it is for programs",
    "cursor_factory": "it is for programs",
    "context": "it is for programs",
    "client_encoding": "every text is sent as UTF-8",
}


def _open_postgresql(url: URL, read_only: bool) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    given: dict[str, Any] = dict(_DEFAULTS)
    if not read_only:
        given["target_session_attrs"] = "primary"  # whichever host that is now
    given = {key: value for key, value in given.items() if key not in url.query}
    try:
        _check_options(url.query)
        engine = create_engine(
            url,
            connect_args={**given, "prepare_threshold": None},
            isolation_level="AUTOCOMMIT",  # transactions begin by _BEGIN
            hide_parameters=True,
            execution_options={"read_only": read_only},
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(
            "PostgreSQL needs psycopg 3: pip install 'agile-sms-ingestor[postgresql]', and a URL that begins "
            "with postgresql+psycopg://"
        ) from error
    except ArgumentError as error:
        raise ConfigurationError(f"database.url: {str(error).splitlines()[0]}") from None
    event.listen(engine, "begin", _begin)
    event.listen(engine, "checkout", _require_open)

    def set_up(dbapi_connection: Any, record: Any) -> None:
        note_host(engine, dbapi_connection)
        _require_utf8(engine, dbapi_connection)

        def note(diagnostic: Any) -> None:
            if diagnostic.sqlstate == "01000":
                record.info[_NOT_SURE] = True

        dbapi_connection.add_notice_handler(note)
        send_binary(dbapi_connection)

    # First of all: SQLAlchemy's own first questions fail over SQL_ASCII.
    event.listen(engine, "connect", set_up, insert=True)
    return engine


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    whole = options.get("begin") == "ONE MOMENT"
    begin = _BEGIN.format("REPEATABLE READ READ ONLY" if whole else "READ COMMITTED")
    if options.get("read_only"):
        begin += "; SET LOCAL transaction_read_only = on"
    if options.get("begin") in ("IMMEDIATE", "BY KEY"):
        begin += _BY_KEY
    with as_sqlalchemy(connection) as driver:
        driver.execute(begin)


def _check_options(query: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for the first option of the URL that libpq does not know."""
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name, value in query.items():
        if (name, str(value).lower()) in (("prepare_threshold", "none"), ("client_encoding", "utf8")):
            continue  # as it is anyway
        if name in _OF_THE_PROGRAM:
            raise ConfigurationError(f"database.url: take the option {name} out: {_OF_THE_PROGRAM[name]}")
        if name not in known:
            hint = nearest(name, known) or " (see libpq's connection parameters)"
            raise ConfigurationError(f"database.url: PostgreSQL knows no option {name!r}{hint}")
        if not isinstance(value, str) and name not in ("host", "port"):
            raise ConfigurationError(f"database.url: the option {name} is given twice")


def _require_open(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
    """Let the pool replace a connection that the server has ended meanwhile: then something waits to be read.

    SQLAlchemy's own way is to ask the server each time, a seventh of the round trips of a commit.
    """
    waiting = select.poll()
    waiting.register(dbapi_connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        raise DisconnectionError("the server has ended the connection")


def _require_utf8(engine: Engine, dbapi_connection: Any) -> None:
    """Refuse a database that would send most SMS with an emoji or a euro sign to the quarantine."""
    encoding = dbapi_connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        dbapi_connection.close()
        raise ConfigurationError(
            f"{place(engine)} has the encoding {encoding}, which cannot hold every SMS; make another one: "
            "createdb --encoding UTF8 --template template0 NAME"
        )


BUSY_SECONDS = 5.0
_READERS_CACHE_KB = 16384
_WRITERS_CACHE_KB = 4096  # a daemon has up to five, which fill over a day; an import takes more
_LOOK_AGAIN_MS = 10


def open_engine(url: URL | str, *, read_only: bool = False) -> Engine:
    """Return an engine for the archive at `url`; nothing is connected yet.

    A read-only engine does not make a missing SQLite file. Raises ConfigurationError.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, read_only)
    if parsed.get_backend_name() == "postgresql":
        return _open_postgresql(parsed, read_only)
    raise ConfigurationError(
        f"the archive lives in SQLite or PostgreSQL, not in {parsed.get_backend_name()!r}"
    )


@contextlib.contextmanager
def opened(url: URL | str, *, read_only: bool = False) -> Iterator[Engine]:
    """Give an engine as `open_engine` does, and close its connections at the end of the block."""
    engine = open_engine(url, read_only=read_only)
    try:
        yield engine
    finally:
        engine.dispose()


def sqlite_path(url: URL | str) -> Path | None:
    """Return the file of an SQLite URL, None for any other."""
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def _parsed(url: URL | str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "the database URL cannot be read; write sqlite:////path/to/archive.db or "
            "postgresql+psycopg://user@host/database"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            "the database URL has no valid port; several hosts are written "
            "postgresql+psycopg://user@/database?host=first:5432&host=second:5432"
        ) from error


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a write transaction: committed at the end, rolled back on any exception.

    Raises ArchiveUnavailable where the database cannot be reached or written now, or has committed what no
    standby may have; SchemaMismatch where its tables are missing.
    """
    require_in_place(engine, mend=True)
    with translated(engine), engine.connect().execution_options(begin="IMMEDIATE") as connection:
        with connection.begin():
            yield connection
            connection.info.pop(_NOT_SURE, None)  # only what the server says of the commit counts
        if connection.info.pop(_NOT_SURE, False):
            raise ArchiveUnavailable(
                f"{place(engine)} gave up waiting for its standby, which may not have the last commit"
            )
    require_in_place(engine)  # else no receipt may leave


def reading(engine: Engine, *, by_key: bool = False) -> contextlib.AbstractContextManager[Connection]:
    """Give a connection in a read transaction, of one moment on SQLite. Raises ArchiveUnavailable."""
    require_in_place(engine)
    return _transaction(engine, "BY KEY" if by_key else "DEFERRED")


def one_moment(engine: Engine) -> contextlib.AbstractContextManager[Connection]:
    """Give a connection in a read transaction all of whose statements see one moment, on PostgreSQL too."""
    return _transaction(engine, "ONE MOMENT")


@contextlib.contextmanager
def bulk_import_settings(engine: Engine) -> Iterator[None]:
    """Set every SQLite connection up for a big import meanwhile, nothing on PostgreSQL.

    A large checkpoint interval and cache were worth a factor of two at a million rows.
    """
    if engine.dialect.name != "sqlite":
        yield
        return

    def enlarge(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
        dbapi_connection.execute("PRAGMA wal_autocheckpoint = 16384")
        dbapi_connection.execute("PRAGMA cache_size = -65536")

    def restore(dbapi_connection: Any, _record: Any) -> None:
        # After each transaction: what they all cache between two of them took 50 MB more.
        dbapi_connection.execute("PRAGMA wal_autocheckpoint = 1000")
        dbapi_connection.execute(f"PRAGMA cache_size = -{_WRITERS_CACHE_KB}")

    event.listen(engine, "checkout", enlarge)
    event.listen(engine, "checkin", restore)
    try:
        yield
    finally:
        event.remove(engine, "checkout", enlarge)
        event.remove(engine, "checkin", restore)


@contextlib.contextmanager
def _transaction(engine: Engine, begin: str) -> Iterator[Connection]:
    with (
        translated(engine),
        engine.connect().execution_options(begin=begin) as connection,
        connection.begin(),
    ):
        yield connection


def _open_sqlite(url: URL, read_only: bool) -> Engine:
    path = sqlite_path(url)
    if path is None or str(path) == ":memory:":
        raise ConfigurationError("an archive in memory would be lost; write sqlite:////path/to/archive.db")
    if not read_only and not path.absolute().parent.is_dir():
        raise ConfigurationError(
            f"the folder {path.absolute().parent} does not exist; make it, or change database.url"
        )
    file = None if read_only else OpenFile(path, lambda: _connect_sqlite(path, read_only=False))
    engine = create_engine(
        url,
        creator=file.connect if file else lambda: _connect_sqlite(path, read_only=True),
        poolclass=QueuePool,
        # Each in its turn had to read again what the others wrote: their caches came and went until the heap
        # had 54 MB of holes.
        pool_use_lifo=True,
        hide_parameters=True,
        execution_options={"open_file": file},
    )
    event.listen(engine, "begin", _begin_sqlite)
    if file is not None:
        event.listen(engine, "engine_disposed", lambda _: file.close())
    return engine


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("begin")
    if begin == "IMMEDIATE":
        with as_sqlalchemy(connection) as driver:
            _wait_for_turn(driver)
    else:
        connection.exec_driver_sql("BEGIN DEFERRED")


def _wait_for_turn(driver: Any) -> None:
    """Begin to write, as soon as nobody else does.

    SQLite's own waiting looks again after longer and longer pauses, of 100 ms in the end, and could miss the
    20 ms that an import leaves between two transactions several times: a daemon waited for up to 0.6 s.
    """
    driver.execute(f"PRAGMA busy_timeout = {_LOOK_AGAIN_MS}")
    try:
        _until_free(driver, "BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _until_free(driver: sqlite3.Connection, statement: str, pause: float = 0.0) -> None:
    """Execute `statement`, again and again where the database is busy, `pause` seconds after each time."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            driver.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(pause)
        else:
            return


def _connect_sqlite(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if not read_only and not path.exists():
        with contextlib.suppress(OSError):  # SQLite says it better
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o640))  # it holds personal content
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False,
        cached_statements=512,
    )  # fmt: skip
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_READERS_CACHE_KB if read_only else _WRITERS_CACHE_KB}")
        if not read_only:
            # For a new file. Half as many pages to write a batch: an import took a tenth less time than
            # with SQLite's 4096, and a lone commit as long.
            connection.execute("PRAGMA page_size = 8192")
            # Each insert of many rows keeps the pages it changes, in case it fails half-way: in a temporary
            # file that took as long as the insert.
            connection.execute("PRAGMA temp_store = MEMORY")
            # What is erased is overwritten with zeros, and so is a page that becomes free.
            connection.execute("PRAGMA secure_delete = ON")
            # The busy timeout does not cover this change of mode: of several first starts at once one loses.
            _until_free(connection, "PRAGMA journal_mode = WAL", 0.02)
            connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection
