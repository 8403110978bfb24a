"""What the database holds, compared with what this program's schema makes of the same database.

Whoever owns the tables can drop a trigger, put a view that lies in the place of ours, or let a rule swallow
what is inserted; nothing else of the program would notice. SQLite is described by structure (its stored SQL
changes with each ALTER TABLE), PostgreSQL by what the server itself prints: versions print one definition
differently, so both sides must come from the same server.
"""

import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.pool import StaticPool

from ingestor.archive import tables, triggers, views
from ingestor.archive.engine import opened, reading, writing
from ingestor.archive.migrate import has_table
from ingestor.archive.runs import begin_run, end_run
from ingestor.errors import ConfigurationError, IngestorError

Shape = dict[str, str]
"""`column sms.id`, `trigger sms_no_update on sms` and the like, each with its definition."""

_BLANKS = re.compile(r"\s+")


# What SQLite is asked of a table by each pragma; first what a key is made of.
_SQLITE = {
    "table_xinfo": 'x.name, x.type, x."notnull", x.dflt_value, x.pk, x.hidden',
    "index_list": """x."unique", x.origin,
        (SELECT group_concat(coalesce(name, 'None'), ', ') FROM pragma_index_info(x.name)),
        (SELECT sql FROM sqlite_schema WHERE x.partial AND type = 'index' AND name = x.name)""",
    "foreign_key_list": 'x."from", x."table", x."to", x.on_update, x.on_delete, x.match',
}


def sqlite_shape(connection: Connection, tables: Collection[str], views: Collection[str]) -> Shape:
    """Return the shape of `tables` and `views`, and of every trigger on them."""
    listed = connection.exec_driver_sql("PRAGMA table_list")
    strict = {name: strict for _, name, kind, _, _, strict in listed if kind == "table" and name in tables}

    def of_each(pragma: str) -> Iterable[Any]:
        """One question for all tables: a few for each were a third of the comparison."""
        query = (
            f"SELECT t.name, {_SQLITE[pragma]} FROM sqlite_schema t JOIN pragma_{pragma}(t.name) x"  # noqa: S608 - our own names
            f" WHERE t.type = 'table' AND t.name IN ({', '.join('?' * len(strict))})"
        )
        return connection.exec_driver_sql(query, tuple(strict))

    found = {f"table {table}": f"strict {made}" for table, made in strict.items()}
    for table, name, *column in of_each("table_xinfo"):
        found[f"column {table}.{name}"] = " ".join(map(str, column))
    for table, unique, origin, columns, sql in of_each("index_list"):
        where = " where " + _one_line(sql).partition(" WHERE ")[2] if sql else ""
        kind = "unique key" if unique else "index"
        found[f"{kind} ({columns}){where} on {table}"] = "primary" if origin == "pk" else ""
    for table, column, *rest in of_each("foreign_key_list"):
        found[f"foreign key {column} on {table}"] = " ".join(map(str, rest))
    look = inspect(connection)
    for table in strict:
        for check in look.get_check_constraints(table):
            found[f"check {_one_line(check['sqltext'])} on {table}"] = ""
    rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    for kind, name, table, sql in rows:
        if kind == "trigger" and (table in tables or table in views):
            found[f"trigger {name} on {table}"] = _one_line(sql)
        elif kind == "view" and name in views:
            found[f"view {name}"] = _one_line(sql)
    return found


def _one_line(sql: str) -> str:
    return _BLANKS.sub(" ", sql).strip()


