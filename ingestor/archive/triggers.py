"""Triggers that keep the append-only tables append-only, on both databases.

The content of a row goes by one way alone: whoever names the row in `erased` makes a trigger remove it, in
the same statement, and what is not named there cannot be removed.

They are dropped before a migration and made again after it: Alembic's batch mode drops them silently
(measured with 1.20.1).

Beside them stands the lock by which an erasure on PostgreSQL keeps out who stores.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, UniqueConstraint, func, select

from ingestor.archive.tables import CONTENT_OF, ERASABLE, PERMANENT, metadata

ERASURES_LOCK: Final = 0x657261736564
"""Of PostgreSQL ("erased"): shared by whoever stores, and held alone by whoever erases."""

_TRIES, _PAUSE = 200, 0.005

# The kind of row in `erased`, and the column with its id, by the table of its content.
_CONTENT = {name: (kind, key) for kind, of in CONTENT_OF.items() for name, key in of.items()}


def _expected(dialect: str) -> set[tuple[str, str]]:
    kinds = ("no_update", "no_delete", "no_replace" if dialect == "sqlite" else "no_truncate")
    takes = (
        [f"erased_takes_{kind}" for kind in CONTENT_OF] if dialect == "sqlite" else ["erased_takes_content"]
    )
    gone = {("sms_words", "sms_words_gone")} if dialect == "sqlite" and fts5() else set()
    return {
        *((table, f"{table}_{kind}") for table in PERMANENT + ERASABLE for kind in kinds),
        *(("erased", name) for name in takes),
        *gone,
    }


def create(connection: Connection) -> None:
    """Make all triggers."""
    dialect = connection.dialect.name
    made = [_REFUSE, _GOES, _TAKES] if dialect == "postgresql" else []
    made += [one for table in PERMANENT + ERASABLE for one in _statements(dialect, table)] + _taking(dialect)
    made += [_FTS5, _REBUILD, _GONE] if dialect == "sqlite" and fts5() else []
    for statement in made:
        connection.exec_driver_sql(statement)


def drop(connection: Connection) -> None:
    """Drop our triggers that exist, those that somebody disabled, too."""
    dialect = connection.dialect.name
    for table, trigger in sorted(_expected(dialect)):
        of = f" ON {table}" if dialect == "postgresql" else ""
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger}{of}")


@cache
def fts5() -> bool:
    """Say whether this SQLite has FTS5 with its trigrams (3.34, and not left out when it was built)."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE words USING fts5(word, tokenize = 'trigram')")
        except sqlite3.OperationalError:
            return False
    return True


# Of each trigram which SMS have it and no more: 40 bytes an SMS, where positions took 140.
_FTS5 = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS sms_words_index USING fts5(words, content = 'sms_words',"
    " content_rowid = 'sms_id', detail = none, columnsize = 0, tokenize = 'trigram')"
)
_REBUILD = "INSERT INTO sms_words_index (sms_words_index) VALUES ('rebuild')"
# None for an insert: FTS5 writes all it has to the disk for each row that a trigger gives it (35 µs a text
# instead of 8). `words` gives it all that it takes in.
_GONE = (
    "CREATE TRIGGER sms_words_gone AFTER DELETE ON sms_words BEGIN"
    " INSERT INTO sms_words_index (sms_words_index, rowid, words)"
    " VALUES ('delete', OLD.sms_id, OLD.words); END"
)

_REFUSE = """
CREATE OR REPLACE FUNCTION archive_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = 'table ' || TG_TABLE_NAME || ' is append-only: ' || TG_OP || ' is refused';
END $$
"""


