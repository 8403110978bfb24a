"""`ingestor follow` as a program waits for a reply with it."""

import json
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine, writing
from tests.cli.calling import PROGRAM, ingestor
from tests.replies.given import OURS, SHE, TEN, store
from tests.servers.postgresql import PostgresqlServer


@pytest.fixture
def archive_url(made_archive_url: str) -> str:
    """The URL of an archive that is there already."""
    return made_archive_url


@pytest.fixture
def engine(archive_url: str) -> Engine:
    """An empty archive to follow."""
    return open_engine(archive_url)


def put(engine: Engine, number: int, words: str, at: datetime = TEN) -> None:
    """Commit one SMS of hers."""
    with writing(engine) as connection:
        store(connection, number, words, at, OURS)


def test_a_reply_that_is_waited_for_ends_the_wait(engine: Engine, archive_url: str) -> None:
    """Only her SMS with the code is printed, and the exit code is 0."""
    put(engine, 1, "482917, but an old one", TEN - timedelta(hours=1))
    options = [
        "--originator",
        SHE,
        "--match",
        r"\b482917\b",
        "--since",
        f"{TEN:%Y-%m-%dT%H:%M}",
        "--count",
        "1",
    ]
    command = [str(PROGRAM), "--database-url", archive_url, "follow", *options, "--timeout", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        put(engine, 2, "what code?")
        put(engine, 3, "ok 482917")
        out, err = running.communicate(timeout=60)

    assert running.returncode == 0, err
    [line] = out.splitlines()
    assert json.loads(line)["id"] == 3
    engine.dispose()


def test_a_reply_that_does_not_come_is_a_1(engine: Engine, archive_url: str, tmp_path: Path) -> None:
    """At the time-out the exit code is 1, and nothing was printed."""
    put(engine, 1, "hello")

    done = ingestor("--database-url", archive_url, "follow", "--timeout", "0.5", folder=tmp_path)
    there = ["follow", "--since", "2026-05-14T10:00", "--count", "1"]
    since = ingestor("--database-url", archive_url, *there, folder=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert (since.code, json.loads(since.out)["text"]) == (0, "hello")
    engine.dispose()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--match", "(", "regular expression"),
        ("--timeout", "x", "number of seconds"),
        ("--since", "soon", "no day"),
    ],
)
def test_wrong_usage_is_a_2(tmp_path: Path, option: str, value: str, says: str) -> None:
    """A script can tell it from a time-out."""
    done = ingestor("follow", option, value, folder=tmp_path)

    assert done.code == 2
    assert says in done.err


@pytest.mark.postgresql
def test_an_auditor_can_follow(
    engine: Engine, archive_url: str, postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    """A role that may read the view and nothing else needs no more."""
    if not archive_url.startswith("postgresql"):
        return
    put(engine, 1, "hello")
    database = archive_url.rpartition("/")[2]
    postgresql_server.sql(
        "CREATE ROLE follower LOGIN; GRANT USAGE ON SCHEMA public TO follower;"
        " GRANT SELECT ON inbound_sms TO follower;"
        " ALTER ROLE follower SET default_transaction_read_only = on;",
        database,
    )

    url = postgresql_server.url(database, "follower")
    done = ingestor("--database-url", url, "follow", "--since", "2026-01-01", "--count", "1", folder=tmp_path)
    engine.dispose()
    postgresql_server.sql("DROP OWNED BY follower; DROP ROLE follower;", database)

    assert done.code == 0, done.err
    assert json.loads(done.out)["id"] == 1
