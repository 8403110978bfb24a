"""The URL of a PostgreSQL archive: which options it may have, and what a message calls the server."""

from unittest.mock import MagicMock

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine, reading, writing
from ingestor.archive.faults import place
from ingestor.archive.inserts import sms_by_fingerprint
from ingestor.archive.intact import differences
from ingestor.archive.items import Submission
from ingestor.archive.migrate import ensure_schema, upgrade_command
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable, ConfigurationError, UpgradeFailed
from ingestor.providers.contract import Readable
from ingestor.record import Outcome
from ingestor.service.checks.archive import check
from ingestor.settings import Settings
from tests.archive.reading import number_of, one, opened
from tests.archive.samples import NOW, PARSER, broken, item, sms
from tests.servers.postgresql import PostgresqlServer
from tests.waiting import until

CLOSED = "postgresql+psycopg://app@127.0.0.1:1/archive"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("prepare_threshold=0", "prepares no statement"),
        ("prepare_threshold=5", "prepares no statement"),
        ("autocommit=1", "begins its transactions itself"),
        ("client_encoding=latin1", "UTF-8"),
        ("sslmod=require", "did you mean sslmode"),
        ("plugin=x", "knows no option 'plugin'"),
        ("sslmode=disable&sslmode=require", "given twice"),
        ("host=a&host=b:2&port=1,2,3", "multihost"),
        ("sslmode=bogus", "invalid sslmode value"),
        ("connect_timeout=soon", "bad value for connect_timeout"),
        ("target_session_attrs=any-thing", "invalid target_session_attrs value"),
    ],
)
@pytest.mark.postgresql
def test_an_option_that_means_nothing_is_refused_in_one_line(options: str, why: str) -> None:
    """No traceback, and no waiting for a server that could never be reached this way."""
    with pytest.raises(ConfigurationError, match=why) as refused, reading(open_engine(f"{CLOSED}?{options}")):
        pass
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://a@h1:5432,h2:5432/archive", "postgresql://a@h:port/archive"])
def test_a_port_that_is_no_number_is_refused_with_how_hosts_are_written(url: str) -> None:
    """libpq's own form of several hosts is none that the program reads; it shows the one that is."""
    with pytest.raises(ConfigurationError, match=r"\?host=first:5432&host=second:5432"):
        open_engine(url)


@pytest.mark.postgresql
def test_options_of_libpq_reach_the_server(postgresql_engine: Engine) -> None:
    """Names, time limits and settings of the URL are those of the session."""
    url = postgresql_engine.url.render_as_string(hide_password=False)
    options = "application_name=desk&connect_timeout=3&options=-c%20geqo%3Doff&prepare_threshold=none"
    with opened(f"{url}?{options}") as engine:
        assert one(engine, "SHOW application_name") == "desk"
        assert one(engine, "SHOW geqo") == "off"


