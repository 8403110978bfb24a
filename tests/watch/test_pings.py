"""Dead-man pings: after finished cycles alone, never in the way of an SMS, and their URL in no log."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingestor.settings import Settings
from ingestor.settings.watch import Watch
from ingestor.watch.found import Live
from ingestor.watch.notices import NotSent, post
from ingestor.watch.pings import extended, ping_cycles, pinged
from tests.cli.calling import ingestor
from tests.sample_mails import generate
from tests.servers.imap.server import ImapServer
from tests.service.archive import read_so_far
from tests.service.process import configuration, mailbox, running, until
from tests.watch.receiver import receiving


def _live(tmp_path: Path, reader: SimpleNamespace) -> Live:
    settings = Settings.model_validate({"database": {"url": f"sqlite:///{tmp_path}/a.db"}})
    live = Live(settings, mailboxes=lambda: [cast("Any", reader)])
    live.writer = cast("Any", SimpleNamespace(trouble=None, queued=0))
    return live


def _reader(**changed: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{"name": "main", "state": "watching", "progress": 1.0, "last_success": None, **changed}
    )


def _pinging(live: Live, send: Callable[[str, bytes], None]) -> Callable[[], None]:
    """Ping by `send` until what is returned is called."""
    stopped = threading.Event()
    words = (live, "http://x/id", send, stopped, 0.01)
    threading.Thread(target=ping_cycles, args=words, daemon=True).start()
    return stopped.set


def test_a_blocked_cycle_is_followed_by_silence(tmp_path: Path) -> None:
    """One ping a finished cycle; a part that finishes none stops them, and they go on with it."""
    reader, heard = _reader(), list[str]()
    stop = _pinging(_live(tmp_path, reader), lambda url, _: heard.append(url))
    until(lambda: heard, "the first ping")
    time.sleep(0.2)
    assert heard == ["http://x/id"]

    reader.progress = 2.0
    until(lambda: len(heard) == 2, "the next cycle's ping")
    stop()


@pytest.mark.parametrize("state", ["refused", "misconfigured", "no folder", "unreachable"])
def test_an_overdue_source_is_a_failure(tmp_path: Path, state: str) -> None:
    """The cycle is finished, in vain: /fail, with a line that names the mailbox and its state."""
    heard = list[tuple[str, bytes]]()
    live = _live(tmp_path, _reader(state=state))
    stop = _pinging(live, lambda url, body: heard.append((url, body)))
    until(lambda: heard, "the ping")
    stop()

    assert heard == [("http://x/id/fail", f"mailbox main: {state}".encode())]


def test_fail_stands_behind_the_path() -> None:
    """A slug's query (?create=1) stays at the end."""
    assert (
        extended("https://hc.example/key/slug?create=1", "/fail")
        == "https://hc.example/key/slug/fail?create=1"
    )


def test_a_ping_that_is_not_heard_is_tried_again(tmp_path: Path) -> None:
    """Up to five times, and then the next cycle has its own."""
    tries = list[str]()

    def deaf(url: str, _: bytes) -> None:
        tries.append(url)
        raise NotSent("nobody")

    stop = _pinging(_live(tmp_path, _reader()), deaf)
    until(lambda: len(tries) == 5, "five tries")
    time.sleep(0.1)
    stop()

    assert len(tries) == 5


def test_no_fault_names_the_url() -> None:
    """Who reads the log must not learn where the alarm can be silenced."""
    for url in ("http://127.0.0.1:1/planted-secret", "http://no.invalid/planted-secret"):
        with pytest.raises(NotSent) as told:
            post(url, b"")
        assert "planted" not in str(told.value)
    with receiving() as server:
        server.status = 404
        with pytest.raises(NotSent, match="answered with 404"):
            post(f"{server.url}/planted-secret", b"")


