"""/metrics, /healthz and /readyz: what they say, and that neither a number nor the database is in it."""

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingestor.settings import Settings
from ingestor.watch.found import Live
from ingestor.watch.metrics import Pages
from tests.conftest import missing
from tests.sample_mails import generate
from tests.servers.imap.server import ImapServer
from tests.service.process import Running, configuration, mailbox, running, until

ROOT = Path(__file__).parent.parent.parent
METRICS = '[metrics]\nlisten = "127.0.0.1:0"\n'
WEBHOOK = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
NUMBER = "393351234567"
BODY = f"originator=%2B{NUMBER}&destination=%2B393331234333&date_time=20260514102301&text=planted".encode()


def _promtool(*words: str | Path, stdin: str = "") -> None:
    """Let promtool judge, where it is installed."""
    program = shutil.which("promtool", path=f"{os.environ['PATH']}:/opt/prometheus/usr/bin")
    if program is None:
        missing("promtool (apt install prometheus)")
        return
    done = subprocess.run([program, *map(str, words)], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _asked(port: int, path: str, data: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def _port(daemon: Running, event: str = "metrics listening") -> int:
    until(lambda: daemon.events(event), event)
    return int(daemon.events(event)[0]["port"])


@pytest.fixture
def server() -> Any:
    """A mailbox with one SMS and one mail of somebody else."""
    imap = ImapServer()
    with imap.running():
        for mail in islice(generate(1), 2):
            imap.deliver(mail.raw)
        yield imap


def test_a_working_daemon_shows_what_it_does(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """Outcomes by source, no planted number, and pages that say well; promtool finds nothing to mend."""
    config = configuration(tmp_path, sqlite_url, mailbox(server.port), WEBHOOK, METRICS)
    with running(config) as daemon:
        daemon.wait_ready()
        port = _port(daemon)
        assert _asked(_port(daemon, "webhook listening"), "/a", BODY) == (200, "+OK")
        for wanted in (
            r'ingestor_mailbox_up{mailbox="main",state="watching"} 1.0',
            r'ingestor_items_total{channel="webhook",outcome="stored",source="agile-1"} 1.0',
            r'ingestor_items_total{channel="mailbox",outcome="\w+",source="main"} [12]',
            r"ingestor_posts_accepted_total 1.0",
        ):
            until(lambda line=wanted: re.search(line, _asked(port, "/metrics")[1]), wanted)
        told = _asked(port, "/metrics")[1]
        assert "ingestor_archive_writable 1.0" in told
        assert NUMBER[2:] not in told
        assert "planted" not in told
        assert "/a" not in told
        assert [_asked(port, page) for page in ("/healthz", "/readyz")] == [(200, "ok\n")] * 2
        assert _asked(port, "/")[0] == 404
        assert _asked(port, "/metrics", b"x=1")[0] == 405
        assert daemon.stop() == 0
    _promtool("check", "metrics", stdin=told)


def test_a_scrape_does_not_need_the_database(tmp_path: Path) -> None:
    """PostgreSQL was never there: all pages answer, and the spool makes the daemon ready all the same."""
    config = configuration(tmp_path, "postgresql+psycopg://nobody@127.0.0.1:1/none", WEBHOOK, METRICS)
    with running(config) as daemon:
        port = _port(daemon)
        assert _asked(_port(daemon, "webhook listening"), "/a", BODY) == (200, "+OK")
        assert _asked(port, "/readyz") == (200, "ok\n")
        assert _asked(port, "/healthz") == (200, "ok\n")
        told = _asked(port, "/metrics")[1]
        assert "ingestor_archive_writable 0.0" in told
        assert "ingestor_spool_posts 1.0" in told
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("archive", "spool", "status"),
    [(None, None, 200), ("down", None, 200), (None, "full", 200), ("down", "full", 503)],
)
def test_ready_means_that_a_post_can_be_made_durable(
    tmp_path: Path, archive: str | None, spool: str | None, status: int
) -> None:
    """In the archive or in the spool: a balancer must not drop who can still spool."""
    settings = Settings.model_validate({"database": {"url": f"sqlite:///{tmp_path}/a.db"}})
    live = Live(settings, listener=cast("Any", SimpleNamespace(keeper=SimpleNamespace(trouble=spool))))
    live.writer = cast("Any", SimpleNamespace(trouble=archive, queued=0))

    assert Pages(live).answer("/readyz")[0] == status


def test_a_full_disk_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer with nothing to do has not met it yet: the disk is looked at when somebody asks."""
    settings = Settings.model_validate({"database": {"url": f"sqlite:///{tmp_path}/a.db"}})
    live = Live(settings, listener=cast("Any", SimpleNamespace(keeper=SimpleNamespace(trouble=None))))
    live.writer = cast("Any", SimpleNamespace(trouble=None, queued=0))
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    assert Pages(live).answer("/readyz") == (
        503, "text/plain; charset=utf-8", b"archive: its disk is full; spool: its disk is full\n"
    )  # fmt: skip


def test_a_part_that_hangs_is_not_healthy(tmp_path: Path) -> None:
    """/healthz names it, and its number is hidden should a mailbox be called by one."""
    settings = Settings.model_validate({"database": {"url": f"sqlite:///{tmp_path}/a.db"}})
    pages = Pages(Live(settings, hanging=lambda: [f"mailbox {NUMBER}"]))

    assert pages.answer("/healthz")[::2] == (503, b"hanging: mailbox \xe2\x80\xa64567\n")


@pytest.mark.parametrize("listen", ["0.0.0.0:9469", "192.0.2.1:9469", "[::]:9469"])
def test_metrics_are_for_this_machine_alone(listen: str) -> None:
    """They would tell a network how much comes and what is wrong."""
    with pytest.raises(ValueError, match="address of this machine alone"):
        Settings.model_validate({"metrics": {"listen": listen}})


def test_alerts_and_dashboard_ask_for_what_there_is(tmp_path: Path) -> None:
    """Each metric that they name is one of ours, and promtool accepts the rules."""
    ours = set(re.findall(r'"(ingestor_\w+)"', (ROOT / "ingestor/watch/metrics.py").read_text()))
    ours |= {f"{name}_total" for name in ours}
    rules = ROOT / "config" / "prometheus-alerts.yml"
    dashboard = json.loads((ROOT / "config" / "grafana-dashboard.json").read_text())
    asked = " ".join(one["targets"][0]["expr"] for one in dashboard["panels"]) + rules.read_text()

    assert set(re.findall(r"\bingestor_\w+", asked)) <= ours
    _promtool("check", "rules", rules)
