"""Connections to PostgreSQL that leave nothing behind in a session, so that a pooler may share it.

What a transaction needs is said in the message that begins it; nothing is SET for a session, and the server
keeps no prepared statement. PgBouncer in transaction mode hands the same session to everybody in turn: one
`default_transaction_read_only` in it made every write of the daemon fail.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ingestor.archive.faults import as_sqlalchemy, note_host, place
from ingestor.errors import ConfigurationError

_DEFAULTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "ingestor",
    "client_encoding": "utf8",  # whatever PGCLIENTENCODING or the role would have
}

# Only `on` and above wait until the commit is on the disk, and on that of a synchronous standby.
_BEGIN = (
    "BEGIN ISOLATION LEVEL {}; SET LOCAL TIME ZONE 'UTC';"
    " SELECT set_config('synchronous_commit', 'on', true)"
    " WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
)

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


def open_postgresql(url: URL, *, read_only: bool) -> Engine:
    """Return an engine for PostgreSQL at `url`; nothing is connected yet.

    Raises ConfigurationError where psycopg is missing, or an option in the URL is none that it knows.
    """
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
            pool_pre_ping=True,
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

    def set_up(dbapi_connection: Any, record: Any) -> None:
        note_host(engine, dbapi_connection)
        _require_utf8(engine, dbapi_connection)

        def note(diagnostic: Any) -> None:
            if diagnostic.sqlstate == "01000":
                record.info[_NOT_SURE] = True

        dbapi_connection.add_notice_handler(note)

    # First of all: SQLAlchemy's own first questions fail over SQL_ASCII.
    event.listen(engine, "connect", set_up, insert=True)
    return engine


def forget_warnings(connection: Connection) -> None:
    """Let only what the server says from now on count; see `committed_unsurely`."""
    connection.info.pop(_NOT_SURE, None)


def committed_unsurely(connection: Connection) -> bool:
    """Say whether the server warned at the commit that no standby may have it.

    So it does (with WARNING 01000) where somebody cancels the wait for a synchronous standby: COMMIT ends
    well, and the rows may be gone when the standby is promoted.
    """
    return bool(connection.info.pop(_NOT_SURE, False))


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    whole = options.get("begin") == "ONE MOMENT"
    begin = _BEGIN.format("REPEATABLE READ READ ONLY" if whole else "READ COMMITTED")
    if options.get("read_only"):
        begin += "; SET LOCAL transaction_read_only = on"
    with as_sqlalchemy(connection):
        driver: Any = connection.connection.dbapi_connection
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
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else " (see libpq's connection parameters)"
            raise ConfigurationError(f"database.url: PostgreSQL knows no option {name!r}{hint}")
        if not isinstance(value, str) and name not in ("host", "port"):
            raise ConfigurationError(f"database.url: the option {name} is given twice")


def _require_utf8(engine: Engine, dbapi_connection: Any) -> None:
    """Refuse a database that would send most SMS with an emoji or a euro sign to the quarantine."""
    encoding = dbapi_connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        dbapi_connection.close()
        raise ConfigurationError(
            f"{place(engine)} has the encoding {encoding}, which cannot hold every SMS; make another one: "
            "createdb --encoding UTF8 --template template0 NAME"
        )
