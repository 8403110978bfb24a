"""The shipped unit under a real systemd, installed as the README says, against a real Dovecot."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import readme
from tests.conftest import missing
from tests.intake.listener.crowd import Steady
from tests.sample_mails import SampleMail, generate
from tests.servers import booted, dovecot
from tests.waiting import until

pytestmark = [pytest.mark.systemd, pytest.mark.dovecot, pytest.mark.torture, pytest.mark.timeout(900)]

CONFIGURATION = """
[database]
url = "sqlite:////var/lib/ingestor/archive.db"
[[mailbox]]
name = "main"
host = "127.0.0.1"
port = {port}
ca_file = "/etc/ingestor/ca.pem"
username = "{user}"
password_credential = "imap-main"
poll_seconds = 2
"""
DROP_IN = "[Service]\nWatchdogSec=10\nRestartSec=1\n"
WEBHOOK = """
[database]
url = "sqlite:////var/lib/ingestor/archive.db"
[webhook]
listen = "127.0.0.1:1"
[[webhook.endpoint]]
provider = "agile"
path = "/agile-0123456789abcdef0123456789abcdef"
"""
# The guest has no sudo: root's part of it, and `sudo -u USER`, in one line.
SUDO = 'sudo() { if [ "$1" = -u ]; then u=$2; shift 2; runuser -u "$u" -- "$@"; else "$@"; fi; }'
MAILS = list(generate(30, seed=11))


@pytest.fixture(scope="module")
def guest() -> Iterator[booted.BootedGuest]:
    """A booted guest with the program installed."""
    if os.geteuid() != 0:
        pytest.skip("only root can boot a guest")
    reason = booted.unavailable() or dovecot.unavailable()
    if reason:
        missing(reason)
    running = booted.BootedGuest()
    yield running
    running.close()


@pytest.fixture(scope="module")
def server() -> Iterator[dovecot.DovecotServer]:
    """A Dovecot on the loopback that the guest shares."""
    running = dovecot.DovecotServer()
    yield running
    running.close()


def test_restarts_behind_the_socket_refuse_lose_and_double_nothing(guest: booted.BootedGuest) -> None:
    """Two hundred POSTs a second, each over a connection of its own, while the unit restarts twenty times."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    (guest.root / "etc/ingestor/ingestor.toml").write_text(WEBHOOK)
    place = guest.root / "etc/systemd/system/ingestor.socket.d/test.conf"
    place.parent.mkdir(parents=True)
    place.write_text("[Socket]\nListenStream=\nListenStream={}:{}\n".format(*address))
    guest.run("systemctl", "daemon-reload")
    started = guest.run("systemctl", "enable", "--now", "ingestor.socket")
    assert started.returncode == 0, started.stderr
    with Steady(address, "/agile-0123456789abcdef0123456789abcdef", 200) as posts:
        until(lambda: guest.show("ingestor", "ActiveState") == "active", "a start by a POST", seconds=60)
        for _ in range(20):
            restarted = guest.run("systemctl", "restart", "ingestor")
            assert restarted.returncode == 0, guest.journal("ingestor")
        posts.end()

    assert posts.faults == []
    until(lambda: _stored(guest) == posts.sent, "what was spooled", seconds=60, pause=0.5)
    assert _stored(guest, "arrivals") == posts.sent
    guest.run("systemctl", "disable", "--now", "ingestor.socket", "ingestor")
    for leftover in (guest.root / "var/lib/ingestor").glob("archive.db*"):
        leftover.unlink()


