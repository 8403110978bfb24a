"""A PostgreSQL with standbys: what `check` says of them, and reading commands on one."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from ingestor.archive.engine import open_engine
from ingestor.archive.items import Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.service.checks.archive import check
from ingestor.settings import load
from ingestor.watch.troubles import of_commits
from tests.archive.samples import NOW, broken, item
from tests.cli.calling import Called, ingestor
from tests.cli.conftest import called
from tests.servers.pgbouncer import PgBouncer, program
from tests.servers.postgresql import PostgresqlServer
from tests.service.process import configuration, mailbox
from tests.waiting import until

__all__ = ["called"]

pytestmark = pytest.mark.postgresql

SMS = 4000
WEBHOOK = '[webhook]\nlisten = "127.0.0.1:0"\n{}[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'


@pytest.fixture
def standby(postgresql: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """An asynchronous standby of an archive with some SMS."""
    engine = open_engine(postgresql.url("archive"))
    ensure_schema(engine, auto_upgrade=True)
    run = begin_run(engine, "run", {}, NOW)
    Store(engine).write([Submission(run, tuple(item(number) for number in range(SMS)))], NOW)
    engine.dispose()
    server = postgresql.standby(synchronous=False)
    postgresql.catch_up(server)
    yield server
    server.close()
    postgresql.wait_for_standby("")


def command(url: str, *words: str) -> Called:
    """Run `ingestor --database-url URL WORDS`."""
    return ingestor("--database-url", url, *words, folder=Path.cwd())


def test_reading_commands_work_on_a_standby(standby: PostgresqlServer, tmp_path: Path) -> None:
    """Each prints what the primary has."""
    url = standby.url("archive")
    out = tmp_path / "out.jsonl"
    assert command(url, "search", "text of 17").out.count("\n") >= 2
    assert "text of 16" in command(url, "show", "17").out
    exported = command(url, "export", "-o", str(out))
    assert (exported.code, out.read_text().count("\n")) == (0, SMS)
    assert "a standby takes no tables to compare with" in exported.err
    assert command(url, "snapshot", str(tmp_path / "copy.db")).code == 0
    followed = command(url, "follow", "--since", "2020-01-01", "--count", "3")
    assert (followed.code, followed.out.count("\n")) == (0, 3)


def writing_commands(quarantined: str, plan: Path, opt_outs: Path) -> list[tuple[str, ...]]:
    """Return a call of each command that writes the archive, with what it needs to get so far."""
    number, why = "+393351234567", ("--reason", "a test")
    return [
        ("import", "/dev/null"),
        ("quarantine", "retry"),
        ("quarantine", "discard", quarantined, *why),
        ("optout", "add", number, *why),
        ("optout", "remove", number, *why),
        ("optout", "import", str(opt_outs), *why),
        ("optout", "scan"),
        ("erase", "hold", "add", "--number", number, *why),
        ("erase", "hold", "remove", "1"),
        ("erase", "apply", str(plan)),
        ("send", "--sender", "MyShop", "--text", "Grazie", number),
        ("rescan", "main"),
        ("db", "upgrade"),
        ("db", "repair"),
        ("db", "vacuum"),
        ("db", "index"),
    ]


@pytest.mark.parametrize("asked", ["", "?target_session_attrs=any"], ids=["primary", "any server"])
def test_each_command_that_writes_ends_in_one_line_on_a_standby(
    postgresql: PostgresqlServer, standby: PostgresqlServer, tmp_path: Path, asked: str,
    called: Callable[..., Called],
) -> None:  # fmt: skip
    """It ends at once, with 1, and says that the server is a standby, whatever it was about to do; also where
    the URL takes any server, and the first write meets it. Nothing is sent or read from a mailbox."""
    primary, plan, opt_outs = postgresql.url("archive"), tmp_path / "plan.json", tmp_path / "out.csv"
    of_primary = partial(called, "--database-url", primary, "erase")
    assert of_primary("hold", "add", "--sms", "2", "--reason", "a test").code == 0
    assert of_primary("plan", "--sms", "1", "--basis", "x", "--output", plan).code == 0
    opt_outs.write_text("number\n+393351234567\n")
    engine = open_engine(primary)
    Store(engine).write([Submission(None, (broken(SMS),))], NOW)
    engine.dispose()
    [quarantined] = postgresql.sql("SELECT id FROM quarantine", "archive").split()
    postgresql.catch_up(standby)
    (tmp_path / "key").write_text("k3y\n")
    (tmp_path / "key").chmod(0o600)
    api = f'[agile.api]\nbase_url = "http://127.0.0.1:9/"\napi_key_file = "{tmp_path / "key"}"\n'
    config = configuration(tmp_path, standby.url("archive") + asked, mailbox(9), api)

    for words in writing_commands(quarantined, plan, opt_outs):
        done = called("--config", config, *words)
        assert (done.code, len(done.faults)) == (1, 1), (words, done)
        assert "standby" in done.faults[0], words


def test_a_query_that_the_primary_gets_in_the_way_of_ends_in_one_line(
    postgresql: PostgresqlServer, standby: PostgresqlServer
) -> None:
    """A recovery conflict says what it is and what to do, and exits with 1."""
    standby.sql("ALTER SYSTEM SET max_standby_streaming_delay = '50ms'")
    standby.sql("SELECT pg_reload_conf()")
    call = [sys.executable, "-m", "ingestor", "--database-url", standby.url("archive"), "export"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
        assert export.stdout
        assert export.stderr
        export.stdout.read(10)  # it stands still then, in the middle of its query
        lock = "BEGIN; LOCK TABLE sms_content, sms, arrivals IN ACCESS EXCLUSIVE MODE; COMMIT"
        postgresql.sql(f"{lock}; SELECT pg_switch_wal()", "archive")
        postgresql.catch_up(standby)
        export.stdout.read()
        said = export.stderr.read().splitlines()
        assert export.wait(30) == 1
    assert "is a standby and ended what it was asked" in said[-1]
    assert "Traceback" not in "".join(said)


def found(url: str, folder: Path, *blocks: str) -> list[str]:
    """Return what `check` says of the servers."""
    lines = check(load(configuration(folder, url, *blocks), None), state_fails=False)
    return [
        f"{one.level}: {one.says}" for one in lines if one.subject == "replication" or "pooler" in one.says
    ]


def test_check_says_which_step_it_sees(
    postgresql: PostgresqlServer, standby: PostgresqlServer, tmp_path: Path
) -> None:
    """No commit waits: a warning for what a failover would lose, none where it is submitted again."""
    url = postgresql.url("archive")
    lost = "warn: no commit waits for a standby, and 1 is connected: a failover loses the last "
    deletes = mailbox(1, after_store="delete")
    assert found(url, tmp_path, WEBHOOK.format(""), deletes) == [f"{lost}POSTs and mails"]
    assert found(url, tmp_path, WEBHOOK.format(""), mailbox(1)) == [f"{lost}POSTs"]
    [well] = found(url, tmp_path, WEBHOOK.format("spool_first = true\n"), mailbox(1))
    assert well.startswith("ok: no commit waits for a standby, and 1 is connected; ")
    postgresql.wait_for_standby("standby")
    postgresql.sql("CREATE ROLE hasty LOGIN SUPERUSER")
    postgresql.sql("ALTER ROLE hasty SET synchronous_commit = local")
    waits = "ok: each commit waits for a standby (standby)"
    assert found(url, tmp_path, WEBHOOK.format("")) == [waits]
    raised = f"{waits}; the role's synchronous_commit = local is raised to on"
    assert found(postgresql.url("archive", "hasty"), tmp_path, WEBHOOK.format("")) == [raised]
    postgresql.wait_for_standby("")
    standby.stop()
    alone = ["ok: one server; no standby is connected"]
    until(lambda: found(url, tmp_path, WEBHOOK.format("")) == alone, "the primary to miss its standby")


def test_a_commit_that_waits_for_a_standby_that_is_gone_is_named(postgresql: PostgresqlServer) -> None:
    """`status` says what is the matter and since when, and nobody is told to restart a daemon for it."""
    engine = open_engine(postgresql.url("archive"))
    ensure_schema(engine, auto_upgrade=True)
    assert of_commits(engine, 0) == []
    postgresql.wait_for_standby("gone")
    writer = Thread(target=Store(engine).write, args=([Submission(None, (broken(SMS + 1),))], NOW))
    writer.start()
    try:
        [found] = until(lambda: of_commits(engine, 0), "the commit that waits")
        assert (found.grave, found.since is not None) == (True, True)
        assert "waits for a synchronous standby" in str(found)
    finally:
        postgresql.wait_for_standby("")
        writer.join(30)
    assert of_commits(engine, 0) == []
    engine.dispose()


def test_a_command_whose_commits_wait_for_a_standby_says_so(
    postgresql: PostgresqlServer, called: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL lets it wait without a word; it says what it waits for, once, and goes on by itself."""
    monkeypatch.setattr("ingestor.cli.opening.PATIENCE", 0.3)
    url = postgresql.url("archive")
    assert called("--database-url", url, "db", "upgrade").code == 0
    postgresql.wait_for_standby("gone")
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND now() > state_change + '2s'"
    )

    def come_back() -> None:
        until(lambda: postgresql.sql(waits).strip() != "0", "a commit that has waited for two seconds")
        postgresql.wait_for_standby("")

    standby = Thread(target=come_back)
    standby.start()
    done = called("--database-url", url, "optout", "add", "+393351234567", "--reason", "a test")
    standby.join(30)
    assert (done.code, len(done.faults)) == (0, 1)
    assert "waits for a synchronous standby" in done.err
    assert "start the standby" in done.err


@pytest.mark.skipif(program() is None, reason="PgBouncer is not installed")
def test_check_sees_a_pooler(postgresql: PostgresqlServer, standby: PostgresqlServer, tmp_path: Path) -> None:
    """PgBouncer between it and the server is named."""
    pooler = PgBouncer(postgresql.port, "archive")
    try:
        assert "ok: a pooler such as PgBouncer stands in between" in found(pooler.url, tmp_path, mailbox(1))
    finally:
        pooler.close()