@pytest.mark.postgresql
@pytest.mark.parametrize("form", ["host=127.0.0.1:1&host=127.0.0.1:{}", "host=127.0.0.1,127.0.0.1&port=1,{}"])
def test_a_message_names_the_host(postgresql_server: PostgresqlServer, form: str) -> None:
    """All that will be tried, or the one that is connected to: never a local socket that nobody asked for."""
    several = f"postgresql+psycopg://app@/postgres?{form.format(postgresql_server.port)}"
    with opened(several) as engine:
        assert place(engine).startswith(f"PostgreSQL at 127.0.0.1:1 or 127.0.0.1:{postgresql_server.port},")
        assert one(engine, "SELECT 1") == 1
        assert place(engine).startswith(f"PostgreSQL at 127.0.0.1:{postgresql_server.port},")
    with (
        opened(f"postgresql+psycopg://app@/x?{form.format(2)}") as engine,
        pytest.raises(ArchiveUnavailable, match=r"127\.0\.0\.1:1 or 127\.0\.0\.1:2"),
        reading(engine),
    ):
        pass


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("level", "then"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_a_commit_waits_for_the_disk_whatever_the_role_has(
    postgresql_engine: Engine, level: str, then: str
) -> None:
    """`local` and `remote_write` acknowledge before a standby has it; what waits for more stays."""
    database = postgresql_engine.url.database
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {database} SET synchronous_commit = {level}")
    postgresql_engine.dispose()
    assert one(postgresql_engine, "SHOW synchronous_commit") == then


def test_the_command_to_upgrade_names_every_host() -> None:
    """It is typed as it stands: with the hosts of the URL, and without anything secret in it."""
    engine = open_engine("postgresql+psycopg://app:secret@/archive?host=a:1&host=b:2&sslpassword=s")
    assert "OWNER@/archive?host=a%3A1&host=b%3A2 db upgrade" in upgrade_command(engine)


@pytest.mark.postgresql
def test_a_connection_that_the_server_has_ended_is_replaced(
    postgresql_engine: Engine, postgresql_server: PostgresqlServer
) -> None:
    """A restart, or a person, ends what lies in the pool; the next transaction hears nothing of it."""
    of_ours = f"FROM pg_stat_activity WHERE datname = '{postgresql_engine.url.database}'"
    assert number_of(postgresql_engine, "sms") == 0

    postgresql_server.sql(f"SELECT pg_terminate_backend(pid) {of_ours}")
    until(lambda: postgresql_server.sql(f"SELECT count(*) {of_ours}").strip() == "0")

    assert number_of(postgresql_engine, "sms") == 0


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "setting",
    [
        "datestyle = 'German, DMY'", "datestyle = 'SQL, MDY'", "array_nulls = off",
        "standard_conforming_strings = off", "quote_all_identifiers = on", "bytea_output = 'escape'",
        "transform_null_equals = on", "session_replication_role = replica",
        "default_transaction_isolation = 'serializable'",
    ],
)  # fmt: skip
def test_an_archive_is_made_filled_read_and_compared_whatever_the_database_sets(
    postgresql_url: str, setting: str
) -> None:
    """What a role, a database or the server sets for others changes nothing of ours."""
    name = postgresql_url.rpartition("/")[2]
    with opened(postgresql_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting}")
    with opened(postgresql_url) as engine:
        ensure_schema(engine, auto_upgrade=True)
        run = begin_run(engine, "import", {}, NOW)
        work = [Submission(run, (item(1, reading=Readable(sms(1, text="a\\b'c"), PARSER)), broken(2)))]
        assert Store(engine).write(work, NOW)[0].outcomes == (Outcome.STORED, Outcome.QUARANTINED)
        assert Store(engine).write(work, NOW)[0].outcomes == (Outcome.DUPLICATE, Outcome.QUARANTINED)
        assert one(engine, "SELECT text FROM inbound_sms") == "a\\b'c"
        assert one(engine, "SELECT ingested_at FROM inbound_sms") == NOW
        assert differences(engine) == []


@pytest.mark.postgresql
def test_an_archive_out_of_sight_is_not_begun_anew(postgresql_url: str) -> None:
    """The line said `ingestor db upgrade`, which made an empty archive beside it; `check` ended with 0."""
    name = postgresql_url.rpartition("/")[2]
    with opened(postgresql_url) as engine:
        ensure_schema(engine, auto_upgrade=True)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA elsewhere")
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = 'elsewhere'")
    with opened(postgresql_url) as engine:
        with pytest.raises(UpgradeFailed, match="stands in the schema public, where this role does not look"):
            ensure_schema(engine, auto_upgrade=True)
        settings = Settings.model_validate({"database": {"url": postgresql_url}})
        assert [one.fix for one in check(settings, False) if one.subject == "schema"] == [
            "ALTER ROLE … SET search_path = public (or RESET it), and GRANT USAGE ON SCHEMA public"
        ]


@pytest.mark.postgresql
def test_a_search_path_without_a_schema_is_named(postgresql_url: str) -> None:
    """Nothing can be made there, and the line says why; nobody is sent to a copy or to report a fault."""
    name = postgresql_url.rpartition("/")[2]
    with opened(postgresql_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = 'none'")
    with opened(postgresql_url) as engine, pytest.raises(ArchiveUnavailable, match="search_path"):
        ensure_schema(engine, auto_upgrade=True)


@pytest.mark.postgresql
@pytest.mark.parametrize("when", ["before the transaction", "in it"])
def test_a_connection_that_breaks_is_one_line_and_no_traceback(
    postgresql_engine: Engine, postgresql_server: PostgresqlServer, when: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Also where a statement goes past SQLAlchemy, whose pool logs each connection that comes back broken."""
    engine, keys = postgresql_engine, [bytes(38)]
    monkeypatch.setattr("ingestor.archive.engine.select.poll", lambda: MagicMock(poll=lambda _: []))
    with reading(engine):
        pass
    if when == "in it":
        with pytest.raises(ArchiveUnavailable), writing(engine) as connection:  # noqa: PT012 - ends midway
            postgresql_server.terminate_clients()
            sms_by_fingerprint(connection, keys)
    else:
        postgresql_server.terminate_clients()
        with pytest.raises(ArchiveUnavailable), reading(engine):
            pass
    assert caplog.records == []