@pytest.mark.parametrize("ends", [0, 1])
def test_imports_and_backups_ping_their_beginning_and_their_end(tmp_path: Path, ends: int) -> None:
    """/start, then the URL itself or /fail, with one rid a job; a dry run pings nobody."""
    box, place = tmp_path / "box.mbox", tmp_path / "there"
    box.write_bytes(
        b"From x Thu Jan  1 00:00:00 2026\n" + next(generate(1, seed=3, unrelated=0)).raw + b"\n\n"
    )
    if not ends:
        place.mkdir()
    with receiving() as switch:
        (tmp_path / "url").write_text(f"{switch.url}/planted-secret?create=1\n")
        watch = f'[watch]\nimport_ping_file = "{tmp_path}/url"\nbackup_ping_file = "{tmp_path}/url"\n'
        config = configuration(tmp_path, f"sqlite:///{tmp_path}/a.db", watch)
        dry = ingestor("--config", config, "import", "--dry-run", box, folder=tmp_path)
        assert (dry.code, switch.received) == (0, [])
        done = ingestor("--config", config, "import", box, folder=tmp_path)
        made = ingestor("--config", config, "backup", place, folder=tmp_path)
    assert bool(made.code) is bool(ends)
    paths = [re.sub(r"rid=[0-9a-f-]{36}$", "rid=R", one.path) for one in switch.received]
    last = "/planted-secret/fail?create=1&rid=R" if ends else "/planted-secret?create=1&rid=R"
    assert sorted(paths[2:]) == sorted(["/planted-secret/start?create=1&rid=R", last])
    assert len({one.path.partition("rid=")[2] for one in switch.received}) == 2
    assert "planted" not in done.err + made.err


def test_the_end_of_a_short_job_is_heard_after_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the switch hears of that: else the job would stand there as one that goes on."""
    heard = list[str]()

    def late(url: str, _: bytes) -> None:
        if "/start" in url:
            time.sleep(0.2)
        heard.append(url)

    monkeypatch.setattr("ingestor.watch.notices.post", late)
    (tmp_path / "url").write_text("http://127.0.0.1:1/x\n")
    with pinged(Watch(import_ping_file=tmp_path / "url"), "import_ping") as ended:
        ended.code = 0
    assert ["/start" in one for one in heard] == [True, False]


def test_a_switch_that_is_gone_fails_no_import(tmp_path: Path) -> None:
    """The log says that nobody heard it; the exit code is the import's."""
    (tmp_path / "url").write_text("http://127.0.0.1:1/planted-secret\n")
    (tmp_path / "box.mbox").touch()
    config = configuration(
        tmp_path, f"sqlite:///{tmp_path}/a.db", f'[watch]\nimport_ping_file = "{tmp_path}/url"\n'
    )
    done = ingestor("--config", config, "import", tmp_path / "box.mbox", folder=tmp_path)
    assert done.code == 0, done.err
    assert done.err.count("a dead-man ping was not heard") == 2
    assert "planted" not in done.err


def test_a_hung_switch_delays_no_sms(tmp_path: Path, sqlite_url: str) -> None:
    """The daemon pings after its first cycle; while the switch never answers, mail is stored as ever."""
    server, first = ImapServer(), list(generate(1))
    with receiving() as switch, server.running():
        switch.hangs = True
        (tmp_path / "ping").write_text(f"{switch.url}/planted-secret\n")
        watch = f'[watch]\nping_file = "{tmp_path}/ping"\n'
        with running(configuration(tmp_path, sqlite_url, mailbox(server.port), watch)) as daemon:
            daemon.wait_ready()
            until(lambda: switch.received, "a ping")
            for mail in first:
                server.deliver(mail.raw)
            until(lambda: read_so_far(sqlite_url) == len(first), "mail while the ping hangs")
            assert daemon.stop() == 0
            assert "planted" not in daemon.log_path.read_text()
    assert {one.path for one in switch.received} == {"/planted-secret"}


def test_a_url_that_cannot_be_had_stops_nothing(tmp_path: Path, sqlite_url: str) -> None:
    """The log says that no pings are sent, and the daemon works."""
    server = ImapServer()
    with server.running():
        watch = f'[watch]\nping_file = "{tmp_path}/absent"\n'
        with running(configuration(tmp_path, sqlite_url, mailbox(server.port), watch)) as daemon:
            daemon.wait_ready()
            assert len(daemon.events("no dead-man pings are sent")) == 1
            assert daemon.stop() == 0
