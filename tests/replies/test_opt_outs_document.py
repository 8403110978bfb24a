"""What ANSWERS.md says of opt-outs and of programs that wait: its commands and its SQL do what it says."""

import itertools
import os
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ingestor.archive.engine import open_engine, reading, writing
from ingestor.archive.items import Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.replies.opt_outs import hearing_store, is_out, read_secret
from ingestor.settings import OptOut
from tests import readme
from tests.archive.samples import NOW
from tests.cli.calling import PROGRAM
from tests.cli.test_send import config_of
from tests.conftest import missing
from tests.replies.given import OURS, SHE, said, store
from tests.servers.agile import ScriptedAgile
from tests.waiting import until

HE = "+393357654321"


def archive(url: str) -> Engine:
    """Return a new archive."""
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    return engine


def shell(block: str, folder: Path, url: str) -> "subprocess.Popen[str]":
    """Begin to run a block of the document in `folder`, for the archive at `url`."""
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "INGESTOR_DATABASE_URL": url}
    return subprocess.Popen(
        ["sh", "-ec", block], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_campaign_goes_to_nobody_who_is_out(sqlite_url: str, tmp_path: Path) -> None:
    """The two lines leave those who may be written to, and nobody where it cannot be told."""
    [block] = readme.blocks("campaign")
    engine = archive(sqlite_url)
    hearing_store(engine, OptOut()).write([Submission(None, (said(1, "STOP"),))], NOW)
    (tmp_path / "campaign.txt").write_text(f"{HE}\n{SHE}\n")

    with shell(block, tmp_path, sqlite_url) as running:
        _, err = running.communicate(timeout=60)
    assert (running.returncode, (tmp_path / "allowed.txt").read_text()) == (0, f"{HE}\n"), err

    with writing(engine) as connection:
        connection.execute(text("UPDATE consent_scans SET finished_at = NULL"))
    (tmp_path / "allowed.txt").unlink()
    with shell(block, tmp_path, sqlite_url) as running:
        running.communicate(timeout=60)
    assert running.returncode != 0
    assert not (tmp_path / "allowed.txt").exists()
    engine.dispose()


@pytest.mark.parametrize(
    "words",
    [[], ["STOP"], ["STOP ALL"], ["STOP ALL", "START"], ["STOP", "START"], ["STOP ALL", "START", "STOP"]],
)
def test_the_sql_says_what_the_program_says(archive_engine: Engine, words: list[str]) -> None:
    """The query lists whoever has written and may be written to."""
    [query, events] = [
        one for block in readme.blocks("sql") for one in block.split(";") if "opt_out" in one and one.strip()
    ]
    items = tuple(said(number, one) for number, one in enumerate(["hello", *words], 1))
    hearing_store(archive_engine, OptOut()).write([Submission(None, items)], NOW)
    assert "'2026-01-01'" in query
    query = query.replace("2026-01-01", "2000-01-01").replace("2026-02-01", "2100-01-01")

    with reading(archive_engine) as connection:
        out = is_out(connection, read_secret(connection), SHE, OURS)
        assert connection.execute(text(query)).scalars().all() == ([] if out else [SHE])
        assert len(connection.execute(text(events)).all()) == len(words)


def test_a_code_that_is_sent_back_confirms(archive_url: str, tmp_path: Path) -> None:
    """The line of shell ends with the SMS that it waits for, and with no other."""
    [block] = readme.blocks("waiting")
    engine = archive(archive_url)
    with shell(block, tmp_path, archive_url) as running:
        for number, words in enumerate(["what?", "4829170", " 482917"], 1):
            with writing(engine) as connection:
                store(connection, number, words, datetime(2999, 1, 1, tzinfo=UTC), OURS)
        out, err = running.communicate(timeout=60)

    assert (running.returncode, out) == (0, "confirmed\n"), err
    assert '"id": 3' in (tmp_path / "reply.json").read_text()
    engine.dispose()


def test_a_chatbot_answers_an_order_and_nobody_who_is_out(sqlite_url: str, tmp_path: Path) -> None:
    """The pipe answers her order, and no longer when she has said STOP."""
    [block] = readme.blocks("chatbot")
    if shutil.which("jq") is None:
        missing("jq is not installed")
    engine = archive(sqlite_url)
    ears = hearing_store(engine, OptOut())
    numbers = itertools.count(1)

    def say(words: str, by: str = SHE) -> None:
        ears.write([Submission(None, (said(next(numbers), words, by=by),))], NOW)

    with ScriptedAgile() as agile:

        def answers_to(number: str) -> int:
            return sum(one["messages"][0]["destinations"] == [number] for one in agile.real)

        path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
        config = config_of(agile, sqlite_url, tmp_path)
        environment = {**os.environ, "PATH": path, "INGESTOR_CONFIG": str(config)}
        with (tmp_path / "log").open("w") as log:
            running = subprocess.Popen(
                ["sh", "-ec", block], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            deadline = time.monotonic() + 60
            while not agile.real and time.monotonic() < deadline:  # it may not have begun to follow yet
                say("Order")
                time.sleep(2)
            # The pipe does one after the other: once he has his answer, what came before is done.
            say("Order", HE)
            until(lambda: answers_to(HE) == 1)
            answered = answers_to(SHE)
            say("STOP")
            say("order")
            say("order", HE)
            until(lambda: answers_to(HE) == 2)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        assert 0 < answered == answers_to(SHE), (tmp_path / "log").read_text()
        assert "is out" in (tmp_path / "log").read_text()
    engine.dispose()


def test_every_block_of_shell_is_tested() -> None:
    """The places that the document names are those of this file, and of the README's tests."""
    for place in ("campaign", "waiting"):
        assert len(readme.blocks(place)) == 1
