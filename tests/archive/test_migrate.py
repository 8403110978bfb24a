"""The schema's life: made once however many start, never downgraded, never half done."""

import hashlib
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from ingestor.archive import migrate, views
from ingestor.archive.engine import sqlite_path, writing
from ingestor.archive.intact import differences
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.archive.tables import metadata
from ingestor.errors import ArchiveUnavailable, SchemaMismatch, SchemaNewer, UpgradeFailed
from tests.archive.reading import number_of, one, opened, rows
from tests.archive.samples import NOW, broken, item
from tests.servers.postgresql import PostgresqlServer

ENSURE = """
import sys
from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
ensure_schema(open_engine(sys.argv[1]), auto_upgrade=True)
"""

# A revision that has landed is frozen: archives that took it look as its text said. A change is a new one.
FROZEN = {
    "0001_first_schema.py": "cde4b8624a30f436c183adcd1d8d232985b3c2f192e0a78c67fc2f79d9ddb5bc",
    "0002_earlier_archives.py": "bdf503a5fdcd357f1f5d068d09851c7a718c21277f14bbcf03c03afe781a37fe",
    "0003_mailbox_identity.py": "9ae83b03c103e18049340d62743af5026ef2120ccefd2fa495d6e507db458a98",
    "0004_look_alikes.py": "8e19a6e90a7e46c910782c78e1ad9e2f936670d0e0ff03544341016b8414e4ac",
    "0006_arrival_content.py": "c3c92a1a56a7bc6898ad4b9fe543b1e706cdb73f669cdc69ce6eb2fc0898ba35",
    "0007_consents.py": "c318651777a158363d8916019ba22080037d6ca985e26c076026db369ff9efc3",
    "0008_answers.py": "dcf24efb8eb590d075854e3dc10f7373a2894d8482d2defe8a071404411e7891",
    "0010_conditions.py": "a67aba22b09211e26f76a197f5171a7ccc2657e360b43fba72d65f42b262575b",
    "0005_commit_marks.py": "094ec911481c1f873b7338c6b1e02b6521345b8d6eee5490ce1446ad68c8ebaf",
    "0011_erasure.py": "39390e6073a9338e8e5369f73075447486d1ac2fdd064eb3200983299d9d43dd",
    "0012_guards_by_index.py": "f210a4278092bfb939de1fc67bc26e750c65008164240e315079348ec84f29f2",
    "0013_questions.py": "d5ed7292247b5823acdee6e0661bba4cdd844b6f06159608dbc49e2e4136b0b7",
    "0014_sender_checks.py": "fc1b4f473319d40ade3ab38447c7446251a8ac08058590b74338b889020f6bd0",
    "0015_words.py": "9ac97f424b683427824fc35e9dfce31c9aede417d8a079813bfd8e5d47e9f267",
    "0016_reports_by_number.py": "81a1c6441979ee669feba6c88af18e084eb73204cbdc88d24194b3122957064e",
    "0017_time_of_opt_outs.py": "c8655f935acf17345e714cbd85bfb448ccf779e0d5767d6053a90a918ea26c67",
}

COMPARED = {
    "compare_type": True, "compare_server_default": True,
    # What finds words is made where the server can.
    "include_name": lambda name, _kind, _of: not str(name).startswith(("sms_words_index", "ix_sms_words")),
}  # fmt: skip

HEAD = migrate.head()
LATER = f"{int(HEAD) + 1:04}"
NEXT_MIGRATION = f'''"""A later step of the schema, for tests."""

import sqlalchemy as sa
from alembic import op

revision = "{LATER}"
down_revision = "{HEAD}"


def upgrade() -> None:
    """Add a column to an append-only table the hard way, as batch mode does."""
    with op.batch_alter_table("arrivals", recreate="auto") as arrivals:
        arrivals.add_column(sa.Column("later", sa.Text()))
        arrivals.create_check_constraint("later", "later <> 'x'")
'''


@pytest.fixture
def next_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows one migration more."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / f"{LATER}_later.py").write_text(NEXT_MIGRATION)
    monkeypatch.setattr(migrate, "migrations_folder", lambda: folder)


def assert_whole(engine: Engine) -> None:
    """Triggers and views are all there, and they work."""
    assert not [one for one in differences(engine) if one.name.startswith(("trigger ", "view "))]
    for view in views.NAMES:
        number_of(engine, view)


