"""Whether the daemon lives: what `status` says while it runs, after a stop, and after a kill."""

import json
import os
import re
import signal
import socket
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestor.archive.mailbox_state import Source
from ingestor.archive.runs import Balance, Run
from ingestor.service import reporting
from ingestor.service.reporting import Daemon, daemons, note_of_this_process
from tests.cli.calling import Called, ingestor
from tests.service.process import configuration, running, until

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WEBHOOK = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'


def _status(config: Path, *words: str) -> Called:
    return ingestor("--config", config, "status", *words, folder=config.parent)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_daemon_that_is_no_more_is_said_at_once(tmp_path: Path, made_url: str, end: str) -> None:
    """While it runs all is well; after a stop or a kill that is said, told apart, and the exit code is 1."""
    config = configuration(tmp_path, made_url, WEBHOOK)
    with running(config) as daemon:
        daemon.wait_ready()
        until(lambda: "listening" in _status(config).out, "the listener noted")
        well = _status(config)
        [told] = json.loads(_status(config, "--json").out)["daemons"]
        assert (well.code, told["state"], told["pid"]) == (0, "running", daemon.process.pid)
        assert f"daemon  running, run 1 (pid {daemon.process.pid} on {socket.gethostname()})" in well.out
        if end == "stop":
            assert daemon.stop() == 0
        else:
            daemon.process.send_signal(signal.SIGKILL)  # and nobody waits for it: a zombie lives no more
            time.sleep(0.2)
        after = _status(config)
        told = json.loads(_status(config, "--json").out)

    state = {"stop": "stopped", "kill": "gone"}[end]
    assert after.code == 1
    assert {"stop": "daemon  STOPPED 2", "kill": "daemon  GONE without a stop"}[end] in after.out
    assert "listening" not in after.out
    assert f"webhook\tdaemon {state}" in after.out
    assert (told["ok"], [one["state"] for one in told["daemons"]]) == (False, [state])

    with running(config) as daemon:  # and once it runs again nothing of that is left
        daemon.wait_ready()
        until(lambda: _status(config).code == 0, "all is well again")


def test_a_silent_provider_does_not_hide_behind_a_busy_one(tmp_path: Path, made_url: str) -> None:
    """Each endpoint has a row, with its newest POST also after a restart; the log tells of each."""
    second = '[[webhook.endpoint]]\npath = "/b"\nprovider = "agile"\n'
    config = configuration(tmp_path, made_url, WEBHOOK + second)

    def row(name: str) -> dict[str, Any]:
        sources = json.loads(_status(config, "--json").out)["sources"]
        return next((one for one in sources if one["name"] == f"endpoint {name}"), {"detail": ""})

    with running(config) as daemon:
        daemon.wait_ready()
        port = daemon.events("webhook listening")[0]["port"]
        body = b"originator=%2B393351234567&destination=%2B393331234333&date_time=20260514102301&text=x"
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", body) as answer:
                assert answer.read() == b"+OK"
        until(lambda: "2 POSTs since the start: 1 stored, 1 duplicate" in row("agile-1")["detail"], "a row")
        came, never = row("agile-1"), row("agile-2")
        assert (came["state"], never["state"], never["last_success"]) == ("open", "open", None)
        assert came["last_success"] is not None
        assert _status(config).code == 0
        assert daemon.stop() == 0
        lines = daemon.events("POSTs read")
        assert [(one["endpoint"], one["posts"]) for one in lines] == [("agile-1", 1), ("agile-1", 1)]
        assert sum(one.get("stored", 0) for one in lines) == 1

    with running(config) as daemon:
        daemon.wait_ready()
        until(lambda: row("agile-1")["detail"] == "0 POSTs since the start", "a new start")
        assert row("agile-1")["last_success"] == came["last_success"]


def _noted(state: str, ago: float, **changes: Any) -> Source:
    note = json.dumps(json.loads(note_of_this_process(7)) | changes)
    moment = NOW - timedelta(seconds=ago)
    return Source(f"daemon {state}{ago}", reporting.KIND, state, note, 10, moment, moment)


def _run(command: str, ago: float, *, ended: bool) -> Run:
    moment = NOW - timedelta(seconds=ago)
    return Run(3, command, {}, "1", moment, moment if ended else None, Balance(0, 0, 0, 0, 0, 0))


ELSEWHERE = {"machine": "another", "host": "other"}
DEAD = {"started": 1}


@pytest.mark.parametrize(
    ("noted", "last", "states"),
    [
        ([], None, []),
        ([], _run("run", 99, ended=True), [("stopped", True)]),
        ([], _run("run", 99, ended=False), [("gone", True)]),
        ([], _run("run", 5, ended=False), []),
        ([], _run("run --once", 99, ended=True), []),
        ([_noted("running", 5)], None, [("running", False)]),
        ([_noted("running", 99)], None, [("silent", True)]),
        ([_noted("running", 5, **DEAD)], None, [("gone", True)]),
        ([_noted("running", 5, **ELSEWHERE)], None, [("running", False)]),
        ([_noted("running", 99, **ELSEWHERE)], None, [("gone", True)]),
        ([_noted("stopped", 5)], None, [("stopped", True)]),
        ([_noted("stopped", 99)], _run("run --once", 50, ended=True), []),
        ([_noted("stopped", 50)], _run("run --once", 99, ended=True), [("stopped", True)]),
        ([_noted("running", 5), _noted("stopped", 9, **ELSEWHERE)], None, [("running", False)]),
        (
            [_noted("running", 5), _noted("running", 99, **ELSEWHERE)],
            None,
            [("running", False), ("gone", True)],
        ),
        ([_noted("running", 5), _noted("running", 99999, **ELSEWHERE)], None, [("running", False)]),
        (
            [_noted("running", 5), _noted("running", 99999, **ELSEWHERE, spool=2)],
            None,
            [("running", False), ("gone", True)],
        ),
        (
            [_noted("running", 5), _noted("stopped", 99999, **ELSEWHERE, spool=2)],
            None,
            [("running", False), ("stopped", True)],
        ),
    ],
)
def test_notes_are_judged(noted: list[Source], last: Run | None, states: list[tuple[str, bool]]) -> None:
    """One of several that was killed is late for a day, a stopped one is not; `run --once` is no daemon.

    One whose spool was not empty is late until it is there again.
    """
    assert [(one.state, one.late) for one in daemons(noted, last, NOW)] == states


def test_the_unit_s_view_of_proc_is_enough() -> None:
    """Its ProcSubset=pid leaves nothing of /proc but processes: whose machine it is must be told without."""
    source = Path(reporting.__file__).read_text()
    assert set(re.findall(r"/proc/[^\"]+", source)) == {"/proc/self/ns/pid", "/proc/{pid}/stat"}


def test_a_note_that_is_none_is_judged_by_its_age() -> None:
    """Whatever stands there, an answer comes."""
    moment = NOW - timedelta(hours=1)
    source = Source("daemon x", reporting.KIND, "running", "no JSON", 10, moment, moment)
    assert daemons([source], None, NOW) == [Daemon("gone", moment, None, None, 0, late=True)]


def test_a_process_that_has_our_number_later_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number alone is no proof of life; where /proc hides the process a signal that is not sent tells."""
    noted = _noted("running", 1, started=12345)
    assert daemons([noted], None, NOW)[0].state == "gone"
    monkeypatch.setattr(reporting, "_stands", lambda _pid: None)
    assert daemons([_noted("running", 1)], None, NOW)[0].state == "running"
    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(ProcessLookupError()))
    assert daemons([_noted("running", 1)], None, NOW)[0].state == "gone"
