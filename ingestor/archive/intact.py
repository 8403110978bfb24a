"""What the database holds, compared with what this program's schema makes of the same database.

Whoever owns the tables can drop a trigger, put a view that lies in the place of ours, or let a rule swallow
what is inserted; nothing else of the program would notice.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.pool import StaticPool

from ingestor.archive import tables, triggers, views
from ingestor.archive.engine import open_engine, reading, sqlite_path, writing
from ingestor.archive.runs import begin_run, end_run
from ingestor.archive.shape import Shape, postgresql_shape, sqlite_shape
from ingestor.errors import ConfigurationError, IngestorError

_SCHEMA = (
    "SELECT coalesce((SELECT relnamespace FROM pg_class WHERE oid = to_regclass('sms'))::regnamespace::text,"
    " current_schema()::text)"
)
_OURS_TO_MEND = ("trigger ", "function ", "view ")
# A site may add what changes no answer; anything else that is not ours swallows, hides or doubles rows.
_HARMLESS = ("index ", "view ", "table ", "sequence ", "function ")
# Without these nothing is written wrong; a site may also have dropped an index of ours on purpose.
_GUARDS = ("trigger ", "function ", "view ", "index ")


class Grade(StrEnum):
    """How bad a difference is."""

    GUARD = "guard"
    """A guard or a view is missing or another one: rows are still stored right."""
    HARM = "harm"
    """Rows may be refused, swallowed, hidden or doubled: nothing may be stored."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as this version makes it: its name, and what is so about it."""

    name: str
    says: str
    grade: Grade

    @property
    def mendable(self) -> bool:
        """Whether `db repair` makes it again."""
        return self.says != "is not ours" and self.name.startswith(_OURS_TO_MEND)

    def __str__(self) -> str:
        return f"{self.name} {self.says}"


class NotCompared(Exception):
    """This role, or this server, cannot make what to compare with; the words say why."""


class _RolledBack(Exception):
    """Ends the transaction in which the schema was made to be looked at."""


def differences(engine: Engine) -> list[Difference]:
    """Return how the archive differs from this program's schema; empty where it does not.

    Raises NotCompared where that cannot be told, ArchiveUnavailable where the database does not answer.
    """
    held, ours = _sqlite_shapes(engine) if engine.dialect.name == "sqlite" else _postgresql_shapes(engine)
    found = []
    for name in sorted(ours.keys() | held.keys()):
        if name not in held:
            found.append(Difference(name, "is missing", _grade(name)))
        elif name not in ours:
            if not name.startswith(_HARMLESS):
                found.append(Difference(name, "is not ours", Grade.HARM))
        elif held[name] != ours[name]:
            found.append(Difference(name, "is another one than ours", _grade(name)))
    return _without_consequences(found)


def differences_of(url: str) -> list[Difference]:
    """Return what `differences` does for the archive at `url`, over an engine of its own; raises alike."""
    sqlite = sqlite_path(url) is not None
    # On PostgreSQL what it is compared with is made there, and rolled back.
    engine = open_engine(url, read_only=sqlite)
    try:
        return differences(engine)
    finally:
        engine.dispose()


def repair(engine: Engine, now: datetime) -> tuple[list[Difference], list[Difference]]:
    """Make our own triggers, functions and views again; return what was mended, and what still differs.

    A row in `runs` says so. Nothing that is not ours is touched. Raises as `differences` does.
    """
    before = differences(engine)
    wanted = [one for one in before if one.mendable]
    if wanted:
        with writing(engine) as connection:
            rights = views.drop(connection)
            triggers.drop(connection, every=True)
            triggers.create(connection)
            views.create(connection, rights)
        run = begin_run(engine, "db repair", {"made again": [one.name for one in wanted]}, now)
        end_run(engine, run, now)
    left = differences(engine)
    return [one for one in wanted if one not in left], left


def _grade(name: str) -> Grade:
    return Grade.GUARD if name.startswith(_GUARDS) else Grade.HARM


def _without_consequences(found: list[Difference]) -> list[Difference]:
    """Leave out what is said already: of a missing table its columns, keys and triggers."""
    gone = [one.name.removeprefix("table ") for one in found if one.name.startswith("table ")]
    return [
        one for one in found
        if not any(one.name.endswith(f" on {table}") or f" {table}." in one.name for table in gone)
    ]  # fmt: skip


def _sqlite_shapes(engine: Engine) -> tuple[Shape, Shape]:
    with reading(engine) as connection:
        names = set(tables.metadata.tables)
        if inspect(connection).has_table("snapshot_of"):
            names.discard("archive_key")
        held = sqlite_shape(connection, names, views.NAMES)
    model = create_engine("sqlite://", poolclass=StaticPool)
    with model.begin() as connection:
        _make(connection)
        ours = sqlite_shape(connection, names, views.NAMES)
    model.dispose()
    return held, ours


def _postgresql_shapes(engine: Engine) -> tuple[Shape, Shape]:
    names = [*tables.metadata.tables, *views.NAMES]
    shapes: list[Shape] = []
    try:
        with writing(engine) as connection:
            schema = connection.exec_driver_sql(_SCHEMA).scalar()
            connection.exec_driver_sql(f"SET LOCAL search_path TO {schema}")
            shapes.append(postgresql_shape(connection, str(schema), names))
            trial = f"ingestor_compared_with_{secrets.token_hex(4)}"
            connection.exec_driver_sql(f"CREATE SCHEMA {trial}")
            connection.exec_driver_sql(f"SET LOCAL search_path TO {trial}")
            _make(connection)
            shapes.append(postgresql_shape(connection, trial, names))
            raise _RolledBack  # noqa: TRY301 - the transaction must end so
    except _RolledBack:
        held, ours = shapes
        return held, ours
    except IngestorError as error:
        if not shapes:
            raise
        owner_only = "only who may make a schema in the database can; `ingestor check` as the owner does"
        raise NotCompared(owner_only if isinstance(error, ConfigurationError) else str(error)) from error


def _make(connection: Connection) -> None:
    tables.metadata.create_all(connection, checkfirst=False)
    if connection.dialect.name == "postgresql":
        for table in ("sms", "arrivals", "retries"):
            connection.exec_driver_sql(f"CREATE SEQUENCE {table}_id_seq AS bigint")
    triggers.create(connection)
    views.create(connection)
