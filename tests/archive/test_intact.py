"""An archive that somebody has changed is noticed, named, and mended as far as it is ours to mend."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import sqlite_path, writing
from ingestor.archive.intact import NotCompared, differences, repair
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.errors import IngestorError
from tests.archive.reading import rows
from tests.archive.samples import NOW, item

NOPE = "CREATE FUNCTION nope() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
WEAK = (
    "CREATE OR REPLACE FUNCTION archive_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$"
    " BEGIN RETURN COALESCE(NEW, OLD); END $$"
)

# Statements, the word that must be named, and how bad it is.
POSTGRESQL = {
    "a trigger is disabled": (
        ["ALTER TABLE sms_content DISABLE TRIGGER USER"],
        "sms_content_no_update",
        False,
    ),
    "one trigger fires for replicas only": (
        ["ALTER TABLE sms ENABLE REPLICA TRIGGER sms_no_delete"],
        "sms_no_delete",
        False,
    ),
    "a trigger is dropped": (["DROP TRIGGER sms_no_delete ON sms"], "sms_no_delete", False),
    "the function is weakened": ([WEAK], "sms_no_delete", False),
    "a view lies": (
        ["CREATE OR REPLACE VIEW inbound_sms AS SELECT * FROM (TABLE inbound_sms_old) x"],
        "view inbound_sms",
        False,
    ),
    "a view is dropped": (["DROP VIEW quarantine"], "view quarantine", False),
    "row security": (["ALTER TABLE sms ENABLE ROW LEVEL SECURITY"], "row security sms", True),
    "a child table": (["CREATE TABLE kid () INHERITS (sms_content)"], "kid of sms_content", True),
    "a trigger that swallows": (
        [NOPE, "CREATE TRIGGER a_nope BEFORE INSERT ON sms FOR EACH ROW EXECUTE FUNCTION nope()"],
        "a_nope",
        True,
    ),
    "a rule that swallows": (
        ["CREATE RULE r AS ON INSERT TO sms_content DO INSTEAD NOTHING"],
        "rule r",
        True,
    ),
    "a table is dropped": (["DROP TABLE payloads CASCADE"], "table payloads", True),
    "a column is dropped": (
        ["ALTER TABLE sms_content DROP COLUMN details CASCADE"],
        "sms_content.details",
        True,
    ),
    "a key is dropped": (
        ["ALTER TABLE sms DROP CONSTRAINT uq_sms_fingerprint"],
        "uq_sms_fingerprint",
        True,
    ),
    "a further unique key": (["CREATE UNIQUE INDEX sly ON sms (destination)"], "sly", True),
    "a further check": (["ALTER TABLE sms ADD CHECK (segments < 2)"], "segments", True),
    "a sequence is dropped": (["DROP SEQUENCE sms_id_seq CASCADE"], "sms_id_seq", True),
}
SQLITE = {
    "a trigger is dropped": (["DROP TRIGGER sms_content_no_update"], "sms_content_no_update", False),
    "all triggers are dropped": (
        [
            "PRAGMA writable_schema=ON",
            "DELETE FROM sqlite_schema WHERE type='trigger'",
            "PRAGMA writable_schema=RESET",
        ],
        "sms_no_delete",
        False,
    ),
    "a trigger is weakened": (
        [
            "DROP TRIGGER sms_no_delete",
            "CREATE TRIGGER sms_no_delete BEFORE DELETE ON sms WHEN 0 BEGIN SELECT 1; END",
        ],
        "sms_no_delete",
        False,
    ),
    "a view lies": (
        ["DROP VIEW quarantine", "CREATE VIEW quarantine AS SELECT * FROM arrivals WHERE 0"],
        "view quarantine",
        False,
    ),
    "a trigger that swallows": (
        ["CREATE TRIGGER eat BEFORE INSERT ON sms BEGIN SELECT RAISE(IGNORE); END"],
        "eat",
        True,
    ),
    "a table is dropped": (["PRAGMA foreign_keys=OFF", "DROP TABLE payloads"], "table payloads", True),
    "a column is dropped": (
        ["DROP VIEW inbound_sms", "ALTER TABLE sms_content DROP COLUMN keyword"],
        "sms_content.keyword",
        True,
    ),
    "a further unique key": (["CREATE UNIQUE INDEX sly ON sms (destination)"], "destination", True),
}
HARMLESS = (
    "CREATE INDEX of_the_site ON sms (destination, received_at)",
    "CREATE VIEW of_the_site_too AS SELECT count(*) AS n FROM sms",
    "CREATE TABLE notes (id integer PRIMARY KEY, note text)",
)
DEEDS = [pytest.param("sqlite", deed, id=f"sqlite: {name}") for name, deed in SQLITE.items()] + [
    pytest.param("postgresql", deed, id=f"postgresql: {name}", marks=pytest.mark.postgresql)
    for name, deed in POSTGRESQL.items()
]


def _do(engine: Engine, statements: list[str]) -> None:
    """Do what the owner of the tables can do, outside any transaction of ours."""
    path = sqlite_path(engine.url)
    if path is not None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        engine.dispose()
        return
    with writing(engine) as connection:
        for statement in statements:
            if "inbound_sms_old" in statement:
                connection.exec_driver_sql("ALTER VIEW inbound_sms RENAME TO inbound_sms_old")
                statement = statement.replace("CREATE OR REPLACE", "CREATE")  # noqa: PLW2901 - the view is gone
            connection.exec_driver_sql(statement)


def test_an_archive_as_it_was_made_differs_in_nothing(archive_engine: Engine) -> None:
    """Neither new, nor with rows, nor with a site's own indexes, views and tables in it."""
    Store(archive_engine).write([Submission(None, (item(1),))], NOW)
    assert differences(archive_engine) == []
    _do(archive_engine, list(HARMLESS))
    assert differences(archive_engine) == []


