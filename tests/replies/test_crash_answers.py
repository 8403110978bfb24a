"""Answers and kill -9: whatever the instant, no SMS is answered twice."""

import json
import random
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestor.archive.engine import open_engine
from ingestor.archive.items import Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.errors import IngestorError
from ingestor.record import Channel
from tests.archive.reading import opened, rows
from tests.replies.desk import RULES, arrived
from tests.servers.agile import ScriptedAgile, late
from tests.service.process import Running
from tests.waiting import until

LIMITS = (
    "[answers]\nmax_age_seconds = 3600\nper_number = 9999\nequal_texts = 9999\n"
    "per_minute = 9999\nper_hour = 9999\n"
)
POINTS = [
    pytest.param(4, id="4"),
    pytest.param(100, id="100", marks=[pytest.mark.torture, pytest.mark.timeout(3600)]),
]


def _configuration(folder: Path, url: str, agile: ScriptedAgile, number: int) -> Path:
    """Write the configuration of one of several daemons on the archive at `url`."""
    home = folder / f"daemon{number}"
    home.mkdir(exist_ok=True)
    (home / "api.key").write_text("k3y\n")
    (home / "api.key").chmod(0o600)
    config = home / "ingestor.toml"
    config.write_text(
        f"[database]\nurl = {json.dumps(url)}\n"
        '[webhook]\nlisten = "127.0.0.1:0"\n'
        '[[webhook.endpoint]]\npath = "/agile/4f9bR2xLq8Zt6mVw3yHd"\nprovider = "agile"\n'
        f'[agile.api]\nbase_url = "{agile.base_url}"\napi_key_file = "{home / "api.key"}"\n'
        f"connect_seconds = 10\nanswer_seconds = 10\nrate = 200\n{LIMITS}{RULES}"
    )
    config.chmod(0o600)
    return config


def _rules_count(url: str) -> bool:
    """Say whether a daemon has noted since when the rules count."""
    with opened(url, read_only=True) as engine:
        return bool(rows(engine, "SELECT 1 FROM answering WHERE name = 'rule:any'"))


def _states(url: str) -> dict[str, int]:
    with opened(url, read_only=True) as engine:
        return dict(rows(engine, "SELECT state, count(*) FROM answers_sent GROUP BY state"))


def _ended(url: str, sent: int) -> bool:
    """Say whether every SMS has a decision, and no answer waits for anybody."""
    states = _states(url)
    return states.keys() <= {"sent", "unknown", "sending"} and sum(states.values()) == sent


def _store(store: Store, numbers: range) -> None:
    items = tuple(arrived(number, f"Hello {number}") for number in numbers)
    while True:
        try:
            store.write([Submission(None, items)], datetime.now(UTC))
        except IngestorError:
            time.sleep(0.1)
        else:
            return


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("daemons", [1, 3])
def test_killed_at_random_points_no_sms_is_answered_twice(
    postgresql_url: str, tmp_path: Path, points: int, daemons: int
) -> None:
    """One daemon or three on one PostgreSQL: each answer left once, was never tried, or stands as unknown."""
    _torture(postgresql_url, tmp_path, points, daemons)


@pytest.mark.parametrize("points", POINTS)
def test_killed_at_random_points_in_a_file(sqlite_url: str, tmp_path: Path, points: int) -> None:
    """The same with an SQLite file and its one daemon."""
    _torture(sqlite_url, tmp_path, points, 1)


def _wait_for_requests(agile: ScriptedAgile, number: int) -> None:
    """Wait until so many have come, in the middle of the answers; not for ever, as some are decided late."""
    deadline = time.monotonic() + 5.0
    while len(agile.real) < number and time.monotonic() < deadline:
        time.sleep(0.002)


def _torture(url: str, folder: Path, points: int, daemons: int) -> None:
    chance = random.Random(points * 10 + daemons)
    engine = open_engine(url)
    ensure_schema(engine, auto_upgrade=True)
    store = Store(engine)
    sent = 0
    with ScriptedAgile(then=late(0.02)) as agile, ExitStack() as stack:
        configs = [_configuration(folder, url, agile, number) for number in range(daemons)]
        running = [Running(config, "run", "--json") for config in configs]
        until(lambda: _rules_count(url))
        for _ in range(points):
            for process in running:
                process.wait_ready()
            _store(store, range(sent, sent + 12))
            sent += 12
            _wait_for_requests(agile, len(agile.real) + chance.randrange(12))
            time.sleep(chance.uniform(0.0, 0.05))
            victim = chance.randrange(daemons)
            running[victim].kill()
            running[victim].close()
            running[victim] = Running(configs[victim], "run", "--json")
        for process in running:
            stack.callback(process.close)
            process.wait_ready()
        until(lambda: _ended(url, sent), "an end of each answer", seconds=600)
        # What was claimed and not noted stands for a person: as `sending` until it is certainly over.
        until(lambda: sent - _states(url)["sent"] <= 2 * points)
        noted = _states(url)["sent"]
        numbers = agile.times_sent()
        assert max(numbers.values()) == 1, numbers.most_common(3)
        assert noted <= len(numbers) <= sent
        assert all(process.stop() == 0 for process in running)
    engine.dispose()


def test_old_sms_trigger_nothing(sqlite_url: str, tmp_path: Path) -> None:
    """Ten thousand imported and rescanned SMS with rules on, some of this minute: not one request."""
    engine = open_engine(sqlite_url)
    ensure_schema(engine, auto_upgrade=True)
    store = Store(engine)
    with ScriptedAgile() as agile:
        config = _configuration(tmp_path, sqlite_url, agile, 0)
        process = Running(config, "run", "--json")
        try:
            process.wait_ready()
            until(lambda: _rules_count(sqlite_url))
            for start in range(0, 10_000, 1000):
                items = tuple(
                    arrived(number, "STOP", channel=Channel.IMPORT, ago=number % 50 * 86400.0)
                    for number in range(start, start + 1000)
                )
                store.write([Submission(None, items)], datetime.now(UTC))
            run = begin_run(engine, "rescan", {}, datetime.now(UTC))
            found = tuple(
                arrived(12_000 + number, channel=Channel.MAILBOX, source="main", ago=number % 60)
                for number in range(1000)
            )
            store.write([Submission(run, found)], datetime.now(UTC))
            old = tuple(arrived(20_000 + number, ago=7200) for number in range(50))
            store.write([Submission(None, old)], datetime.now(UTC))
            until(lambda: sum(_states(sqlite_url).values()) == 50)
            assert _states(sqlite_url) == {"suppressed": 50}
            assert agile.requests == []
        finally:
            process.close()
    engine.dispose()
