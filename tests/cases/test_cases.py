"""Every input of this folder gives what its `.expect.json` says; README.md here explains the format."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ingestor.archive.engine import open_engine, reading
from tests.cases.imap import scripted
from tests.cli.calling import Called, ingestor
from tests.conftest import missing
from tests.intake.listener.client import Client, post, sms
from tests.intake.listener.stand import AGILE, INFOBIP, IP1, Stand, rules
from tests.servers.pgbouncer import INSTALL, PgBouncer, program
from tests.servers.postgresql import PostgresqlServer
from tests.service.process import configuration, mailbox, running, until

FOLDER = Path(__file__).parent
PATHS = {"/agile/": AGILE, "/infobip/": INFOBIP, "/ip1/": IP1}
COUNTS = ("read", "stored", "quarantined", "ignored")

Case = dict[str, Any]
Call = Callable[..., Called]


def cases(how: str) -> list[Any]:
    """Return the cases whose input arrives in that way, named as their files are."""
    every = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.expect.json"))]
    return [pytest.param(case, id=case["name"]) for case in every if case["how"] == how]


def inputs(case: Case) -> list[Path]:
    """Return the paths of the case's input."""
    return [FOLDER / case.get("folder", "") / name for name in case["input"]]


def rows(engine: Engine, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query on the archive, by name."""
    with reading(engine) as connection:
        return [dict(row._mapping) for row in connection.execute(text(query))]


class Seen:
    """What came of a case: exit code, stderr, HTTP status, and the archive."""

    def __init__(self, engine: Engine, *, code: int = 0, err: str = "", status: int = 200) -> None:
        self.engine, self.code, self.err, self.status = engine, code, err, status
        self.counts = {
            "stored": len(rows(engine, "SELECT id FROM inbound_sms")),
            "quarantined": len(rows(engine, "SELECT id FROM quarantine")),
        }
        for run in rows(engine, "SELECT * FROM runs ORDER BY id"):
            self.counts |= {name: run[name] for name in COUNTS}

    def faults(self, expect: Case) -> list[str]:
        """Return how this differs from what is expected, nothing where it does not."""
        found = [
            f"{name}: {self.counts.get(name)} instead of {expect[name]}"
            for name in COUNTS
            if name in expect and self.counts.get(name) != expect[name]
        ]
        for name, is_so in {
            "exit": lambda wanted: self.code == wanted,
            "status": lambda wanted: self.status == wanted,
            "stderr_without": lambda word: word not in self.err,
            "stderr_any": lambda words: any(word in self.err for word in words),
            "not_silently_ignored": lambda _: not self.counts.get("ignored"),
            "rows": self._has_rows,
            "either": lambda choices: any(not self.faults(choice) for choice in choices),
            "best": lambda best: not self.faults(best),
        }.items():
            if name in expect and not is_so(expect[name]):
                found.append(f"{name}: expected {expect[name]}, seen {self}")
        return found

    def _has_rows(self, wanted: list[Case]) -> bool:
        stored = rows(self.engine, "SELECT * FROM inbound_sms")
        return all(any(_matches(row, one) for row in stored) for one in wanted)

    def __str__(self) -> str:
        texts = [row["text"] for row in rows(self.engine, "SELECT text FROM inbound_sms")]
        reasons = [row["reason"] for row in rows(self.engine, "SELECT reason FROM quarantine")]
        return f"exit {self.code}, status {self.status}, {self.counts}, {texts!r}, {reasons!r}, {self.err!r}"


def _matches(row: Case, wanted: Case) -> bool:
    texts = wanted.get("text_any", [wanted.get("text", row["text"])])
    fields = {name: value for name, value in wanted.items() if name not in ("text", "text_any")}
    return row["text"] in texts and all(row[name] == value for name, value in fields.items())


@pytest.fixture
def archive(sqlite_engine: Engine) -> Engine:
    """The SQLite archive that a case fills."""
    return sqlite_engine


def imported(call: Call, case: Case, folder: Path) -> Called:
    """Import the case's input as a user would."""
    config = configuration(folder, f"sqlite:///{folder / 'archive.db'}", case.get("config", ""))
    return call("--config", config, "import", *case.get("args", ()), *inputs(case))


@pytest.mark.parametrize("case", cases("import"))
def test_an_import(case: Case, called: Call, archive: Engine, tmp_path: Path) -> None:
    """The mailbox gives the rows, counts, exit code and words that are expected, and a second run none."""
    done = imported(called, case, tmp_path)
    assert Seen(archive, code=done.code, err=done.err).faults(case["expect"]) == []
    stored = rows(archive, "SELECT id FROM inbound_sms")
    imported(called, case, tmp_path)
    assert rows(archive, "SELECT id FROM inbound_sms") == stored


@pytest.mark.parametrize("case", cases("search"))
def test_a_search(case: Case, called: Call, archive: Engine, tmp_path: Path) -> None:
    """The search finds the texts that are expected, newest first."""
    imported(called, case, tmp_path)
    assert Seen(archive).faults(case["expect"]) == []
    config = tmp_path / "ingestor.toml"
    found = called("--config", config, "search", "--json", *case["search"])
    assert [json.loads(line)["text"] for line in found.out.splitlines()] == case["expect"]["found"]


@pytest.mark.parametrize("case", cases("post"))
def test_a_post(case: Case, sqlite_engine: Engine, tmp_path: Path) -> None:
    """The POST gives the row, or the answer, that is expected."""
    given = case["post"]
    numbers = tomllib.loads(case.get("config", "")).get("agile", {}).get("numbers", ())
    stand = Stand(tmp_path, sqlite_engine, listener_rules=rules(numbers=frozenset(numbers)))
    try:
        answered = stand.ask(
            post(
                PATHS[given["path"]] + (f"?{given['query']}" if given["query"] else ""),
                inputs(case)[0].read_bytes(),
                *(f"{name}: {value}" for name, value in given["headers"].items()),
                content_type=given["content_type"],
            )
        )
    finally:
        stand.stop()
    assert Seen(sqlite_engine, status=answered.status).faults(case["expect"]) == []


@pytest.mark.parametrize("case", cases("imap"))
def test_a_mailbox(case: Case, archive: Engine, tmp_path: Path) -> None:
    """So many passes over a server that behaves like this give the rows and the state that are expected."""
    with scripted(inputs(case)[0]).running() as server:
        block = mailbox(server.port) + case.get("config_mailbox", "")
        config = configuration(tmp_path, f"sqlite:///{tmp_path / 'archive.db'}", block)
        for _ in range(case["expect"].get("passes", 1)):
            done = ingestor("--config", config, "run", "--once", folder=tmp_path)
    assert Seen(archive, code=done.code, err=done.err).faults(case["expect"]) == []
    if "state" in case["expect"]:
        assert rows(archive, "SELECT state FROM sources") == [{"state": case["expect"]["state"]}]


@pytest.mark.postgresql
@pytest.mark.parametrize("case", cases("steps"))
def test_steps(case: Case, postgresql_server: PostgresqlServer, postgresql_url: str, tmp_path: Path) -> None:
    """Readers beside a daemon, all by one pooler in transaction mode, leave it able to write."""
    assert case["name"] == "pg-bouncer-reader"
    if program() is None:
        missing(INSTALL)
    pooler = PgBouncer(postgresql_server.port, postgresql_url.rpartition("/")[2])
    url = pooler.url
    endpoint = (
        f'[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "{AGILE}"\nprovider = "agile"\n'
    )
    config = configuration(tmp_path, url, endpoint)
    try:
        assert ingestor("--config", config, "db", "upgrade", folder=tmp_path).code == 0
        with running(config) as daemon:
            daemon.wait_ready()
            port = until(lambda: daemon.events("webhook listening"), "the listener")[0]["port"]
            _post_all(port, range(12))
            for command in (("search", "x"), ("status",)):
                ingestor("--config", config, *command, folder=tmp_path)
            _post_all(port, range(12, 18))
            engine = open_engine(postgresql_url)
            wanted = case["expect"]["rows_in_inbound_sms"]
            until(lambda: len(rows(engine, "SELECT id FROM inbound_sms")) == wanted, f"{wanted} rows")
            engine.dispose()
            until(lambda: not list(tmp_path.glob("**/*.post")), "an empty spool")
            assert case["expect"]["log_without"].removeprefix("SQLSTATE ") not in daemon.log_path.read_text()
    finally:
        pooler.close()


def _post_all(port: int, numbers: range) -> None:
    for number in numbers:
        with Client(("127.0.0.1", port)) as client:
            assert client.ask(post(AGILE, sms(number))).body == b"+OK"
