"""`ingestor db`, and what every command says when the schema or the database is not as it should be."""

import os
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.archive.mailbox_state import live_leases
from ingestor.archive.migrate import head
from ingestor.archive.runs import last_runs, lease_of
from ingestor.errors import ArchiveUnavailable
from tests.cli.calling import Called, as_nobody, ingestor
from tests.cli.conftest import Filled
from tests.conftest import missing
from tests.sample_mails import generate

READERS = [
    ["status"], ["search"], ["show", "1"], ["export"], ["quarantine", "list"],
    ["quarantine", "export", "x.mbox"], ["snapshot", "x.db"],
]  # fmt: skip
WRITERS = [["quarantine", "retry"], ["quarantine", "discard", "1", "--reason", "r"]]


def test_upgrade_makes_and_repeats(archive_url: str, tmp_path: Path) -> None:
    """The first upgrade makes the archive, the second finds nothing to do; both on the real command."""

    def call(*arguments: str) -> Called:
        return ingestor("--database-url", archive_url, "db", *arguments, folder=tmp_path)

    assert call("upgrade").out == f"The schema is now {head()} (before: none).\n"
    assert call("upgrade").out == f"The schema is current already: {head()}.\n"
    current = call("current")
    assert (current.code, current.out) == (0, f"{head()}\n")
    assert f"{head()}\tyes\t" in call("history").out


def test_texts_are_taken_in_by_an_import_or_by_hand(tmp_path: Path) -> None:
    """With `index_texts` an import of many SMS takes their texts in, without it only `db index` does; a word
    is found before and after."""
    lines = [
        "From smsin@agiletelecom.com Mon Jan  8 09:00:00 2024\n"
        + mail.raw.replace(b"\r\n", b"\n").decode("latin-1")
        for mail in generate(1200, unrelated=0, duplicates=0, broken=0)
    ]
    (tmp_path / "old.mbox").write_text("\n".join(lines), encoding="latin-1")
    found = set()
    for wish in ("true", "false"):
        archive = tmp_path / f"{wish}.db"
        (tmp_path / "c.toml").write_text(f'[database]\nurl = "sqlite:///{archive}"\nindex_texts = {wish}\n')
        config = ("--config", tmp_path / "c.toml")
        assert ingestor(*config, "import", "old.mbox", "--quiet", folder=tmp_path).code == 0
        with closing(sqlite3.connect(archive)) as connection:
            number = "SELECT count(*) FROM sms_words"
            stored = connection.execute("SELECT count(*) FROM sms").fetchone()[0]
            assert connection.execute(number).fetchone()[0] == (stored if wish == "true" else 0)
            assert stored > 1000
        found.add(ingestor(*config, "search", "VERIFICA", folder=tmp_path).out)
        said = ingestor(*config, "db", "index", folder=tmp_path).out
        assert said == f"{stored:,} texts are taken in: `ingestor search` finds their words.\n"
        found.add(ingestor(*config, "search", "verifica", folder=tmp_path).out)
    assert len(found) == 1
    assert "verifica" in found.pop()


def test_history_needs_no_archive(called: Callable[..., Called], tmp_path: Path) -> None:
    """Without an archive the known revisions are listed, none applied, and no file is made."""
    answer = called("db", "history")

    assert answer.code == 0
    assert f"{head()}\tno\t" in answer.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [*READERS, *WRITERS, ["db", "current"]], ids=" ".join)
def test_no_command_makes_an_archive_by_mistake(
    called: Callable[..., Called], tmp_path: Path, arguments: list[str]
) -> None:
    """A missing SQLite file is one line and exit 1, and stays missing."""
    answer = called("--database-url", f"sqlite:///{tmp_path}/typo.db", *arguments)

    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"ingestor: there is no archive at {tmp_path}/typo.db; name another with --database-url or --config, "
        "or make this one with `ingestor db upgrade`\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def newer(sqlite_url: str, called: Callable[..., Called]) -> str:
    """An archive whose schema was made by a later program."""
    called("--database-url", sqlite_url, "db", "upgrade")
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return sqlite_url


