"""The roles that the documents make on PostgreSQL: each can do what they say it is for, and no more."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive import grants
from ingestor.archive.engine import open_engine, reading, writing
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.archive.tables import ERASABLE, PERMANENT, metadata
from ingestor.cli import COMMANDS
from ingestor.replies.opt_outs import Event, read_secret, write_events
from tests import readme
from tests.archive.reading import number_of, rows
from tests.archive.samples import NOW, broken, item, sms
from tests.cli.calling import Called, ingestor
from tests.intake.files.mails import broken_mail, mbox_of, sms_mail
from tests.servers.postgresql import MADE, PostgresqlServer

pytestmark = pytest.mark.postgresql

OUT, ANYBODY = sms(1).originator, "+393477777777"
READING = (
    "search text --originator 39",
    "show 1",
    "show 1 --raw",
    f"show --conversation {OUT}",
    "status",
    "export",
    "export --format csv --output all.csv",
    "follow --since 2020-01-01 --count 1 --timeout 20",
    "quarantine list",
    "quarantine show 3",
    "quarantine export waiting.mbox",
    "optout list",
    f"optout check {ANYBODY}",
    f"optout check {OUT}",
    "optout review",
    "optout export out.csv",
    "answers list",
    "erase list",
    "erase hold list",
    "snapshot copy.db",
    "db current",
    "db history",
)
WITH_THE_KEY = (
    "explain one.eml",
    "import old.mbox --dry-run",
    "import old.mbox",
    "import old.mbox --quiet",
    f"optout add {ANYBODY} --reason test",
    "optout scan",
    "erase plan --sms 2 --basis test --output plan.json",
    "erase apply plan.json",
    "quarantine retry",
    "quarantine discard 3 --reason test",
    "backup copies",
    "db upgrade",
)
ELSEWHERE = {
    "run", "check", "demo", "config", "webhook",  # with the daemon, or without an archive
    "login", "token", "rescan", "send", "credit",  # with a mailbox, or Agile's API
    "restore",  # of SQLite alone
}  # fmt: skip


@pytest.fixture(scope="module")
def database(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an archive with something in it, for which the documents' roles were made to the letter."""
    name = "roles"
    postgresql_server.create(name, MADE)
    engine = open_engine(postgresql_server.url(name))
    Store(engine).write([Submission(None, (item(1), item(2), broken(3)))], NOW)
    url, folder = postgresql_server.url(name), tmp_path_factory.mktemp("scan")
    assert ingestor("--database-url", url, "optout", "scan", folder=folder).code == 0
    with writing(engine) as connection:
        write_events(connection, read_secret(connection), [Event(OUT, "*", "add", NOW)], NOW)
    for recipe in (*readme.blocks("service"), *readme.blocks("auditor")):
        postgresql_server.sql(recipe, name)
    yield name
    engine.dispose()
    for role in ("service", "auditor"):
        postgresql_server.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", name)
    postgresql_server.drop(name)


@pytest.fixture
def owner(postgresql_server: PostgresqlServer, database: str) -> Iterator[Engine]:
    """An engine on the archive as its owner."""
    engine = open_engine(postgresql_server.url(database))
    yield engine
    engine.dispose()


def _runs(called: Callable[..., Called], url: str, command: str, codes: tuple[int, ...] = (0,)) -> Called:
    done = called("--database-url", url, *command.split())
    assert "refuses this role" not in done.err, (command, done.err)
    assert "not known" not in done.out, (command, done.out)
    expected = (1,) if command == f"optout check {OUT}" else codes
    assert done.code in expected, (command, done.out, done.err)
    return done


@pytest.mark.parametrize("role", ["service", "auditor"])
def test_each_role_runs_every_reading_command(
    role: str, database: str, postgresql_server: PostgresqlServer, called: Callable[..., Called]
) -> None:
    """None of them lacks a right, and none says less for it."""
    url = postgresql_server.url(database, role)
    for command in READING:
        # No daemon feeds this archive.
        _runs(called, url, command, (0, 1) if command == "status" else (0,))


