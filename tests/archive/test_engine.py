"""Connections, and driver errors in words."""

import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, Executable, exc, insert, table, text

from ingestor.archive.engine import bulk_import_settings, open_engine, reading, sqlite_path, writing
from ingestor.archive.erasure import vacuum
from ingestor.archive.faults import translate
from ingestor.archive.items import Action, CursorMove, Pending, Submission
from ingestor.archive.mailbox_state import (
    note_failure,
    note_source,
    pending_work,
    read_cursor,
    read_sources,
    reset_cursor,
)  # fmt: skip
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.payloads import compress, pack, unpack
from ingestor.archive.runs import begin_input, begin_run, end_run, find_run, inputs, last_runs
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError, SchemaMismatch
from tests.archive.reading import one, opened
from tests.archive.samples import NOW, item
from tests.servers.postgresql import PostgresqlServer


def test_sqlite_is_set_up_for_durability(sqlite_engine: Engine) -> None:
    """WAL, FULL, foreign keys: what the promises rest on."""
    assert one(sqlite_engine, "PRAGMA journal_mode") == "wal"
    assert one(sqlite_engine, "PRAGMA synchronous") == 2
    assert one(sqlite_engine, "PRAGMA foreign_keys") == 1


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELECT x FROM sms"])
def test_what_the_driver_itself_raises_is_put_into_words_too(archive_engine: Engine, statement: str) -> None:
    """VACUUM, the index of words and copies bypass SQLAlchemy: a full disk was an internal fault there."""
    with pytest.raises(SchemaMismatch, match="lacks the tables"), writing(archive_engine) as connection:
        connection.connection.dbapi_connection.execute(statement)  # type: ignore[union-attr]  # both have it


def test_a_vacuum_without_room_says_so(small_disk: Path) -> None:
    """It takes as much as the archive: the line says which disk is full, and the archive is as it was."""
    with opened(f"sqlite:///{small_disk}/archive.db") as engine:
        ensure_schema(engine, auto_upgrade=True)
        (small_disk / "fill").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
        with pytest.raises(ArchiveUnavailable, match="is full"):
            vacuum(engine)
        assert one(engine, "PRAGMA integrity_check") == "ok"