def test_the_unit_lives_a_whole_life(guest: booted.BootedGuest, server: dovecot.DovecotServer) -> None:
    """Installed, started, fed, killed, frozen, reloaded well and badly, stopped: each SMS is there once."""
    user = server.account()
    server.deliver(user, [mail.raw for mail in MAILS[:10]])
    _configure(guest.root, server, user)

    _follow_the_readme(guest)
    _until_it_runs_with(guest, MAILS[:10])
    assert guest.show("ingestor", "User") == "ingestor"

    guest.run("systemctl", "kill", "--signal=KILL", "ingestor")
    server.deliver(user, [mail.raw for mail in MAILS[10:20]])
    until(lambda: guest.show("ingestor", "NRestarts") == "1", "the restart after a kill", seconds=60)
    _until_it_runs_with(guest, MAILS[:20])

    guest.run("systemctl", "kill", "--signal=STOP", "ingestor")
    server.deliver(user, [mail.raw for mail in MAILS[20:]])
    until(lambda: guest.show("ingestor", "NRestarts") == "2", "the watchdog", seconds=60)
    _until_it_runs_with(guest, MAILS)
    until(lambda: "Watchdog timeout" in guest.journal("ingestor"), "the watchdog's line", seconds=60)

    assert guest.run("systemctl", "reload", "ingestor").returncode == 0
    until(lambda: "configuration reloaded" in guest.journal("ingestor"), "the reload", seconds=60)
    (guest.root / "etc/ingestor/ingestor.toml").write_text("[mailbx]\n")
    assert guest.run("systemctl", "reload", "ingestor").returncode != 0
    assert "reload refused" not in guest.journal("ingestor")  # it was not even asked for
    guest.run("systemctl", "kill", "--signal=HUP", "ingestor")
    refusal = "unknown key; did you mean mailbox?"
    until(lambda: refusal in guest.journal("ingestor"), "the refusal", seconds=60)
    until(lambda: guest.show("ingestor", "ActiveState") == "active", "the end of the reload", seconds=60)
    until(lambda: "reload refused" in _priority(guest, "3"), "the refusal among the errors", seconds=60)
    assert "configuration reloaded" in _priority(guest, "6")
    refused = "reload refused, the old configuration stays"
    until(lambda: refused in guest.show("ingestor", "StatusText"), "the refusal in the status", seconds=60)

    guest.run("systemctl", "stop", "ingestor")
    assert guest.show("ingestor", "Result") == "success"
    assert guest.run("systemctl", "start", "ingestor").returncode != 0
    assert guest.show("ingestor", "ExecMainStatus") == "2"
    assert guest.show("ingestor", "ActiveState") == "failed"
    assert '{"event": "/etc/ingestor/ingestor.toml:1: mailbx: unknown key' in _priority(guest, "3")
    said = guest.run("journalctl", "--no-pager", "--output", "cat", "_SYSTEMD_UNIT=ingestor.service").stdout
    odd = [line for line in said.splitlines() if not line.startswith(('{"event": ', '{"run": '))]
    assert not odd, odd
    assert not any("timestamp" in json.loads(line) for line in said.splitlines())


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_a_start_without_its_archive_keeps_nobody_waiting(
    guest: booted.BootedGuest, server: dovecot.DovecotServer, kind: str
) -> None:
    """`systemctl start` ends in seconds and well, and `systemctl status` says what is waited for."""
    _configure(guest.root, server, server.account())
    url = "postgresql://u@127.0.0.1:9/sms" if kind == "postgresql" else "sqlite:////var/lib/ingestor/odd.db"
    file = guest.root / "etc/ingestor/ingestor.toml"
    file.write_text(file.read_text().replace("sqlite:////var/lib/ingestor/archive.db", url))
    guest.run("sh", "-c", "seq 9999 > /var/lib/ingestor/odd.db; chown ingestor: /var/lib/ingestor/odd.db")
    guest.run("systemctl", "stop", "ingestor")
    guest.run("systemctl", "reset-failed", "ingestor")
    assert guest.run("timeout", "30", "systemctl", "start", "ingestor").returncode == 0
    assert guest.show("ingestor", "ActiveState") == "active"
    assert guest.show("ingestor", "StatusText").startswith("waiting for the archive: ")
    guest.run("sleep", "11")  # longer than the drop-in's WatchdogSec
    assert guest.show("ingestor", "NRestarts") == "0"
    assert guest.run("systemctl", "stop", "ingestor").returncode == 0


def _priority(guest: booted.BootedGuest, priority: str) -> str:
    """Return the daemon's lines of exactly this priority, without systemd's own."""
    told = ("_SYSTEMD_UNIT=ingestor.service", f"PRIORITY={priority}")
    return guest.run("journalctl", "--no-pager", "--output", "cat", *told).stdout


def _configure(root: Path, server: dovecot.DovecotServer, user: str) -> None:
    (root / "etc/ingestor/ca.pem").write_bytes(server.ca_file.read_bytes())
    (root / "etc/ingestor/ingestor.toml").write_text(CONFIGURATION.format(port=server.imaps_port, user=user))
    drop_in = root / "etc/systemd/system/ingestor.service.d/test.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(DROP_IN)


def _follow_the_readme(guest: booted.BootedGuest) -> None:
    """Run the README's installation as written; the guest itself was made with its first command."""
    install, *rest = [line for block in readme.blocks("guest") for line in block.splitlines()]
    assert install == "sudo make install PYTHON=/usr/bin/python3"
    for line in rest:
        done = guest.run("sh", "-ec", f"{SUDO}; {line.replace('the password', dovecot.PASSWORD)}")
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}{guest.journal('ingestor')}"
        if "status" in line:
            assert "main" in done.stdout


def _until_it_runs_with(guest: booted.BootedGuest, mails: list[SampleMail]) -> None:
    """Wait for these mails and for READY, which may come after them.

    Before READY systemd watches for TimeoutStartSec, not for the watchdog, and a reload is the start in hand.
    """
    until(lambda: _stored(guest) == _expected(mails), f"{len(mails)} mails", seconds=60)
    until(lambda: guest.show("ingestor", "ActiveState") == "active", "the end of the start", seconds=60)


def _expected(mails: list[SampleMail]) -> int:
    fields = ("originator", "destination", "date_time", "text")
    return len({tuple(mail.expected[name] for name in fields) for mail in mails if mail.expected})


def _stored(guest: booted.BootedGuest, table: str = "inbound_sms") -> int:
    counted = guest.run(
        "sqlite3", "-readonly", "/var/lib/ingestor/archive.db", f"SELECT count(*) FROM {table}"
    ).stdout.strip()
    return int(counted or -1)


def test_make_uninstall_leaves_settings_and_archive(guest: booted.BootedGuest) -> None:
    """Nothing else of `make install` is there any more: no program, unit, description of user or folders."""
    guest.run("systemctl", "disable", "--now", "ingestor", "ingestor.socket", "ingestor-backup.timer")
    guest.make("uninstall")

    left = {
        path.relative_to(guest.root) for path in guest.root.rglob("*ingestor*") if path.name != "ingestor-ci"
    }
    assert {str(path) for path in left if path.parts[0] in {"opt", "usr"}} == set()
    assert (guest.root / "etc/ingestor/ingestor.toml").exists()
    assert (guest.root / "var/lib/ingestor/archive.db").exists()
