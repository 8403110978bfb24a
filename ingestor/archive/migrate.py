"""The schema's life: is it current, may this program bring it up, and doing so once however many start.

Alembic, and what else only an upgrade needs, is imported when there is something to do: loading it takes
longer than a small import, and every command asks here which schema there is.
"""

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from ingestor.archive.engine import reading, sqlite_path, writing
from ingestor.archive.faults import place, refused, translated
from ingestor.errors import (
    ArchiveUnavailable,
    ConfigurationError,
    IngestorError,
    SchemaMismatch,
    SchemaNewer,
    UpgradeFailed,
)
from ingestor.logs import get_logger

UNFINISHED = "being copied"
"""The schema of an archive into which another one is being copied (`transfer`): nobody opens it."""

_ADVISORY_LOCK = 0x696E67657374  # "ingest": any number will do, as long as all copies agree
_PAGES_A_STEP = 4096  # of the copy: some 30 MB, far less than a second
_SECONDS_BETWEEN_LINES = 5.0
_REVISION_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.py")

log = get_logger(__name__)


class Revision(NamedTuple):
    """One step of the schema's history; `applied` says whether this archive has taken it."""

    number: str
    title: str
    applied: bool


def migrations_folder() -> Path:
    """Return where the migrations lie: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if (installed / "env.py").is_file() else package.parent / "migrations"


def head() -> str:
    """Return the newest revision that this program knows."""
    return max(_known())


def current(engine: Engine) -> str | None:
    """Return the archive's revision, None where it has no schema yet."""
    with reading(engine) as connection:
        return _current(connection)


def history(engine: Engine | None = None) -> list[Revision]:
    """Return all revisions that this program knows, oldest first; without an engine none is applied."""
    stands = current(engine) if engine is not None else None
    return [
        Revision(number, _title(path), stands is not None and number <= stands)
        for number, path in sorted(_known().items())
    ]


def ensure_schema(engine: Engine, *, auto_upgrade: bool) -> None:
    """See to it that the archive has exactly this program's schema.

    Raises SchemaMismatch where it is older and `auto_upgrade` is false, and what `upgrade` raises.
    """
    stands = current(engine)
    if stands == head():
        return
    refuse_unusable(engine)
    if not auto_upgrade:
        found = "no schema yet" if stands is None else f"schema {stands}"
        raise SchemaMismatch(
            f"{place(engine)} has {found}, this program needs {head()} and database.auto_upgrade is false; "
            f"run: {upgrade_command(engine)}"
        )
    upgrade(engine)


def upgrade(engine: Engine, *, copy: bool = True) -> None:
    """Bring the schema to `head()`, once: other processes that ask at the same time wait and find it done.

    An SQLite file with an older schema is copied first (unless `copy` is false). On PostgreSQL, also where it
    is current, words get their index as soon as it can be made, and roles what this schema needs. Raises
    SchemaNewer, UpgradeFailed, and SchemaMismatch where the role may not change tables.
    """
    from ingestor.archive.queries import refusals
    from ingestor.archive.words import make_index

    stands: str | None = None
    try:
        with _alone(engine) as connection:
            stands = _current(connection)
            if stands != head():
                _refuse_unusable(engine, connection)
                if copy:
                    _copy_before(engine, stands)
                _run_alembic(connection)
            if engine.dialect.name == "postgresql":
                make_index(connection)
                _grant(connection)
    except (SchemaNewer, UpgradeFailed):
        raise
    except SchemaMismatch as error:  # tables or columns are not there
        raise _failed(engine, stands, error) from error
    except ConfigurationError as error:
        raise SchemaMismatch(
            f"this role may not change the tables of {place(engine)}; let their owner run: "
            f"{upgrade_command(engine)}"
        ) from error
    except IngestorError:
        raise
    except Exception as error:
        raise _failed(engine, stands, error) from error
    if stands != head():
        log.info("schema upgraded", revision=head(), before=stands)
    if stands not in (None, head()) and (refusal := refusals(engine)) is not None:
        log.warning(
            "items that the earlier schema refused stand in the quarantine",
            items=refusal.count, needs="ingestor quarantine retry",
        )  # fmt: skip


def _failed(engine: Engine, stands: str | None, error: Exception) -> UpgradeFailed:
    return UpgradeFailed(
        f"{place(engine)} could not be brought from schema {stands or 'none'} to {head()} ({refused(error)}) "
        "and was not changed: go back to a copy, or report what `ingestor --debug db upgrade` says"
    )


def upgrade_command(engine: Engine) -> str:
    """Return the exact command that brings this archive's schema up; it never shows a password."""
    if engine.dialect.name == "sqlite":
        return f"ingestor --database-url sqlite:///{sqlite_path(engine.url)} db upgrade"
    url = engine.url
    hosts = {name: value for name, value in url.query.items() if name in ("host", "port")}
    owner = URL.create(url.drivername, "OWNER", None, url.host, url.port, url.database, hosts)
    return f"ingestor --database-url {owner.render_as_string()} db upgrade"


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Give a write transaction that no other migration shares."""
    if engine.dialect.name == "postgresql":
        with writing(engine) as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            yield connection
        return
    # A table that batch mode makes anew is dropped in between: its references are checked at the end.
    # The switch works outside of transactions only.
    with translated(engine), engine.connect() as plain:
        driver: Any = plain.connection.dbapi_connection
        driver.execute("PRAGMA foreign_keys = OFF")
        driver.execute("PRAGMA temp_store = FILE")  # a new index over ten million rows is sorted first
        try:
            connection = plain.execution_options(begin="IMMEDIATE")
            with connection.begin():
                yield connection
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise AssertionError("a migration left references to rows that are not there")
        finally:
            driver.execute("PRAGMA foreign_keys = ON")
            driver.execute("PRAGMA temp_store = MEMORY")


def _known() -> dict[str, Path]:
    versions = migrations_folder() / "versions"
    return {match[1]: path for path in versions.iterdir() if (match := _REVISION_FILE.fullmatch(path.name))}


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").split('"""', 2)[1].strip().splitlines()[0]