def test_no_room_for_a_wal_is_said_as_no_room(small_disk: Path) -> None:
    """SQLite is "unable to open database file" then, which sounded as if somebody lacked a right."""
    url = f"sqlite:///{small_disk}/archive.db"
    with opened(url) as engine:
        ensure_schema(engine, auto_upgrade=True)
    (small_disk / "fill").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    with (
        opened(url) as engine,
        pytest.raises(ArchiveUnavailable, match=r"cannot be written \(No space left on device\); make room"),
        writing(engine),
    ):
        pass


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_the_file_that_may_not_be_written_is_the_one_named(
    ending: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A -wal that root left had people look at the rights of the archive and of its folder."""
    with opened(sqlite_url) as engine:
        ensure_schema(engine, auto_upgrade=True)
        closed = Path(f"{sqlite_path(sqlite_url)}{ending}")
        monkeypatch.setattr("os.access", lambda path, _how: Path(path) != closed)
        fault = sqlite3.OperationalError("unable to open database file")
        fault.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        said = str(translate(engine, exc.OperationalError("", None, fault)))
    assert said.startswith(f"{closed} may not be written by this user; ")
    assert said.endswith(f" {closed}")


def test_a_limit_of_a_files_size_is_said_as_one(sqlite_url: str, tmp_path: Path) -> None:
    """It is a "disk I/O error" to SQLite: whoever looked at the disk found room. Backup and snapshot, too."""
    with opened(sqlite_url) as engine:
        ensure_schema(engine, auto_upgrade=True)
    for words, says in (
        (
            ["optout", "add", "+393351234567", "--reason", "x"],
            "(File too large); raise the limit of a file's size (ulimit -f",
        ),
        (["backup", str(tmp_path)], "(File too large)"),
        (["snapshot", str(tmp_path / "snapshot.db")], "could not be written (File too large)"),
    ):
        called = subprocess.run(
            [sys.executable, "-m", "ingestor", "--database-url", sqlite_url, *words],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert called.returncode == 1
        assert says in called.stderr
    assert not list(tmp_path.glob("*.probe"))


def test_sqlite_is_given_null_and_bytes_as_they_are(sqlite_engine: Engine) -> None:
    """Each has an adapter, without which it costs an exception, and comes back unchanged."""
    assert {
        (type(None), sqlite3.PrepareProtocol),
        (bytes, sqlite3.PrepareProtocol),
    } <= sqlite3.adapters.keys()
    given = (None, b"", b"\0\xff", b"x" * 70000)
    with reading(sqlite_engine) as connection:
        found = connection.exec_driver_sql("SELECT ?1, ?2, ?3, ?4, typeof(?1), typeof(?2)", given).one()
    assert found == (*given, "null", "blob")


def test_postgresql_commits_durably_whatever_its_default(postgresql_engine: Engine) -> None:
    """What a server or role has by default makes us lose nothing that we acknowledged, nor wait for JIT."""
    with writing(postgresql_engine) as connection:
        name = postgresql_engine.url.database
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
        connection.exec_driver_sql(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
        )
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET jit = on")
    postgresql_engine.dispose()
    assert one(postgresql_engine, "SHOW synchronous_commit") == "on"
    assert one(postgresql_engine, "SHOW transaction_isolation") == "read committed"
    assert one(postgresql_engine, "SHOW jit") == "off"
    assert one(postgresql_engine, "SHOW timezone") == "UTC"


def test_a_new_archive_is_not_for_everybody_to_read(tmp_path: Path) -> None:
    """The file holds personal content: others get nothing."""
    path = tmp_path / "odd name?%20#.db"
    engine = open_engine("sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F"))
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE x (id INTEGER)")
    engine.dispose()
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_a_reader_writes_nothing_and_makes_nothing(archive_engine: Engine, tmp_path: Path) -> None:
    """A read-only engine cannot write, and does not make the file it does not find."""
    Store(archive_engine).write([Submission(None, (item(1),))], NOW)
    engine = open_engine(archive_engine.url.render_as_string(hide_password=False), read_only=True)
    assert one(engine, "SELECT count(*) FROM inbound_sms") == 1
    with pytest.raises(ArchiveUnavailable), writing(engine) as connection:
        connection.exec_driver_sql("DELETE FROM pending")
    engine.dispose()
    missing = open_engine(f"sqlite:///{tmp_path / 'none.db'}", read_only=True)
    with pytest.raises(ArchiveUnavailable, match=r"none\.db"), reading(missing):
        pass
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "url",
    ["mysql://x/y", "nonsense", "sqlite://", "sqlite:///:memory:", "sqlite:////no/such/folder/archive.db"],
)
def test_a_url_that_is_none_of_ours_is_refused_in_words(url: str) -> None:
    """Wrong configuration is told from a database that is away."""
    with pytest.raises(ConfigurationError):
        open_engine(url)


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    """Damage is no reason to try again for ever."""
    path = tmp_path / "archive.db"
    path.write_bytes(b"this is no database" * 100)
    with opened(f"sqlite:///{path}") as engine:
        with pytest.raises(IngestorError, match="damaged or no SQLite database") as caught, reading(engine):
            pass
        assert not caught.value.retry


def test_an_archive_without_tables_names_the_command(archive_url: str) -> None:
    """Reading an empty database says how to make the schema."""
    with opened(archive_url) as engine, pytest.raises(SchemaMismatch, match="db upgrade"):
        last_runs(engine)


def test_a_role_without_rights_is_no_reason_to_retry(postgresql_engine: Engine) -> None:
    """A missing GRANT is a matter of configuration."""
    look = "DO $$ BEGIN SET LOCAL ROLE pg_monitor; PERFORM secret FROM archive_key; END $$"
    with pytest.raises(ConfigurationError), writing(postgresql_engine) as connection:
        connection.exec_driver_sql(look)


def test_a_database_that_is_locked_is_unavailable(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that outlasts the busy timeout is a retryable fault."""
    monkeypatch.setattr("ingestor.archive.engine.BUSY_SECONDS", 0.05)
    path = str(sqlite_engine.url.database)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveUnavailable, match="locked"), writing(sqlite_engine):
            pass
        assert one(sqlite_engine, "SELECT count(*) FROM sms") == 0


