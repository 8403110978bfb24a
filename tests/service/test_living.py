"""Whether the daemon lives: what `status` says while it runs, after a stop, and after a kill."""

import json
import os
import re
import signal
import socket
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.mailbox_state import Source
from ingestor.archive.runs import Balance, Run
from ingestor.service import reporting
from ingestor.service.reporting import Daemon, as_told, daemons, note_of_this_process
from ingestor.settings import Settings
from ingestor.watch.found import Live
from tests.cli.calling import Called, ingestor
from tests.servers.imap.server import ImapServer
from tests.service.process import Running, configuration, mailbox, running, until

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WEBHOOK = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'


def _status(config: Path, *words: str) -> Called:
    return ingestor("--config", config, "status", *words, folder=config.parent)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_daemon_that_is_no_more_is_said_at_once(tmp_path: Path, made_url: str, end: str) -> None:
    """While it runs all is well; after a stop or a kill that is said, told apart, and the exit code is 1."""
    config = configuration(tmp_path, made_url, WEBHOOK)
    with running(config, fork=False) as daemon:
        daemon.wait_ready()
        until(lambda: "listening" in _status(config).out, "the listener noted")
        well = _status(config)
        [told] = json.loads(_status(config, "--json").out)["daemons"]
        assert (well.code, told["state"], told["pid"]) == (0, "running", daemon.process.pid)
        assert f"daemon  running, run 1 (pid {daemon.process.pid} on {socket.gethostname()})" in well.out
        if end == "stop":
            assert daemon.stop() == 0
        else:
            daemon.process.send_signal(signal.SIGKILL)
            os.waitid(os.P_PID, daemon.process.pid, os.WEXITED | os.WNOWAIT)  # a zombie lives no more
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
        until(lambda: row("agile-1")["last_success"], "when the newest came")
        until(lambda: row("agile-2")["detail"], "the other's row")
        came, never = row("agile-1"), row("agile-2")
        assert (came["state"], never["state"], never["last_success"]) == ("open", "open", None)
        assert _status(config).code == 0
        assert daemon.stop() == 0
        lines = daemon.events("POSTs read")
        assert [(one["endpoint"], one["posts"]) for one in lines] == [("agile-1", 1), ("agile-1", 1)]
        assert sum(one.get("stored", 0) for one in lines) == 1

    with running(config) as daemon:
        daemon.wait_ready()
        until(lambda: row("agile-1")["detail"] == "0 POSTs since the start", "a new start")
        assert row("agile-1")["last_success"] == came["last_success"]


def test_two_daemons_on_one_archive_are_told_apart(archive_url: str, tmp_path: Path) -> None:
    """Each listener has a row, the POSTs of both are counted, and the mailbox is watched as long as one does:
    the second one's stop hides nothing of the first, and takes its own rows away."""
    with ImapServer().running() as imap, ExitStack() as ends:
        ours = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            box = mailbox(imap.port, poll_seconds=3600)
            config = configuration(tmp_path / name, archive_url, WEBHOOK, box)
            ours.append(ends.enter_context(running(config)))
            ours[-1].wait_ready()
        first, second = ours

        def told() -> dict[str, tuple[str, str | None]]:
            sources = json.loads(_status(first.config, "--json").out)["sources"]
            return {one["name"]: (one["state"], one["detail"]) for one in sources}

        for daemon in ours:
            post(daemon)
        row = f"127.0.0.1:0 on {socket.gethostname()}, pid "
        both = {f"{row}{one.process.pid}": ("listening", "1 accepted, 0 in the spool") for one in ours}
        both["endpoint agile-1"] = ("open", "2 POSTs since the start: 1 stored, 1 duplicate")
        until(lambda: both.items() <= told().items(), "both listeners and both POSTs", 60)

        assert second.stop() == 0
        until(lambda: told()["main"] == ("watching", None), "what the first one has noted of its mailbox")
        after = told()
        assert after["127.0.0.1:0"] == ("listening", "1 accepted, 0 in the spool")
        assert after["endpoint agile-1"][1] in {f"1 POSTs since the start: 1 {how}" for how in OUTCOMES}
        assert len(after) == 3
        assert _status(first.config).code == 0
        assert first.stop() == 0
        assert {state for state, _ in told().values()} == {"daemon stopped"}


OUTCOMES = ("stored", "duplicate")


def post(daemon: Running) -> None:
    """Post an SMS, and see it acknowledged."""
    port = daemon.events("webhook listening")[0]["port"]
    body = b"originator=%2B393351234567&destination=%2B393331234333&date_time=20260514102301&text=x"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", body) as answer:
        assert answer.read() == b"+OK"


def test_a_report_in_hand_at_the_stop_does_not_hide_it(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stopped` is what stands in the end: else `status` said that a daemon stopped in order was killed."""
    written, begun, go = list[str](), Event(), Event()

    def note(_engine: Engine, _name: str, _kind: str, state: str, *_: object, **__: object) -> None:
        if state == "running":
            begun.set()
            go.wait(30)
        written.append(state)

    monkeypatch.setattr(reporting, "note_source", note)
    reporter = reporting.Reporter(sqlite_engine, 1, "x", Live(Settings()))
    threads = [Thread(target=reporter.note_daemon, args=(state,)) for state in ("running", "stopped")]
    threads[0].start()
    assert begun.wait(30)
    reporter.stop()
    threads[1].start()
    threads[1].join(0.2)
    go.set()
    for thread in threads:
        thread.join(30)
    reporter.note_daemon("running")
    assert written == ["running", "stopped"]


def test_who_fares_badly_hides_nobody_who_fares_well() -> None:
    """Of a mailbox that one daemon reads and another cannot reach the first counts; of two listeners without
    a spool each is told; what is silent or of an earlier version leaves the rows as they are."""

    def daemon(state: str, host: str, mailbox: str, listener: str = "listening") -> Daemon:
        told = {"name": "0.0.0.0:80", "state": listener, "detail": None, "last_success": None}
        parts = {"mailboxes": {"main": mailbox}, "listener": told, "posts": {}, "requests": {}}
        return Daemon(state, NOW, host, 1, 1, parts=parts)

    noted = [
        Source("main", "mailbox", "unreachable", "no route", 60, NOW, NOW),
        Source("0.0.0.0:80", "webhook", "no spool", "full", 60, NOW, NOW),
        Source("endpoint agile-1", "endpoint", "no spool", "9 POSTs since the start", None, NOW, NOW),
    ]

    def states(*daemons: Daemon) -> dict[str, str]:
        return {one.name: one.state for one in as_told(noted, daemons)}

    well, badly = daemon("running", "a", "watching"), daemon("running", "b", "unreachable", "no spool")
    assert states(badly, well) == {
        "main": "watching", "endpoint agile-1": "open",
        "0.0.0.0:80 on a": "listening", "0.0.0.0:80 on b": "no spool",
    }  # fmt: skip
    assert states(badly, daemon("stopped", "a", "stopped")) == {
        "main": "unreachable", "endpoint agile-1": "no spool", "0.0.0.0:80": "no spool"
    }  # fmt: skip
    assert states(Daemon("running", NOW, "a", 1, 1)) == {one.name: one.state for one in noted}


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