@pytest.mark.parametrize("arguments", [*READERS, *WRITERS, ["db", "upgrade"]], ids=" ".join)
def test_a_newer_schema_is_refused(called: Callable[..., Called], newer: str, arguments: list[str]) -> None:
    """No command touches an archive of a newer program: one line, exit 2."""
    answer = called("--database-url", newer, *arguments)

    assert (answer.code, answer.out) == (2, "")
    assert "9999, which is newer than this program" in answer.err
    assert len(answer.faults) == 1


def test_readers_do_not_upgrade(called: Callable[..., Called], sqlite_url: str, tmp_path: Path) -> None:
    """A database without our schema is told with the command that makes it, by whoever only reads."""
    with closing(sqlite3.connect(tmp_path / "archive.db")) as connection, connection:
        connection.execute("CREATE TABLE other (x)")

    answer = called("--database-url", sqlite_url, "search")

    assert answer.code == 2
    assert f"run: ingestor --database-url {sqlite_url} db upgrade" in answer.err
    assert called("--database-url", sqlite_url, "db", "current").code == 1


def test_a_file_that_is_no_database_is_one_line(
    called: Callable[..., Called], sqlite_url: str, tmp_path: Path
) -> None:
    """A text file in place of the archive is named as what it is not."""
    (tmp_path / "archive.db").write_text("not a database, but long enough to look like one" * 99)

    answer = called("--database-url", sqlite_url, "search")

    assert answer.code == 1
    assert "no SQLite database" in answer.err
    assert len(answer.faults) == 1


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, kept from others meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("arguments", [["search"], ["quarantine", "retry"], ["db", "upgrade"]], ids=" ".join)
def test_an_unreachable_database_is_one_line_without_the_password(
    called: Callable[..., Called], closed_port: int, arguments: list[str]
) -> None:
    """A PostgreSQL that does not answer is named with its address, exit 1, the password nowhere."""
    url = f"postgresql://app:pl4nted-s3cret@127.0.0.1:{closed_port}/sms"

    answer = called("--database-url", url, *arguments)

    assert answer.code == 1
    assert f"127.0.0.1:{closed_port}" in answer.err
    assert "pl4nted" not in answer.err
    assert len(answer.faults) == 1
    assert "Traceback" not in answer.err


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may reach; pytest closes its own."""
    with tempfile.TemporaryDirectory(prefix="ingestor-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def nobody() -> tuple[str, ...]:
    """What makes a command run as `nobody`."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    before = as_nobody()
    if before is None:
        missing("needs setpriv, and an installation that others may execute")
        raise AssertionError
    return before


def test_a_closed_archive_names_the_right_user(open_folder: Path, nobody: tuple[str, ...]) -> None:
    """Whoever may not read or write the archive gets the exact `sudo -u` line."""
    url = f"sqlite:///{open_folder}/archive.db"
    ingestor("--database-url", url, "db", "upgrade", folder=open_folder)

    for arguments, what, mode in ((["search"], "read", 0o640), (["quarantine", "retry"], "written", 0o644)):
        (open_folder / "archive.db").chmod(mode)
        answer = ingestor("--database-url", url, *arguments, folder=open_folder, before=nobody)
        command = " ".join(["ingestor", "--database-url", url, *arguments])
        assert answer.code == 2
        assert answer.faults == [
            f"ingestor: {open_folder}/archive.db may not be {what} by this user; run: sudo -u root {command}"
        ]