@pytest.mark.parametrize("statement", [insert(table("sms")).values(nowhere=1), text("SELEKT 1")])
def test_a_fault_of_the_program_is_no_outage(archive_engine: Engine, statement: Executable) -> None:
    """What waiting cannot mend is not called unavailable: it would be tried again for ever."""
    with pytest.raises(exc.SQLAlchemyError), writing(archive_engine) as connection:
        connection.execute(statement)


@pytest.mark.parametrize("kind", [exc.TimeoutError, exc.PendingRollbackError, exc.ResourceClosedError])
def test_a_pool_in_trouble_is_an_outage(sqlite_engine: Engine, kind: type[exc.SQLAlchemyError]) -> None:
    """No free connection, or one that was found dead, passes by itself."""
    with pytest.raises(ArchiveUnavailable, match=kind.__name__), writing(sqlite_engine):
        raise kind("gone")


def test_a_writer_gets_its_turn_between_two_transactions_of_an_import(sqlite_engine: Engine) -> None:
    """Whoever writes in long transactions and leaves short gaps keeps nobody out for several of them."""
    done, inside = threading.Event(), threading.Event()
    turns = [0]

    def importing() -> None:
        with closing(sqlite3.connect(str(sqlite_engine.url.database), isolation_level=None)) as connection:
            while not done.is_set():
                connection.execute("BEGIN IMMEDIATE")
                inside.set()
                time.sleep(0.12)
                inside.clear()
                connection.execute("COMMIT")
                turns[0] += 1
                time.sleep(0.02)

    other = threading.Thread(target=importing)
    other.start()
    waits = []
    try:
        for number in range(25):
            assert inside.wait(30)
            time.sleep(number * 0.004)
            before = turns[0]
            with writing(sqlite_engine):
                waits.append(turns[0] - before)
    finally:
        done.set()
        other.join()
    assert sorted(waits)[-2] <= 3, waits  # one may be that of a thread that stood still


def test_bulk_settings_end_with_the_import(sqlite_engine: Engine) -> None:
    """Large checkpoints and cache are for the import alone."""
    with bulk_import_settings(sqlite_engine):
        assert one(sqlite_engine, "PRAGMA wal_autocheckpoint") == 16384
        assert one(sqlite_engine, "PRAGMA cache_size") == -65536
    assert one(sqlite_engine, "PRAGMA wal_autocheckpoint") == 1000
    assert one(sqlite_engine, "PRAGMA cache_size") == -4096


def test_the_caches_of_a_daemon_stay_small(sqlite_engine: Engine) -> None:
    """Each of its connections may fill its own over the days, and a long read has more."""
    assert one(sqlite_engine, "PRAGMA cache_size") == -4096
    with opened(str(sqlite_engine.url), read_only=True) as reader:
        assert one(reader, "PRAGMA cache_size") == -16384


def test_sqlite_is_written_by_one_connection_while_one_is_enough(sqlite_engine: Engine) -> None:
    """What was given back last is taken first: what it has read still holds, and few caches grow."""
    with reading(sqlite_engine), reading(sqlite_engine), reading(sqlite_engine):
        pass
    used = set()
    for _ in range(5):
        with writing(sqlite_engine) as connection:
            used.add(id(connection.connection.dbapi_connection))
    assert len(used) == 1


def test_payloads_come_back_to_the_byte() -> None:
    """With and without a dictionary; damage and a missing dictionary are errors, not wrong bytes."""
    raw = b"Subject: hello\r\n\r\n" + bytes(range(256))
    packed = pack(raw, "message/rfc822")
    assert packed.compressed is not None
    assert unpack(packed.compressed) == raw
    dictionary = (3, raw * 4)
    small = compress(raw, dictionary)
    assert unpack(small, 3, {3: raw * 4}) == raw
    with pytest.raises(ValueError, match="missing"):
        unpack(small, 3, {})
    with pytest.raises(ValueError, match="damaged"):
        unpack(b"no zstd at all")
    assert unpack(compress(b"")) == b""


