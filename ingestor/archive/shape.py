"""The shape of an archive as a dictionary: what there is, by name, and how exactly the database has it.

SQLite is described by structure (its stored SQL changes with each ALTER TABLE), PostgreSQL by what the server
itself prints: versions print one definition differently, so both sides must come from the same server.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, inspect

Shape = dict[str, str]
"""`column sms.id`, `trigger sms_no_update on sms` and the like, each with its definition."""

_BLANKS = re.compile(r"\s+")


def sqlite_shape(connection: Connection, tables: Collection[str], views: Collection[str]) -> Shape:
    """Return the shape of `tables` and `views`, and of every trigger on them."""
    found: Shape = {}
    for _, table, kind, _, _, strict in list(connection.exec_driver_sql("PRAGMA table_list")):
        if table in tables and kind == "table":
            found[f"table {table}"] = f"strict {strict}"
            found |= _sqlite_table(connection, table)
    listed = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    for kind, name, table, sql in listed:
        if kind == "trigger" and (table in tables or table in views):
            found[f"trigger {name} on {table}"] = _one_line(sql)
        elif kind == "view" and name in views:
            found[f"view {name}"] = _one_line(sql)
    return found


def _sqlite_table(connection: Connection, table: str) -> Shape:
    found: Shape = {}
    for _, name, *column in connection.exec_driver_sql(f"PRAGMA table_xinfo({table})"):
        found[f"column {table}.{name}"] = " ".join(map(str, column))
    for _, name, unique, origin, partial in list(connection.exec_driver_sql(f"PRAGMA index_list({table})")):
        columns = [str(row[2]) for row in connection.exec_driver_sql(f'PRAGMA index_info("{name}")')]
        where = _where_of_index(connection, name) if partial else ""
        kind = "unique key" if unique else "index"
        found[f"{kind} ({', '.join(columns)}){where} on {table}"] = "primary" if origin == "pk" else ""
    for _, _, parent, column, *rest in connection.exec_driver_sql(f"PRAGMA foreign_key_list({table})"):
        found[f"foreign key {column} on {table}"] = " ".join(map(str, [parent, *rest]))
    for check in inspect(connection).get_check_constraints(table):
        found[f"check {_one_line(check['sqltext'])} on {table}"] = ""
    return found


def _where_of_index(connection: Connection, name: str) -> str:
    sql = connection.exec_driver_sql("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).scalar()
    return " where " + _one_line(str(sql)).partition(" WHERE ")[2]


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