_RELATION = "FROM pg_class c {join} WHERE c.relnamespace = {schema} AND c.relname = ANY(%s)"
_INDEX = (
    "SELECT i.relname || ' on ' || c.relname, regexp_replace(pg_get_indexdef(i.oid), ' ON \\S+ ', ' ON ') "
    + _RELATION.replace(
        "{join}", "JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid"
    )
    + " AND x.indisvalid AND "
)
# Each gives a name and a definition. A definition names a schema only where it is not the one searched.
_POSTGRESQL = {
    "table": "SELECT c.relname, concat(c.relpersistence) " + _RELATION + " AND c.relkind IN ('r', 'p')",
    "column": """SELECT c.relname || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
        a.attnotnull, a.attidentity, a.attgenerated,
        (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = c.oid
         AND d.adnum = a.attnum))
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = {schema} AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p')""",
    "constraint": """SELECT k.conname || ' on ' || c.relname, concat(pg_get_constraintdef(k.oid),
        k.convalidated) FROM pg_class c
        JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c', 'x')
        WHERE c.relnamespace = {schema} AND c.relname = ANY(%s)""",
    "unique index": _INDEX + "x.indisunique",
    "index": _INDEX + "NOT x.indisunique",
    "trigger": """SELECT t.tgname || ' on ' || c.relname, concat_ws(' ', t.tgenabled, t.tgtype, p.proname,
        p.prosecdef, p.proconfig, p.prosrc, t.tgattr, pg_get_expr(t.tgqual, t.tgrelid),
        encode(t.tgargs, 'hex')) FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
        JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE c.relnamespace = {schema} AND c.relname = ANY(%s)""",
    "view": "SELECT c.relname, concat_ws(' ', c.reloptions, pg_get_viewdef(c.oid)) " + _RELATION
        + " AND c.relkind = 'v'",
    "rule": """SELECT r.rulename || ' on ' || c.relname, concat(r.ev_enabled, pg_get_ruledef(r.oid))
        FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'
        WHERE c.relnamespace = {schema} AND c.relname = ANY(%s)""",
    "row security": "SELECT c.relname, concat(c.relforcerowsecurity) " + _RELATION + " AND c.relrowsecurity",
    "child table": """SELECT h.inhrelid::regclass::text || ' of ' || c.relname, ''
        FROM pg_class c JOIN pg_inherits h ON h.inhparent = c.oid
        WHERE c.relnamespace = {schema} AND c.relname = ANY(%s) AND c.relkind = 'r'""",
}  # fmt: skip


def postgresql_shape(connection: Connection, schema: str, names: Collection[str]) -> Shape:
    """Return the shape of the tables, views and sequences `names` in `schema`, which is searched first."""
    number = connection.exec_driver_sql("SELECT %s::regnamespace::oid", (schema,)).scalar()
    found: Shape = {}
    for kind, query in _POSTGRESQL.items():
        rows: Iterable[Any] = connection.exec_driver_sql(query.format(schema=number, join=""), (list(names),))
        found |= {f"{kind} {name}": _one_line(str(definition)) for name, definition in rows}
    rows = connection.exec_driver_sql(
        "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = %s AND relname = ANY(%s)",
        (number, [f"{name}_id_seq" for name in names]),
    )
    return found | {f"sequence {name}": "" for (name,) in rows}


_SCHEMA = (
    "SELECT coalesce((SELECT relnamespace FROM pg_class WHERE oid = to_regclass('sms'))::regnamespace::text,"
    " current_schema()::text)"
)
_OURS_TO_MEND = ("trigger ", "function ", "view ")
# A site may add what changes no answer; anything else that is not ours swallows, hides or doubles rows.
_HARMLESS = ("index ", "view ", "table ", "sequence ", "function ")
# Without these nothing is written wrong; a site may also have dropped an index of ours on purpose.
_GUARDS = ("trigger ", "function ", "view ", "index ")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as this version makes it: its name, and what is so about it."""

    name: str
    says: str

    @property
    def harms(self) -> bool:
        """Whether rows may be refused, swallowed, hidden or doubled, so that nothing may be stored."""
        return self.says == "is not ours" or not self.name.startswith(_GUARDS)

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
    """Return how the archive differs from this program's schema. Raises NotCompared, ArchiveUnavailable."""
    held, ours = _sqlite_shapes(engine) if engine.dialect.name == "sqlite" else _postgresql_shapes(engine)
    found = []
    for name in sorted(ours.keys() | held.keys()):
        if name not in held:
            found.append(Difference(name, "is missing"))
        elif name not in ours:
            if not name.startswith(_HARMLESS):
                found.append(Difference(name, "is not ours"))
        elif held[name] != ours[name]:
            found.append(Difference(name, "is another one than ours"))
    return _without_consequences(found)


def differences_of(engine: Engine) -> list[Difference]:
    """Return what `differences` does for the archive that `engine` only reads; raises alike."""
    if engine.dialect.name == "sqlite":
        return differences(engine)
    with reading(engine) as connection:
        if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar():
            raise NotCompared(
                "a standby takes no tables to compare with; `ingestor check` at the primary does it"
            )
    with opened(engine.url) as writing_engine:  # what it is compared with is made there, and rolled back
        return differences(writing_engine)


def repair(engine: Engine, now: datetime) -> tuple[list[Difference], list[Difference]]:
    """Make our own triggers, functions and views again; return what was mended, and what still differs."""
    before = differences(engine)
    wanted = [one for one in before if one.mendable]
    if wanted:
        with writing(engine) as connection:
            rights = views.drop(connection)
            triggers.drop(connection)
            triggers.create(connection)
            views.create(connection, rights)
        run = begin_run(engine, "db repair", {"made again": [one.name for one in wanted]}, now)
        end_run(engine, run, now)
    left = differences(engine)
    return [one for one in wanted if one not in left], left


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
        if has_table(connection, "snapshot_of"):
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