def test_runs_and_inputs_are_found_again(archive_engine: Engine) -> None:
    """A run has its options, version and end; an input is the same row when it is begun again."""
    first = begin_run(archive_engine, "import", {"paths": ["b", "a"], "jobs": 2}, NOW)
    second = begin_run(archive_engine, "run", {}, NOW)
    end_run(archive_engine, first, NOW)
    run = find_run(archive_engine, first)
    assert (run.command, run.options["jobs"], run.started_at, run.ended_at) == ("import", 2, NOW, NOW)
    assert run.version
    assert [entry.id for entry in last_runs(archive_engine)] == [second, first]
    assert find_run(archive_engine, second).ended_at is None
    with pytest.raises(LookupError):
        find_run(archive_engine, 999)
    one_input = begin_input(archive_engine, first, "/a", None)
    member = begin_input(archive_engine, first, "/a", "inner.mbox")
    strange = begin_input(archive_engine, first, "/mail/\udcff.mbox", None)
    assert begin_input(archive_engine, first, "/a", None) == one_input != member
    assert [entry.path for entry in inputs(archive_engine, first)] == ["/a", "/a", "/mail/\\xff.mbox"]
    assert [entry.id for entry in inputs(archive_engine, first)] == [one_input, member, strange]


def test_pending_work_counts_its_failures(archive_engine: Engine) -> None:
    """Each failed attempt is counted with its reason until the work is done or dropped."""
    work = [Pending("main", "INBOX", 7, uid, Action.FETCH) for uid in (1, 2)]
    Store(archive_engine).write(
        [Submission(None, to_do=tuple(work)), Submission(None, to_do=(work[0],))], NOW
    )
    note_failure(archive_engine, work[1], "the server answered NO", NOW)
    note_failure(archive_engine, work[1], "again", NOW)
    found = pending_work(archive_engine, "main")
    assert [(entry.work, entry.attempts, entry.reason) for entry in found] == [
        (work[0], 0, None),
        (work[1], 2, "again"),
    ]
    Store(archive_engine).write([Submission(None, done=(work[0],))], NOW)
    assert [entry.work for entry in pending_work(archive_engine)] == [work[1]]


def test_a_cursor_can_be_reset(archive_engine: Engine) -> None:
    """A server that renumbered silently makes the folder be read from its beginning."""
    Store(archive_engine).write([Submission(None, cursor=CursorMove("main", "INBOX", 7, 50))], NOW)
    reset_cursor(archive_engine, "main", "INBOX")
    assert read_cursor(archive_engine, "main", "INBOX") is None


def test_sources_keep_their_last_success(archive_engine: Engine) -> None:
    """A failing source still says when it last worked."""
    note_source(archive_engine, "main", "mailbox", "watching", None, 60, NOW, success=True)
    later = NOW.replace(hour=18)
    note_source(archive_engine, "main", "mailbox", "unreachable", "no route", 60, later, success=False)
    (source,) = read_sources(archive_engine)
    assert (source.state, source.detail, source.last_success, source.updated_at) == (
        "unreachable",
        "no route",
        NOW,
        later,
    )


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_postgresql_database_that_cannot_hold_every_sms_is_refused(
    postgresql_server: PostgresqlServer, encoding: str, read_only: bool
) -> None:
    """In LATIN1 each emoji would send its SMS to the quarantine: the message has the command to run."""
    name = f"in_{encoding.lower()}_{'read' if read_only else 'write'}"
    options = f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    postgresql_server.sql(f"CREATE DATABASE {name} {options}")
    engine = open_engine(postgresql_server.url(name), read_only=read_only)
    with pytest.raises(ConfigurationError, match=f"{encoding}.*createdb --encoding UTF8"), reading(engine):
        pass
    engine.dispose()