# Once a statement, not once a row. The schema is named, because whoever may make temporary tables could put
# one of his own before ours. Content is removed with the rights of the tables' owner: nobody else has that
# right, and who may write the archive may only name in `erased` what is to go. Each row is looked up there
# without a join: see `inserts`.
_GOES = """
CREATE OR REPLACE FUNCTION content_goes_by_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  unnamed boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM gone WHERE (SELECT erasure_id FROM %%I.erased'
    ' WHERE erased.kind = %%L AND erased.row_id = gone.%%I) IS NULL)',
    TG_TABLE_SCHEMA, TG_ARGV[0], TG_ARGV[1])
    INTO unnamed;
  IF unnamed THEN
    RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
      MESSAGE = 'table ' || TG_TABLE_NAME || ' is append-only: DELETE is refused (ingestor erase)';
  END IF;
  RETURN NULL;
END $$
"""
_TAKE = """IF EXISTS (SELECT FROM gone WHERE kind = '{2}') THEN
    EXECUTE format('DELETE FROM %%I.{0} WHERE {1} IN (SELECT row_id FROM gone WHERE kind = ''{2}'')',
      TG_TABLE_SCHEMA);
  END IF;"""
_TAKES = """
CREATE OR REPLACE FUNCTION erasure_takes_content() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  {}
  RETURN NULL;
END $$
""".format("\n  ".join(_TAKE.format(name, key, kind) for name, (kind, key) in _CONTENT.items()))


def _taking(dialect: str) -> list[str]:
    """Return what removes the content of a row as soon as it is named in `erased`."""
    if dialect == "postgresql":
        how = "REFERENCING NEW TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION erasure_takes_content()"
        return [f"CREATE TRIGGER erased_takes_content AFTER INSERT ON erased {how}"]
    made = []
    for kind, of in CONTENT_OF.items():
        gone = " ".join(f"DELETE FROM {name} WHERE {key} = NEW.row_id;" for name, key in of.items())  # noqa: S608 - names are our own
        after = f"AFTER INSERT ON erased WHEN NEW.kind = '{kind}'"
        made.append(f"CREATE TRIGGER erased_takes_{kind} {after} BEGIN {gone} END")
    return made


def _statements(dialect: str, table: str) -> list[str]:
    kind, key = _CONTENT.get(table, (None, None))
    if dialect == "postgresql":
        refused = (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT"))
        made = [
            f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table}"
            f" FOR EACH {level} EXECUTE FUNCTION archive_is_append_only()"
            for event, level in refused
            if kind is None or event != "DELETE"
        ]
        if kind is not None:
            made.append(
                f"CREATE TRIGGER {table}_no_delete AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone"
                f" FOR EACH STATEMENT EXECUTE FUNCTION content_goes_by_erasure('{kind}', '{key}')"
            )
        return made
    unnamed = f"(SELECT 1 FROM erased WHERE kind = '{kind}' AND row_id = OLD.{key})"  # noqa: S608 - names are our own
    refuse = [
        f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table}"
        + (f" WHEN NOT EXISTS {unnamed}" if kind is not None and event == "DELETE" else "")
        + f" BEGIN SELECT RAISE(ABORT, 'table {table} is append-only: {event} is refused'); END"
        for event in ("UPDATE", "DELETE")
    ]
    # IGNORE and not ABORT: ON CONFLICT DO NOTHING stays right, and INSERT OR REPLACE changes nothing.
    known = " ".join(f"SELECT RAISE(IGNORE) FROM {table} WHERE {key};" for key in _same(table))  # noqa: S608 - names are our own
    return [*refuse, f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} BEGIN {known} END"]


def _same(table: str) -> Iterator[str]:
    """Give what identifies a row: an insert that meets one of these is ignored, never made a REPLACE."""
    made = metadata.tables[table]
    unique = [one for one in made.constraints if isinstance(one, UniqueConstraint)]
    # Always in the same order: `intact` compares the text of a trigger.
    unique.sort(key=lambda one: (-len(one.columns), str(one.name)))
    keys: list[Any] = [made.primary_key, *unique, *(one for one in made.indexes if one.unique)]
    for key in keys:
        same = [f"{one.name} = NEW.{one.name}" for one in key.columns]
        where = key.info.get("where")
        yield " AND ".join(same if where is None else [*same, where, f"NEW.{where}"])


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