def assert_exactly_the_tables(engine: Engine) -> None:
    """Alembic finds nothing to change between the archive and the program's tables."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=COMPARED)
        # Comments are written from `comments` alone, and have a test of their own.
        found = [one for one in compare_metadata(context, metadata) if "comment" not in str(one)]
        assert found == []


def test_migrations_make_exactly_the_tables_of_the_program(archive_engine: Engine) -> None:
    """What Alembic would still change between migrations and metadata is nothing; views do not count."""
    assert_whole(archive_engine)
    assert_exactly_the_tables(archive_engine)


def test_a_revision_that_landed_never_changes() -> None:
    """0001 was edited in place three times, and archives that had taken it took no SMS any more."""
    folder = migrate.migrations_folder() / "versions"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.py")}
    assert found == FROZEN


def test_an_empty_database_gets_the_schema_once(archive_url: str) -> None:
    """The first start makes it, the second finds it; both know where they stand."""
    with opened(archive_url) as engine:
        assert migrate.current(engine) is None
        migrate.ensure_schema(engine, auto_upgrade=True)
        assert migrate.current(engine) == migrate.head()
        key = bytes(one(engine, "SELECT secret FROM archive_key"))
        migrate.ensure_schema(engine, auto_upgrade=False)
        assert bytes(one(engine, "SELECT secret FROM archive_key")) == key
        assert all(revision.applied for revision in migrate.history(engine))
        assert_whole(engine)


def test_three_processes_at_once_all_succeed(archive_url: str) -> None:
    """However many copies start on an empty database, one migrates and all go on."""
    command = [sys.executable, "-c", ENSURE, archive_url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    results = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [code for _, code in results] == [0, 0, 0], results
    with opened(archive_url) as engine:
        assert number_of(engine, "archive_key") == number_of(engine, "alembic_version") == 1
        assert_whole(engine)


def test_alembic_is_not_loaded_when_the_schema_is_current(sqlite_url: str) -> None:
    """The daemon and small imports start without it."""
    subprocess.run([sys.executable, "-c", ENSURE, sqlite_url], check=True, capture_output=True)
    proof = ENSURE + "\nassert 'alembic' not in sys.modules, 'alembic was loaded'"
    subprocess.run([sys.executable, "-c", proof, sqlite_url], check=True, capture_output=True)


def test_a_later_migration_keeps_rows_triggers_and_views(archive_engine: Engine, next_schema: None) -> None:
    """Batch mode loses triggers and trips over views: both are there again after it, and all rows."""
    Store(archive_engine).write([Submission(None, (item(1), broken(2)))], NOW)
    migrate.upgrade(archive_engine)
    assert migrate.current(archive_engine) == LATER
    assert_whole(archive_engine)
    assert number_of(archive_engine, "inbound_sms") == number_of(archive_engine, "quarantine") == 1
    assert rows(archive_engine, "SELECT later FROM arrivals") == [(None,), (None,)]


def test_an_older_sqlite_archive_is_copied_before_it_is_migrated(
    sqlite_engine: Engine, next_schema: None
) -> None:
    """The copy has the old schema, all rows (those in the WAL too) and the same file mode."""
    Store(sqlite_engine).write([Submission(None, (item(1),))], NOW)
    path = sqlite_path(sqlite_engine.url)
    assert path is not None
    path.chmod(0o640)
    migrate.upgrade(sqlite_engine)
    copy = path.with_name(f"{path.name}.{HEAD}.bak")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM inbound_sms").fetchone() == (1,)
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640


def test_the_copy_is_for_nobody_else_while_it_is_made(
    sqlite_engine: Engine, next_schema: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds all content and the key: until it gets the archive's mode only its owner may open it."""
    modes: list[int] = []
    backup = sqlite3.connect

    def connect(path: Path, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = backup(path, *args, **kwargs)
        if str(path).endswith(".bak"):
            connection.execute("PRAGMA user_version = 1")
            modes.append(stat.S_IMODE(Path(path).stat().st_mode))
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    migrate.upgrade(sqlite_engine)
    assert modes == [0o600]


def test_a_migration_that_fails_leaves_everything_as_it_was(
    archive_engine: Engine, next_schema: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a migration does not exist: tables, triggers, views and revision stay."""
    version = migrate.migrations_folder() / "versions" / f"{LATER}_later.py"
    version.write_text(NEXT_MIGRATION + "    raise RuntimeError('in the middle')\n")
    with pytest.raises(UpgradeFailed, match=f"from schema {HEAD} to {LATER} .RuntimeError.") as caught:
        migrate.upgrade(archive_engine)
    assert "in the middle" not in str(caught.value)  # whatever a driver says there may be somebody's text
    assert migrate.current(archive_engine) == HEAD
    assert_whole(archive_engine)
    assert_exactly_the_tables(archive_engine)


def test_tables_of_no_known_schema_are_left_alone(archive_engine: Engine) -> None:
    """Where nothing says which revision the tables are of, none is guessed at."""
    with writing(archive_engine) as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
    with pytest.raises(UpgradeFailed, match="could not be brought from schema none"):
        migrate.ensure_schema(archive_engine, auto_upgrade=True)
    assert_whole(archive_engine)


def test_a_schema_of_another_kind_is_no_newer_one(archive_engine: Engine) -> None:
    """Only a number above all that are known is newer; anything else is said to be unknown."""
    with writing(archive_engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(UpgradeFailed, match="does not know; restore it from a copy"):
        migrate.ensure_schema(archive_engine, auto_upgrade=True)


def test_a_disk_without_room_for_the_copy_is_said_before_anything_is_written(
    sqlite_engine: Engine, next_schema: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with what it takes and what is free; it may be tried again when there is room."""
    path = sqlite_path(sqlite_engine.url)
    assert path is not None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ArchiveUnavailable, match=r"a copy takes .* MB.* 0 MB are free; make room in"):
        migrate.upgrade(sqlite_engine)
    assert migrate.current(sqlite_engine) == HEAD
    assert not list(path.parent.glob("*.bak"))


def test_a_long_copy_tells_how_far_it_is(
    sqlite_engine: Engine, next_schema: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line every few seconds: nobody takes a large archive's upgrade for a program that hangs."""
    monkeypatch.setattr(migrate, "_PAGES_A_STEP", 1)
    monkeypatch.setattr(migrate, "_SECONDS_BETWEEN_LINES", 0)
    with structlog.testing.capture_logs() as logged:
        migrate.upgrade(sqlite_engine)
    told = [line["done"] for line in logged if line["event"] == "the archive is being copied"]
    assert len(told) > 10
    assert told[-1] == "100 %"


def test_a_newer_schema_is_refused(archive_engine: Engine) -> None:
    """An older program never touches a newer archive; the exit code is that of wrong usage."""
    with writing(archive_engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for auto_upgrade in (True, False):
        with pytest.raises(SchemaNewer, match="newer than this program") as caught:
            migrate.ensure_schema(archive_engine, auto_upgrade=auto_upgrade)
        assert caught.value.exit_code == 2


def test_without_auto_upgrade_the_command_is_named(archive_url: str) -> None:
    """An archive that is not current is refused with the exact command, and nothing is made."""
    shown = archive_url.replace("app@", "OWNER@")
    with opened(archive_url) as engine:
        with pytest.raises(SchemaMismatch, match=re.escape(f"ingestor --database-url {shown} db upgrade")):
            migrate.ensure_schema(engine, auto_upgrade=False)
        assert migrate.current(engine) is None


def test_a_role_without_ddl_rights_gets_the_command(
    postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    """PostgreSQL refuses CREATE to a plain role: the message has the owner's command, but no password."""
    postgresql_server.sql("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'hunter2'")
    command = re.escape(f"ingestor --database-url {postgresql_url.replace('app@', 'OWNER@')} db upgrade")
    with opened(postgresql_url.replace("app@", "plain:hunter2@")) as engine:
        with pytest.raises(SchemaMismatch, match=command) as caught:
            migrate.ensure_schema(engine, auto_upgrade=True)
        assert "hunter2" not in str(caught.value)


def test_postgresql_that_is_not_there_can_be_waited_for() -> None:
    """A server that does not answer is a retryable fault that names the place, never a password."""
    with opened("postgresql+psycopg://app:hunter2@127.0.0.1:1/archive") as engine:
        with pytest.raises(ArchiveUnavailable, match=r"127\.0\.0\.1:1") as caught:
            migrate.ensure_schema(engine, auto_upgrade=True)
        assert caught.value.retry
        assert "hunter2" not in str(caught.value)


def test_rights_that_an_owner_granted_on_views_survive_a_migration(
    postgresql_server: PostgresqlServer, postgresql_engine: Engine, next_schema: None
) -> None:
    """Views are made anew by each migration; the auditor can still read them afterwards."""
    postgresql_server.sql('DROP ROLE IF EXISTS "Odd Auditor"; CREATE ROLE "Odd Auditor"')
    with writing(postgresql_engine) as connection:
        connection.exec_driver_sql('GRANT SELECT ON inbound_sms TO "Odd Auditor"')
    before = "SELECT relacl::text FROM pg_class WHERE relname = 'inbound_sms'"
    granted = one(postgresql_engine, before)
    migrate.upgrade(postgresql_engine)
    assert one(postgresql_engine, before) == granted
