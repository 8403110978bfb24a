"""`ingestor check`: a line for each thing a start needs, the fix beside it, and nothing changed anywhere."""

import os
import shutil
import socket
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from ingestor.archive import migrate, triggers
from ingestor.archive.engine import open_engine, writing
from ingestor.archive.migrate import ensure_schema
from ingestor.errors import UpgradeFailed
from ingestor.intake.mailbox.context import Timing
from ingestor.service.checks import Finding, Level, intakes, machine, ok, together
from ingestor.service.checks.machine import check_everything
from ingestor.settings import Settings, Webhook, load
from tests.archive.reading import number_of, opened, spoil
from tests.archive.test_earlier_archives import put_back
from tests.sample_mails import generate
from tests.servers.imap.box import Box
from tests.servers.imap.server import CAPABILITIES, ImapServer
from tests.servers.postgresql import PostgresqlServer
from tests.service.process import configuration, mailbox, running

MAILS = list(generate(10, seed=91))


def _check(config: Path) -> tuple[int, list[str]]:
    """Return the exit code that `check` would have and its lines."""
    found = list(check_everything(load(config, None)))
    lines = [f"{one.level:<4}  {one.subject}: {one.says}; {one.fix}" for one in found]
    return int(any(one.level is Level.FAIL for one in found)), lines


def _upgrade(url: str) -> None:
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    engine.dispose()


def _about(lines: list[str], subject: str) -> list[str]:
    return [line for line in lines if f"  {subject}: " in line]


@pytest.fixture(autouse=True)
def _delivered(server: ImapServer) -> None:
    """A few mails lie in the mailbox."""
    for mail in MAILS:
        server.deliver(mail.raw)


def _password(tmp_path: Path) -> dict[str, object]:
    """Return keys that replace the inline password, which is a warning."""
    file = tmp_path / "password"
    file.write_text("demo\n")
    file.chmod(0o600)
    return {"password_file": str(file)}


def _sound(server: ImapServer, tmp_path: Path, **more: object) -> str:
    keys = {"port": server.port, **_password(tmp_path), **more}
    block = mailbox(int(str(keys.pop("port"))), **keys)
    return "\n".join(line for line in block.splitlines() if not line.startswith("password ="))


def test_all_is_well(server: ImapServer, tmp_path: Path, archive_url: str) -> None:
    """On a sound installation every line is ok and the exit code 0, before the first start and after it."""
    config = configuration(tmp_path, archive_url, _sound(server, tmp_path))
    before_code, before = _check(config)
    _upgrade(archive_url)
    after_code, after = _check(config)

    assert (before_code, after_code) == (0, 0), (before, after)
    assert [line for line in after if not line.startswith("ok ") and "superuser" not in line] == []
    assert "the next start" in " ".join(before) or "the first start" in " ".join(before)
    assert "folder INBOX: 10 mails" in " ".join(after)


