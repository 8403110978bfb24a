"""The Debian package on both releases: judged by lintian and piuparts, and its life in a booted guest."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.sample_mails import generate
from tests.servers import booted, package
from tests.servers.dovecot import PASSWORD, DovecotServer
from tests.waiting import until

pytestmark = [pytest.mark.timeout(1800), pytest.mark.torture, pytest.mark.systemd, pytest.mark.dovecot]

MAILS = [mail.raw for mail in generate(20, seed=3, unrelated=0, duplicates=0, broken=0)]
SITE = """
[[mailbox]]
name = "main"
host = "127.0.0.1"
port = {port}
security = "plain"
username = "{user}"
password = "{password}"
poll_seconds = 2
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest) -> str:
    """A release of Debian."""
    if os.geteuid() != 0:
        pytest.skip("only root can boot a guest")
    if reason := booted.unavailable() or package.unavailable():
        missing(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def built(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for that release."""
    return package.build(suite, tmp_path_factory.mktemp(f"deb-{suite}"))


@pytest.fixture
def guest(suite: str) -> Iterator[booted.BootedGuest]:
    """A booted guest of that release without the program."""
    running = booted.BootedGuest(suite, install=False)
    yield running
    running.close()


def test_lintian_finds_nothing(built: Path) -> None:
    """Neither an error nor a warning."""
    judged = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", str(built)], capture_output=True, text=True
    )

    assert judged.returncode == 0, judged.stdout


def test_piuparts_finds_nothing(suite: str, built: Path, tmp_path: Path) -> None:
    """In a bare release it is installed and purged, and leaves nothing of its own."""
    bare, log = tmp_path / "bare.tar.gz", tmp_path / "log"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite, str(bare)], check=True)
    # What its dependencies leave is theirs, as /var/log/private of systemd.
    options = [f"--distribution={suite}", f"--basetgz={bare}", "--no-upgrade-test", "--warn-on-others"]

    judged = subprocess.run(["piuparts", *options, f"--log-file={log}", str(built)], capture_output=True)

    assert judged.returncode == 0, log.read_text()[-4000:]


def test_it_holds_man_page_and_completion(built: Path, tmp_path: Path) -> None:
    """Both name every command, and bash completes a verb."""
    subprocess.run(["dpkg-deb", "-x", str(built), str(tmp_path)], check=True)
    share = tmp_path / "usr/share"
    manual = subprocess.run(
        ["zcat", str(share / "man/man1/ingestor.1.gz")], capture_output=True, text=True
    ).stdout
    script = (
        f'. {share}/bash-completion/completions/ingestor; COMP_WORDS=(ingestor quarantine ""); COMP_CWORD=2;'
        ' _ingestor; echo "${COMPREPLY[@]}"'
    )
    completed = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.split()

    assert all(f".SS {name}\n" in manual for name in ("run", "import", "quarantine retry", "db upgrade"))
    assert {"list", "retry", "discard"} <= set(completed)


def test_it_lives_a_whole_life(
    guest: booted.BootedGuest, built: Path, dovecot: DovecotServer, tmp_path: Path
) -> None:
    """Installed, set up in conf.d, upgraded under way without a question, removed, purged: no SMS is lost."""
    user = dovecot.account()
    dovecot.deliver(user, MAILS[:10])
    _install(guest, package.aged(built, tmp_path))
    assert guest.run("systemctl", "is-enabled", "ingestor").stdout.strip() == "disabled"
    site = guest.root / "etc/ingestor/conf.d/site.toml"
    site.write_text(SITE.format(port=dovecot.imap_port, user=user, password=PASSWORD))
    site.chmod(0o640)
    checked = guest.run("runuser", "-u", "ingestor", "--", "ingestor", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    started = guest.run("systemctl", "enable", "--now", "ingestor")
    assert started.returncode == 0, guest.journal("ingestor")
    until(lambda: _stored(guest) == 10, "the first mails", seconds=60, pause=0.5)
    before = guest.show("ingestor", "MainPID")

    _install(guest, built)
    assert "An earlier sentence" not in (guest.root / "etc/ingestor/ingestor.toml").read_text()
    assert guest.show("ingestor", "ActiveState") == "active", guest.journal("ingestor")
    assert guest.show("ingestor", "MainPID") != before
    dovecot.deliver(user, MAILS[10:])
    until(lambda: _stored(guest) == len(MAILS), "the mails after the upgrade", seconds=60, pause=0.5)

    removed = guest.run("dpkg", "--remove", "ingestor")
    assert removed.returncode == 0, removed.stderr
    assert guest.show("ingestor", "ActiveState") != "active"
    assert site.exists()
    assert _stored(guest) == len(MAILS)
    purged = guest.run("dpkg", "--purge", "ingestor")
    assert purged.returncode == 0, purged.stderr
    assert "stays in /var/lib/ingestor" in purged.stdout
    assert not (guest.root / "etc/ingestor").exists()
    assert not (guest.root / "usr/lib/ingestor").exists()
    assert _stored(guest) == len(MAILS)


def _install(guest: booted.BootedGuest, file: Path) -> None:
    shutil.copy(file, guest.root / "ingestor.deb")
    done = guest.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--install", "/ingestor.deb")
    assert done.returncode == 0, done.stdout + done.stderr


def _stored(guest: booted.BootedGuest) -> int:
    query = "SELECT count(*) FROM inbound_sms"
    counted = guest.run("sqlite3", "-readonly", "/var/lib/ingestor/archive.db", query).stdout.strip()
    return int(counted or -1)
