"""The roles that the documents make on PostgreSQL: each can do what they say it is for, and no more."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive import grants
from ingestor.archive.engine import reading
from ingestor.archive.tables import ERASABLE, PERMANENT, metadata
from tests import readme
from tests.archive.reading import number_of, opened, rows
from tests.cli.calling import ingestor
from tests.intake.files.mails import broken_mail, mbox_of, sms_mail
from tests.servers.postgresql import PostgresqlServer

pytestmark = pytest.mark.postgresql

COMMANDS = [
    "import old.mbox --dry-run",
    "import old.mbox",
    "import old.mbox --quiet",
    "search text --originator 39",
    "show 1",
    "show 1 --raw",
    "export",
    "export --format csv --output all.csv",
    "quarantine list",
    "quarantine show 2",
    "quarantine retry",
    "quarantine export waiting.mbox",
    "quarantine discard 2 --reason test",
    "snapshot copy.db",
    "status",
    "db current",
    "db history",
    "db upgrade",
    "explain one.eml",
]


@pytest.fixture
def roles(postgresql_server: PostgresqlServer, postgresql_engine: Engine) -> Iterator[str]:
    """The name of an archive for which the documents' roles were made, to the letter."""
    database = str(postgresql_engine.url.database)
    postgresql_server.sql("DROP ROLE IF EXISTS auditor; DROP ROLE IF EXISTS service")
    for recipe in (*readme.blocks("service"), *readme.blocks("auditor")):
        postgresql_server.sql(recipe, database)
    yield database
    for role in ("service", "auditor"):
        postgresql_server.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", database)


def test_the_service_runs_every_command(
    roles: str, postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    """None of them lacks a right: not to read, not to write, not to look at the schema."""
    (tmp_path / "old.mbox").write_bytes(mbox_of(sms_mail(1), broken_mail(2), sms_mail(1)))
    (tmp_path / "one.eml").write_bytes(sms_mail(1))
    url = postgresql_server.url(roles, "service")
    for command in COMMANDS:
        done = ingestor("--database-url", url, *command.split(), folder=tmp_path)
        assert "a right that" not in done.err, (command, done.err)
        assert done.code == 0, (command, done.out, done.err)
    checked = ingestor("--database-url", url, "check", folder=tmp_path)
    assert re.search(r"database.* can be read and written by service", checked.out)
    with opened(url) as engine:
        assert number_of(engine, "arrivals") == 3


def test_the_auditor_runs_every_query(roles: str, postgresql_server: PostgresqlServer) -> None:
    """Each statement with which the documents ask the archive something works for the role that only reads.

    One asks `runs`, too, for which AUDITING.md names the right that is to be added.
    """
    postgresql_server.sql("GRANT SELECT ON runs TO auditor", roles)
    statements = [one for block in readme.blocks("sql") for one in block.split(";") if one.strip()]
    assert len(statements) >= 4
    with opened(postgresql_server.url(roles, "auditor")) as engine:
        for statement in statements:
            rows(engine, statement.replace("%", "%%"))


def test_the_documents_grant_what_the_one_list_says(roles: str, postgresql_engine: Engine) -> None:
    """No right too few and none too many: what is append-only can be inserted into, and no more."""
    with reading(postgresql_engine) as connection:
        assert grants.missing(connection, "service") == []
    found = rows(
        postgresql_engine,
        "SELECT c.relname, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a"
        " WHERE a.grantee = 'service'::regrole AND c.relkind = 'r' AND a.privilege_type <> 'SELECT'",
    )
    mutable = metadata.tables.keys() - {*PERMANENT, *ERASABLE}
    assert set(found) == {
        *((table, "INSERT") for table in {*PERMANENT, *ERASABLE} - {"archive_key"}),
        *((table, right) for table in mutable for right in ("INSERT", "UPDATE", "DELETE")),
    }