def test_a_readable_archive_in_a_closed_folder(open_folder: Path, nobody: tuple[str, ...]) -> None:
    """A reader who may not write the folder of a sleeping archive is told why, and of snapshots."""
    url = f"sqlite:///{open_folder}/archive.db"
    ingestor("--database-url", url, "db", "upgrade", folder=open_folder)
    ingestor("--database-url", url, "snapshot", "copy.db", folder=open_folder)
    (open_folder / "archive.db").chmod(0o644)
    for left in open_folder.glob("archive.db-*"):
        left.unlink()

    answer = ingestor("--database-url", url, "search", folder=open_folder, before=nobody)

    assert answer.code == 2
    assert "while no daemon runs; run: sudo -u root ingestor" in answer.err
    (open_folder / "copy.db").chmod(0o644)
    copy = f"sqlite:///{open_folder}/copy.db"
    assert ingestor("--database-url", copy, "search", folder=open_folder, before=nobody).code == 0


def test_an_archive_on_a_read_only_file_system(small_disk: Path) -> None:
    """The file system is named, not another user: even root cannot make the files that a reader needs."""
    url = f"sqlite:///{small_disk}/archive.db"
    ingestor("--database-url", url, "db", "upgrade", folder=small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    for command in (["search"], ["status"], ["export"]):
        answer = ingestor("--database-url", url, *command, folder=small_disk)
        assert answer.code == 2
        assert "small lies on a read-only file system; mount it read-write" in answer.err


def test_root_does_not_leave_files_of_the_wrong_owner(tmp_path: Path) -> None:
    """Root writes somebody else's archive as that user: the daemon could not write it after otherwise."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    url = f"sqlite:///{tmp_path}/archive.db"
    ingestor("--database-url", url, "db", "upgrade", folder=tmp_path)
    for path in (tmp_path, *tmp_path.iterdir()):
        os.chown(path, 65534, -1)

    answer = ingestor("--database-url", url, "quarantine", "retry", folder=tmp_path)

    assert answer.code == 0
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {65534}


def test_a_closed_configuration_names_the_service_user(open_folder: Path, nobody: tuple[str, ...]) -> None:
    """A configuration that this user may not read is one line with what to do."""
    config = open_folder / "ingestor.toml"
    config.write_text("")
    config.chmod(0o600)

    answer = ingestor("--config", config, "search", folder=open_folder, before=nobody)

    assert answer.code == 2
    assert answer.err.startswith(
        f"ingestor: {config}: you may not read it; run the command as the service user"
    )


def test_check_names_what_differs_and_repair_mends_it(filled: Filled) -> None:
    """A lying view is noticed, made again, and a run says so; the second repair has nothing to do."""
    with writing(filled.engine) as connection:
        connection.exec_driver_sql("DROP VIEW quarantine")
    told = filled.call("check")
    assert told.code == 2  # without a mailbox and a webhook a daemon would not start either
    assert "archive: view quarantine is missing; run: ingestor db repair" in told.out
    mended = filled.call("db", "repair")
    assert (mended.code, mended.out) == (0, "made again: view quarantine\n")
    assert filled.call("db", "repair").out == "Nothing differs from what this version makes.\n"
    assert "guards and views are as this version makes them" in filled.call("check").out


def test_check_deep_reads_everything(filled: Filled) -> None:
    """It says that every kept byte is as it was written, or names what is not."""
    told = filled.call("check", "--deep")
    assert "every page and every kept byte is as it was written" in told.out


def test_a_vacuum_lives_while_it_lasts_and_ends_when_it_fails(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `status` called it stopped in both cases, as if it had been killed."""
    lived = []

    def fail(engine: Engine) -> None:
        deadline = time.monotonic() + 10
        while not live_leases(engine) and time.monotonic() < deadline:
            time.sleep(0.01)
        lived.extend(live_leases(engine))
        raise ArchiveUnavailable("its disk is full")

    monkeypatch.setattr("ingestor.archive.erasure.vacuum", fail)

    assert filled.call("db", "vacuum").code == 1
    (run,) = last_runs(filled.engine, 1)
    assert lived == [lease_of(run.id)]
    assert (run.command, run.ended_at is None) == ("db vacuum", False)
