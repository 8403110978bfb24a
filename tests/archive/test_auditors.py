"""What an auditor gets: a snapshot that opens without any write access, or a role that sees views only."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive import queries, searching
from ingestor.archive.engine import open_engine, writing
from ingestor.archive.export import plain_row, snapshot
from ingestor.archive.items import Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.store import Store
from ingestor.errors import ConfigurationError, IngestorError, SchemaMismatch
from tests import readme
from tests.archive.reading import number_of, opened, rows, shown
from tests.archive.samples import NOW, broken, item
from tests.servers.postgresql import PostgresqlServer

COUNT = "SELECT count(*) FROM inbound_sms"


@pytest.fixture
def filled(archive_engine: Engine) -> Engine:
    """An archive with two SMS, a quarantined mail, and a retry."""
    store = Store(archive_engine)
    store.write([Submission(None, (item(1), item(1, copy=1), broken(2), broken(3, raw=b"x")))], NOW)
    store.write([Submission(None, (item(2),))], NOW)
    return archive_engine


def test_a_snapshot_shows_the_same_and_lacks_the_key(filled: Engine, tmp_path: Path) -> None:
    """Views, evidence and raw bytes are those of the archive, on either database; the key is nowhere."""
    secret = Store(filled).archive_key()
    done = snapshot(filled, tmp_path / "copy.db", NOW)
    assert (done.sms, done.size) == (2, done.path.stat().st_size)
    copy = open_engine(f"sqlite:///{done.path}", read_only=True)
    for number in [row["id"] for row in searching.search(filled, searching.Filters())]:
        mine, theirs = queries.show(copy, number), queries.show(filled, number)
        assert mine is not None
        assert theirs is not None
        assert plain_row(mine.sms) == plain_row(theirs.sms)
        assert [plain_row(a) for a in mine.arrivals] == [plain_row(a) for a in theirs.arrivals]
        assert queries.raw_of_arrival(copy, number) == queries.raw_of_arrival(filled, number)
    assert [row["reason"] for row in queries.quarantine_list(copy)] == ["the label To is missing"]
    assert secret not in done.path.read_bytes()
    assert "archive_key" not in {name for (name,) in rows(copy, "SELECT name FROM sqlite_schema")}
    with pytest.raises(SchemaMismatch, match="snapshot"):
        Store(copy).archive_key()
    copy.dispose()


def test_a_snapshot_opens_with_no_write_access_anywhere(filled: Engine) -> None:
    """One file in a folder that its reader may not write: plain `mode=ro` is enough."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        folder = Path(place)
        done = snapshot(filled, folder / "copy.db", NOW)
        assert stat.S_IMODE(done.path.stat().st_mode) == 0o640
        done.path.chmod(0o444)
        assert [path.name for path in folder.iterdir()] == ["copy.db"]
        folder.chmod(0o555)
        uri = f"{done.path.as_uri()}?mode=ro"
        program = f"import sqlite3\nprint(*sqlite3.connect({uri!r}, uri=True).execute({COUNT!r}).fetchone())"
        # Root may write anywhere: then somebody else looks.
        stranger = (
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        )
        python = "/usr/bin/python3" if stranger else sys.executable
        found = subprocess.run([*stranger, python, "-c", program], capture_output=True, text=True)
        folder.chmod(0o755)
        assert found.stdout == "2\n", found.stderr


def test_a_snapshot_replaces_a_snapshot_and_nothing_else(filled: Engine, tmp_path: Path) -> None:
    """Neither the archive nor any other file is overwritten; an older snapshot is."""
    target = tmp_path / "copy.db"
    snapshot(filled, target, NOW)
    Store(filled).write([Submission(None, (item(9),))], NOW)
    assert snapshot(filled, target, NOW).sms == 3
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    places = [other, tmp_path / "no" / "folder.db"]
    if filled.dialect.name == "sqlite":
        places.append(tmp_path / "archive.db")
    for place in places:
        with pytest.raises(ConfigurationError):
            snapshot(filled, place, NOW)
    assert other.read_text() == "mine"


def test_a_snapshot_of_a_busy_archive_is_of_one_moment(archive_engine: Engine, tmp_path: Path) -> None:
    """Rows that are written meanwhile are in it whole or not at all."""
    store = Store(archive_engine)
    store.write([Submission(None, tuple(item(n) for n in range(300)))], NOW)
    with writing(archive_engine) as connection:
        connection.exec_driver_sql("UPDATE runs SET stored = stored")
        done = snapshot(archive_engine, tmp_path / "copy.db", NOW)
    with opened(f"sqlite:///{done.path}", read_only=True) as copy:
        for table in ("inbound_sms", "sms_content", "arrivals", "payloads"):
            assert number_of(copy, table) == 300


def test_the_auditors_role_reads_all_but_the_key_and_writes_nothing(
    postgresql_server: PostgresqlServer, postgresql_engine: Engine
) -> None:
    """The recipe works to the letter: views and tables readable, the key denied, no way to write."""
    Store(postgresql_engine).write([Submission(None, (item(1), broken(2)))], NOW)
    database = str(postgresql_engine.url.database)
    postgresql_server.sql("DROP ROLE IF EXISTS auditor")
    [recipe] = readme.blocks("auditor")
    postgresql_server.sql(recipe, database)
    with opened(postgresql_server.url(database, user="auditor")) as auditor:
        assert len(shown(auditor)) == 1
        assert number_of(auditor, "quarantine") == number_of(auditor, "sms_content") == 1
        for statement in (
            "SELECT * FROM archive_key",
            "DELETE FROM inbound_sms", "UPDATE runs SET command = ''", "CREATE TABLE mine (id int)",
            "INSERT INTO arrivals (id) VALUES (1)", "TRUNCATE runs",
        ):  # fmt: skip
            with pytest.raises(IngestorError, match=r"refuses|SQLSTATE 25006"):  # read-only by default
                rows(auditor, statement)
    postgresql_server.sql(
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM auditor; DROP OWNED BY auditor; DROP ROLE auditor",
        database,
    )


def test_a_service_without_ddl_rights_can_do_its_work(
    postgresql_server: PostgresqlServer, postgresql_engine: Engine
) -> None:
    """The recipe for a role that only writes rows: large and small batches, books, and no schema changes."""
    database = str(postgresql_engine.url.database)
    postgresql_server.sql("DROP ROLE IF EXISTS service")
    [recipe] = readme.blocks("service")
    postgresql_server.sql(recipe, database)
    with opened(postgresql_server.url(database, user="service")) as service:
        ensure_schema(service, auto_upgrade=True)
        store = Store(service)
        store.write([Submission(None, tuple(item(n) for n in range(100)))], NOW)
        store.write([Submission(None, (item(200), broken(201)))], NOW)
        assert number_of(service, "inbound_sms") == 101
        with pytest.raises(ConfigurationError):
            rows(service, "DROP TABLE sms")
    postgresql_server.sql("DROP OWNED BY service; DROP ROLE service", database)