def has_table(connection: Connection, name: str) -> bool:
    """Say whether the archive has a table; SQLAlchemy's inspector asks PostgreSQL for 4 ms."""
    if connection.dialect.name == "sqlite":
        query = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"
    else:
        query = "SELECT to_regclass(%s)"
    return connection.exec_driver_sql(query, (name,)).scalar() is not None


def _current(connection: Connection) -> str | None:
    if not has_table(connection, "alembic_version"):
        return None
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return row[0] if row else None


def refuse_unusable(engine: Engine) -> None:
    """Raise SchemaNewer where the archive is newer than this program, UpgradeFailed where it is unknown."""
    with reading(engine) as connection:
        _refuse_unusable(engine, connection)


def _refuse_unusable(engine: Engine, connection: Connection) -> None:
    stands = _current(connection)
    if stands is None and (schema := _out_of_sight(connection)) is not None:
        raise UpgradeFailed(
            f"the archive in {place(engine)} stands in the schema {schema}, where this role does not look; "
            f"ALTER ROLE … SET search_path = {schema} (or RESET it), and GRANT USAGE ON SCHEMA {schema}"
        )
    if stands is None or stands == head():
        return
    if stands == UNFINISHED:
        raise UpgradeFailed(
            f"{place(engine)} is a copy that is not whole yet; call again what was making it, "
            "`ingestor restore` or `ingestor db copy`"
        )
    if stands > head():
        raise SchemaNewer(
            f"{place(engine)} has schema {stands}, which is newer than this program ({head()}); "
            "install the newer ingestor"
        )
    if stands not in _known():
        raise UpgradeFailed(
            f"{place(engine)} has schema {stands!r}, which this program does not know; restore it from a copy"
        )
    if has_table(connection, "snapshot_of"):
        raise UpgradeFailed(
            f"{place(engine)} is a snapshot with schema {stands}, which is never changed; this program reads "
            f"{head()}: make a new one with `ingestor snapshot`, or read this one with any SQLite program"
        )


def _out_of_sight(connection: Connection) -> str | None:
    """Return in which schema beyond its search_path this role has an archive: a new one would hide it."""
    if connection.dialect.name == "sqlite":
        return None
    found = connection.exec_driver_sql(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'archive_key'"
        " AND relowner = current_user::regrole AND NOT pg_table_is_visible(oid) LIMIT 1"
    )
    return found.scalar()


def room_for_copy(engine: Engine, stands: str) -> tuple[str, str | None]:
    """Return what the copy of an SQLite file with schema `stands` takes, in words, and what lacks for it."""
    path = sqlite_path(engine.url)
    if path is None:
        return "", None
    target = _copy_of(path, stands)
    kept = target.stat().st_size if target.exists() else 0  # it is written anew
    files = [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
    needed = sum(file.stat().st_size for file in files) - kept
    free = shutil.disk_usage(path.absolute().parent).free
    space = f"a copy takes {needed / 1e6:,.0f} MB, rewriting as much at most, {free / 1e6:,.0f} MB are free"
    return space, f"there is no room for its copy: {space}" if free < needed else None


def _copy_of(path: Path, stands: str) -> Path:
    return path.with_name(f"{path.name}.{stands}.bak")


def _copy_before(engine: Engine, stands: str | None) -> None:
    path = sqlite_path(engine.url)
    if path is None or stands is None:
        return
    target = _copy_of(path, stands)
    space, lack = room_for_copy(engine, stands)
    if lack is not None:
        raise ArchiveUnavailable(f"{path} cannot be upgraded: {lack}; make room in {path.absolute().parent}")
    log.info("the archive is copied before its upgrade", copy=str(target), space=space)
    # It holds personal content and the key: nobody else may open it, not even while it is made.
    # A second connection sees what was committed; the write lock is ours, so nothing moves meanwhile.
    try:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy, pages=_PAGES_A_STEP, progress=_telling())
        target.chmod(path.stat().st_mode & 0o777)
    except (sqlite3.Error, OSError) as error:
        target.unlink(missing_ok=True)  # half a copy is none, and takes room
        raise ArchiveUnavailable(
            f"the archive could not be copied to {target} before its upgrade; make room and start again"
        ) from error


def _telling() -> Callable[[int, int, int], None]:
    told = time.monotonic()

    def tell(_status: int, left: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.info("the archive is being copied", done=f"{100 - 100 * left // max(of, 1)} %")

    return tell


def _grant(connection: Connection) -> None:
    from ingestor.archive import grants

    wanted = [grant for role in grants.writers(connection) for grant in grants.missing(connection, role)]
    for role in grants.readers(connection):
        wanted += grants.missing(connection, role, reads=True)
    for grant in wanted:
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(grant)
        except DBAPIError:
            log.warning("a role lacks a right; let the owner of the tables run it", grant=grant)
        else:
            log.info("a role got a right that this schema needs", grant=grant)


def _run_alembic(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