@pytest.mark.parametrize(("database", "deed"), DEEDS)
def test_what_was_done_to_an_archive_is_named_and_ours_is_mended(
    request: pytest.FixtureRequest, database: str, deed: tuple[list[str], str, bool]
) -> None:
    """Guards and views are made again and a run says so; whatever else differs is only named."""
    engine: Engine = request.getfixturevalue(f"{database}_engine")
    Store(engine).write([Submission(None, (item(1),))], NOW)
    statements, named, harms = deed
    _do(engine, statements)
    found = differences(engine)
    assert any(named in str(one) for one in found), found
    assert max(one.harms for one in found) is harms
    if harms:
        return
    mended, left = repair(engine, NOW)
    assert left == []
    assert mended == found
    assert differences(engine) == []
    assert rows(engine, "SELECT command, ended_at IS NOT NULL FROM runs") in (
        [("db repair", 1)],
        [("db repair", True)],
    )


def test_a_file_whose_schema_contradicts_itself_is_damaged(sqlite_engine: Engine) -> None:
    """A unique key taken out of the schema by hand is told as what it is."""
    statements = [
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_schema SET sql=replace(sql, 'UNIQUE', '') WHERE name='sms'",
        "DELETE FROM sqlite_schema WHERE name LIKE 'sqlite_autoindex_sms%'",
        "PRAGMA writable_schema=RESET",
    ]
    _do(sqlite_engine, statements)
    with pytest.raises(IngestorError, match="damaged"):
        differences(sqlite_engine)


def test_a_repair_of_nothing_leaves_no_run(archive_engine: Engine) -> None:
    """What is as it should be is not touched."""
    assert repair(archive_engine, NOW) == ([], [])
    assert rows(archive_engine, "SELECT count(*) FROM runs") == [(0,)]


@pytest.mark.postgresql
def test_a_role_that_cannot_make_a_schema_says_not_compared(
    postgresql_engine: Engine, postgresql_server: object, engine_of_reader: Callable[[Engine], Engine]
) -> None:
    """Nothing is called well that was not looked at."""
    reader = engine_of_reader(postgresql_engine)
    with pytest.raises(NotCompared):
        differences(reader)


@pytest.fixture
def engine_of_reader(postgresql_server: object) -> Iterator[Callable[[Engine], Engine]]:
    """An engine for a role that may write the tables and make nothing."""
    from ingestor.archive.engine import open_engine

    opened: list[Engine] = []

    def make(engine: Engine) -> Engine:
        with writing(engine) as connection:
            connection.exec_driver_sql("DROP ROLE IF EXISTS writer_only")
            connection.exec_driver_sql("CREATE ROLE writer_only LOGIN")
            connection.exec_driver_sql("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO writer_only")
        url = engine.url.set(username="writer_only").render_as_string(hide_password=False)
        opened.append(open_engine(url))
        return opened[-1]

    yield make
    for engine in opened:
        engine.dispose()
