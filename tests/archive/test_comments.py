"""What each column means, said once: for PostgreSQL's comments and for AUDITING.md."""

import pytest
from sqlalchemy import Engine, inspect

from ingestor.archive import tables, views
from ingestor.archive.comments import VIEWS, of_table, plain
from ingestor.archive.engine import writing
from ingestor.archive.intact import repair
from tests.archive.reading import rows
from tests.archive.samples import NOW
from tests.readme import ROOT

WRITTEN = (
    "SELECT c.relname, a.attname, col_description(c.oid, a.attnum) FROM pg_class AS c"
    " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')"
    " AND c.relname <> 'alembic_version'"
    " UNION ALL SELECT relname, NULL, obj_description(oid) FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'alembic_version'"
)

TABLES = {name: of_table(name) for name in tables.metadata.tables}


def test_every_table_view_and_column_has_its_meaning(archive_engine: Engine) -> None:
    """None is missing, and none is described that is not there."""
    described = {name: set(columns) for name, (_, columns) in {**TABLES, **VIEWS}.items()}
    found, names = inspect(archive_engine), (*tables.metadata.tables, *views.NAMES)
    there = {name: {column["name"] for column in found.get_columns(name)} for name in names}
    assert described == there


def test_the_document_says_the_same() -> None:
    """AUDITING.md has a table for each, with these words and no other column."""
    text = (ROOT / "AUDITING.md").read_text()
    for name, (meaning, columns) in {**VIEWS, **TABLES}.items():
        lines = "".join(f"| `{column}` | {says} |\n" for column, says in columns.items())
        assert f"**`{name}`** – {meaning}.\n\n| column | meaning |\n|---|---|\n{lines}" in text
        after = text.split(f"**`{name}`** – ", 1)[1].split(lines, 1)[1]
        assert not after.startswith("|")


@pytest.mark.postgresql
def test_postgresql_has_them_as_comments(postgresql_engine: Engine) -> None:
    """Each is in the database after `db upgrade`, and again after `db repair` made the views anew."""
    expected = {
        (name, column): plain(says)
        for name, (meaning, columns) in {**TABLES, **VIEWS}.items()
        for column, says in [(None, meaning), *columns.items()]
    }
    assert {(name, column): says for name, column, says in rows(postgresql_engine, WRITTEN)} == expected
    with writing(postgresql_engine) as connection:
        connection.exec_driver_sql("DROP VIEW arrivals_detail")
    repair(postgresql_engine, NOW)
    assert {(name, column): says for name, column, says in rows(postgresql_engine, WRITTEN)} == expected