def test_it_changes_nothing(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """No flag, no folder, no file: the mailbox and the disk are as before."""
    config = configuration(
        tmp_path, sqlite_url, _sound(server, tmp_path, after_store="move", move_to="Stored")
    )
    files = {path.name for path in tmp_path.iterdir()}
    server.commands.clear()
    _, lines = _check(config)

    assert {path.name for path in tmp_path.iterdir()} == files
    changing = {"SELECT", "UID STORE", "UID MOVE", "UID COPY", "CREATE", "APPEND", "EXPUNGE", "UID EXPUNGE"}
    assert changing.isdisjoint(server.commands)
    assert "EXAMINE" in server.commands
    assert any("no folder 'Stored'; the first move makes it" in line for line in lines)


def test_a_refused_login(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """A wrong password fails the check and is not tried twice, lest the account is locked."""
    server.password = "another"
    code, lines = _check(configuration(tmp_path, sqlite_url, _sound(server, tmp_path)))

    assert code == 1
    assert _about(lines, "mailbox main")[0].startswith("fail")
    assert server.commands.count("LOGIN") + server.commands.count("AUTHENTICATE") == 1


def test_a_missing_folder_names_the_near_ones(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """A misspelt folder fails, and the line says what it may have meant."""
    server.boxes["Agile-SMS"] = Box()
    code, lines = _check(
        configuration(tmp_path, sqlite_url, _sound(server, tmp_path, folders=["INBOX", "Agile-SMSs"]))
    )

    assert code == 1
    assert any(line.startswith("fail") and "Agile-SMS" in line for line in lines)
    assert any("folder INBOX: 10 mails" in line for line in lines)


def test_what_the_server_cannot_do(tmp_path: Path, sqlite_url: str) -> None:
    """Without IDLE, MOVE and UIDPLUS the lines say what that means for this configuration."""
    poor = tuple(name for name in CAPABILITIES if name not in {"IDLE", "MOVE", "UIDPLUS"})
    server = ImapServer(capabilities=poor)
    with server.running():
        config = configuration(
            tmp_path, sqlite_url, _sound(server, tmp_path, after_store="delete", poll_seconds=77)
        )
        code, lines = _check(config)

    assert code == 0
    assert any("no IDLE; mail is seen every 77 s" in line for line in lines)
    assert any("never expunged" in line for line in lines)


def test_a_silent_server_does_not_hang_it(
    server: ImapServer, tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers is a failed line; the others are checked all the same."""
    monkeypatch.setattr(intakes, "TIMING", Timing(connect=0.3, silence=0.3, command=1.0))
    server.faults.silent = True
    config = configuration(
        tmp_path, sqlite_url, _sound(server, tmp_path), _sound(server, tmp_path, name="other", port=9)
    )
    code, lines = _check(config)

    assert code == 1
    assert _about(lines, "mailbox main")[0].startswith("fail")
    assert _about(lines, "mailbox other")[0].startswith("fail")


def test_databases_that_will_not_do(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """A missing folder, a newer schema and a file that is no database are told apart."""
    block = _sound(server, tmp_path)
    code, lines = _check(configuration(tmp_path, f"sqlite:///{tmp_path}/nowhere/archive.db", block))
    assert code == 1
    assert sum("install -d" in line for line in lines) == 1

    config = configuration(tmp_path, sqlite_url, block)
    _upgrade(sqlite_url)
    with closing(sqlite3.connect(tmp_path / "archive.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    code, lines = _check(config)
    assert code == 1
    assert any("newer than this program" in line for line in _about(lines, "schema"))

    (tmp_path / "archive.db").write_bytes(b"something else" * 1000)
    code, lines = _check(config)
    assert code == 1
    assert _about(lines, "database")[0].startswith("fail")


def test_an_archive_that_takes_no_sms(server: ImapServer, tmp_path: Path, archive_url: str) -> None:
    """A wrong constraint, missing triggers and tables of no known schema each fail, with what to do."""
    config = configuration(tmp_path, archive_url, _sound(server, tmp_path))
    _upgrade(archive_url)
    with opened(archive_url) as engine:
        rows_before = number_of(engine, "arrivals"), number_of(engine, "sms")
        spoil(engine)
        code, lines = _check(config)
        assert code == 1
        assert any(
            "it refuses every SMS" in line and "check" in line.lower() for line in _about(lines, "database")
        )
        assert (number_of(engine, "arrivals"), number_of(engine, "sms")) == rows_before
        with writing(engine) as connection:
            triggers.drop(connection)
        code, lines = _check(config)
        assert code == 1
        assert any("trigger" in line and "db repair" in line for line in _about(lines, "archive"))
        with writing(engine) as connection:
            connection.exec_driver_sql("DELETE FROM alembic_version")
        code, lines = _check(config)
        assert code == 1
        assert any("restore the archive" in line for line in _about(lines, "schema"))


def test_a_snapshot_is_no_archive(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """It has no key, so it takes nothing: `check` names it for what it is."""
    config = configuration(tmp_path, sqlite_url, _sound(server, tmp_path))
    _upgrade(sqlite_url)
    with opened(sqlite_url) as engine, writing(engine) as connection:
        triggers.drop(connection)
        connection.exec_driver_sql("DELETE FROM archive_key")
        triggers.create(connection)
    code, lines = _check(config)
    assert code == 1
    assert any("it is a snapshot" in line for line in _about(lines, "database"))


def test_a_snapshot_of_an_older_schema(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """It is never changed: neither `check` nor a start promises an upgrade."""
    put_back("e58b20f", sqlite_url, None)
    with closing(sqlite3.connect(tmp_path / "archive.db")) as connection:
        connection.execute("CREATE TABLE snapshot_of (version TEXT)")
    code, lines = _check(configuration(tmp_path, sqlite_url, _sound(server, tmp_path)))
    assert code == 1
    assert any("it is a snapshot" in line for line in _about(lines, "schema"))
    with opened(sqlite_url) as engine:
        for upgrade in (migrate.upgrade, migrate.refuse_unusable):
            with pytest.raises(UpgradeFailed, match="make a new one with `ingestor snapshot`"):
                upgrade(engine)


@pytest.mark.postgresql
def test_a_role_that_cannot_upgrade(server: ImapServer, postgresql: PostgresqlServer, tmp_path: Path) -> None:
    """The next start does not bring up what somebody else owns: the owner's line is named."""
    postgresql.drop("archive")
    postgresql.create("archive")
    put_back("e58b20f", postgresql.url("archive"), postgresql)
    postgresql.sql("CREATE ROLE writer LOGIN")
    postgresql.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO writer", "archive")
    postgresql.sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO writer", "archive")
    code, lines = _check(
        configuration(tmp_path, postgresql.url("archive", "writer"), _sound(server, tmp_path))
    )
    assert code == 1
    assert any("OWNER" in line and "db upgrade" in line for line in _about(lines, "schema"))


@pytest.mark.postgresql
def test_a_role_without_rights(server: ImapServer, postgresql: PostgresqlServer, tmp_path: Path) -> None:
    """A role that may only read is told which GRANT it needs; an absent server is one failed line."""
    block = _sound(server, tmp_path)
    _upgrade(postgresql.url("archive"))
    postgresql.sql("CREATE ROLE reader LOGIN")
    postgresql.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", "archive")
    code, lines = _check(configuration(tmp_path, postgresql.url("archive", "reader"), block))
    assert code == 1
    assert any("GRANT" in line and "reader" in line for line in _about(lines, "database"))

    postgresql.stop()
    code, lines = _check(configuration(tmp_path, postgresql.url("archive"), block))
    assert code == 1
    assert _about(lines, "database")[0].startswith("fail")
    assert "start it" in _about(lines, "database")[0]


def test_a_taken_port(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """A port that somebody listens on is a warning, for it may be the daemon itself."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        section = Webhook.model_validate(
            {
                "listen": f"127.0.0.1:{taken.getsockname()[1]}",
                "endpoint": [{"path": "/a", "provider": "agile"}],
            }
        )
        finding = intakes.port(section, "webhook")

    assert finding.level is Level.WARN
    assert "ss -ltnp" in str(finding.fix)
    away = section.model_copy(update={"listen": "192.0.2.1:8080"})
    assert intakes.port(away, "webhook").level is Level.FAIL


def test_certificate_dates(tmp_path: Path) -> None:
    """A certificate that is over, not yet good, about to end, or not that of the key is told apart."""
    authority = trustme.CA()
    now = datetime.now(UTC)
    issued = authority.issue_cert("localhost", not_after=now + timedelta(days=60))
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    section = Webhook.model_validate(
        {"tls_certificate": chain, "tls_key": key, "endpoint": [{"path": "/a", "provider": "agile"}]}
    )

    def level(days: int) -> Level:
        [finding] = intakes.certificate(section, now + timedelta(days=days))
        return finding.level

    assert level(0) is Level.OK
    assert level(55) is Level.WARN
    assert level(61) is Level.FAIL
    assert level(-20000) is Level.FAIL
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(key))
    assert level(0) is Level.FAIL


def test_a_clock_before_this_software_was_made() -> None:
    """A machine that woke up in 1970 is told to set its clock."""
    assert machine.clock(datetime(1970, 1, 2, tzinfo=UTC)).level is Level.FAIL
    assert machine.clock(datetime.now(UTC)).level is Level.OK


def test_an_unwritable_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing state directory fails with the command that makes it."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "gone"))
    finding = machine.state(Settings())

    assert finding.level is Level.FAIL
    assert str(finding.fix).startswith("make it: install -d")


def test_a_file_in_the_place_of_the_spool(tmp_path: Path) -> None:
    """What would end `run` fails the check too, with what to do."""
    folder = tmp_path / "spool"
    assert list(machine.spool(folder)) == []
    folder.mkdir()
    assert list(machine.spool(folder)) == []
    folder.rmdir()
    folder.touch()
    [finding] = machine.spool(folder)
    assert (finding.level, finding.fix) == (Level.FAIL, "move it away: `run` makes the spool there")


def test_one_check_never_stops_the_next() -> None:
    """A check that raises or hangs is a failed line of its own."""
    hang = threading.Event()

    def raises() -> list[Finding]:
        raise RuntimeError("with a secret inside")

    def hangs() -> list[Finding]:
        hang.wait(60)
        return []

    found = list(together([("a", raises), ("b", hangs), ("c", lambda: [ok("c", "fine")])], 0.2))
    hang.set()

    assert [finding.level for finding in found] == [Level.FAIL, Level.FAIL, Level.OK]
    assert "secret" not in found[0].says


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can be somebody else")
def test_an_archive_of_somebody_else(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """Root may check, for he alone reads the credentials; he is told as whom to call all else."""
    config = configuration(tmp_path, sqlite_url, _sound(server, tmp_path))
    _upgrade(sqlite_url)
    for path in (tmp_path, *tmp_path.iterdir()):
        os.chown(path, 65534, 65534)
    code, lines = _check(config)

    assert code == 0, lines
    assert any("sudo -u nobody" in line for line in lines)


def test_the_command_says_it_all_and_exits_by_the_worst(
    server: ImapServer, tmp_path: Path, sqlite_url: str
) -> None:
    """A line each on stdout; 0 with nothing but warnings, 1 with a failure, 2 for a broken configuration."""
    for block, expected in (
        (mailbox(server.port), 0),
        (mailbox(server.port, password="wrong"), 1),
        ("[mailbx]", 2),
    ):
        with running(configuration(tmp_path, sqlite_url, block), "check") as check:
            assert check.process.wait(60) == expected
            lines = check.said.splitlines()
        assert all(line[:4].strip() in {"ok", "warn", "fail"} for line in lines)
        assert bool(lines) is (expected < 2)