def test_the_service_runs_every_command(
    database: str, postgresql_server: PostgresqlServer, owner: Engine, called: Callable[..., Called]
) -> None:
    """None of them lacks a right: not to write, not to compare by the key, not to look at the schema."""
    Path("one.eml").write_bytes(sms_mail(1))
    Path("copies").mkdir()
    Path("old.mbox").write_bytes(mbox_of(sms_mail(1), broken_mail(2), sms_mail(1)))
    url = postgresql_server.url(database, "service")
    before = number_of(owner, "arrivals")
    for command in WITH_THE_KEY:
        _runs(called, url, command)
    checked = called("--database-url", url, "check")
    assert re.search(r"database.* can be read and written by service", checked.out)
    assert number_of(owner, "arrivals") == before + 3


def test_the_auditor_writes_nothing_and_reads_no_key(
    database: str, postgresql_server: PostgresqlServer, owner: Engine, called: Callable[..., Called]
) -> None:
    """A command that writes, or copies the key, is refused in a line."""
    Path("new.mbox").write_bytes(mbox_of(sms_mail(7)))
    url = postgresql_server.url(database, "auditor")
    before = number_of(owner, "arrivals")
    Path("copies").mkdir()
    add = f"optout add {OUT} --reason test"
    for command in ("import new.mbox", "quarantine retry", "backup copies", add):
        refused = called("--database-url", url, *command.split())
        assert refused.code != 0, command
        assert re.search("refuses this role|a role that only reads", refused.faults[-1]), refused.err
    assert number_of(owner, "arrivals") == before
    granted = rows(owner, "SELECT has_table_privilege('auditor', 'archive_key', 'SELECT')")
    assert granted == [(False,)]


def test_a_role_without_the_key_says_where_it_cannot_tell(
    database: str, postgresql_server: PostgresqlServer, called: Callable[..., Called], owner: Engine
) -> None:
    """Once a person who is out was erased, it says of nobody that he may be written to; nor a snapshot."""
    url = postgresql_server.url(database, "auditor")
    erased = "+393466666666"
    with writing(owner) as connection:
        write_events(connection, read_secret(connection), [Event(erased, "*", "add", NOW)], NOW)
    service = postgresql_server.url(database, "service")
    plan = f"erase plan --number {erased} --basis test --output gone.json"
    for command in (plan, "erase apply gone.json", "snapshot gone.db"):
        _runs(called, service, command)

    for archive in (url, "sqlite:///gone.db"):
        unknown = called("--database-url", archive, "optout", "check", "+393488888888")
        out = called("--database-url", archive, "optout", "check", OUT)
        assert unknown.code == 3
        assert "not known: " in unknown.out
        assert out.code == 1
    assert called("--database-url", service, "optout", "check", erased).code == 1


def test_every_command_is_tried_or_named() -> None:
    """A new command is in a list above."""
    tried = {line.split()[0] for line in (*READING, *WITH_THE_KEY)}

    assert tried | ELSEWHERE == COMMANDS.keys()
    assert not tried & ELSEWHERE


def test_the_auditor_runs_every_query(postgresql_server: PostgresqlServer, database: str) -> None:
    """Each statement with which the documents ask the archive something works for the role that reads."""
    statements = [one for block in readme.blocks("sql") for one in block.split(";") if one.strip()]
    assert len(statements) >= 4
    engine = open_engine(postgresql_server.url(database, "auditor"))
    for statement in statements:
        rows(engine, statement.replace("%", "%%"))
    engine.dispose()


def test_the_documents_grant_what_the_one_list_says(database: str, owner: Engine) -> None:
    """No right too few and none too many: what is append-only can be inserted into, and no more."""
    with reading(owner) as connection:
        assert grants.missing(connection, "service") == []
        assert grants.missing(connection, "auditor", reads=True) == []
        assert grants.readers(connection) == ["auditor"]
    found = rows(
        owner,
        "SELECT c.relname, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a"
        " WHERE a.grantee = 'service'::regrole AND c.relkind = 'r' AND a.privilege_type <> 'SELECT'",
    )
    mutable = metadata.tables.keys() - {*PERMANENT, *ERASABLE}
    assert set(found) == {
        *((table, "INSERT") for table in {*PERMANENT, *ERASABLE} - {"archive_key"}),
        *((table, right) for table in mutable for right in ("INSERT", "UPDATE", "DELETE")),
    }
    others = rows(
        owner,
        "SELECT c.relname, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE a.grantee ="
        " 'auditor'::regrole AND (a.privilege_type <> 'SELECT' OR c.relname = 'archive_key')",
    )
    assert others == []
