"""A booted systemd: a throw-away Debian in a container, with `ingestor` installed or not yet.

The guest shares the host's loopback, so that a Dovecot of the tests is within its reach.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL = "no container to boot: as root, apt-get install systemd-container mmdebstrap"
_PACKAGES = "systemd,systemd-sysv,dbus,python3,sqlite3"
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unavailable() -> str | None:
    """Return why no guest can be booted here, or None."""
    tools = ("systemd-nspawn", "mmdebstrap", "nsenter", "unshare")
    return None if all(map(shutil.which, tools)) else INSTALL


def host_suite() -> str:
    """Return the name of the Debian that this machine runs."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    return release["VERSION_CODENAME"].strip('"')


def bootstrap(suite: str, root: Path, packages: str) -> None:
    """Make a Debian in the folder `root`; `packages` are parted by commas."""
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", suite, str(root)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")


class BootedGuest:
    """One guest, booted until `close`. What is written into `root` is seen inside at once."""

    def __init__(self, suite: str | None = None, *, install: bool = True) -> None:
        """Boot Debian `suite`, this machine's own where it is None; `install` runs `make install` before."""
        self._folder = Path(tempfile.mkdtemp(prefix="guest"))
        self._folder.chmod(0o755)  # the guest's services must reach their own root
        self.root = self._folder / "root"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = ""
        try:
            bootstrap(suite or host_suite(), self.root, _PACKAGES)
            if install:
                self.make("install")
            self._boot()
        except BaseException:
            self.close()
            raise

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `command` inside as root."""
        enter = [
            "nsenter",
            "-t",
            self._leader,
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "env",
            "-i",
            f"PATH={_PATH}",
            "LANG=C.UTF-8",
        ]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=120)

    def show(self, unit: str, name: str) -> str:
        """Return the property `name` of `unit`."""
        return self.run("systemctl", "show", unit, "--property", name, "--value").stdout.strip()

    def journal(self, unit: str) -> str:
        """Return all that `unit` said, and systemd about it."""
        return self.run("journalctl", "--unit", unit, "--no-pager", "--output", "cat").stdout

    def close(self) -> None:
        """Power the guest off and remove it."""
        if self._process:
            if self._leader:
                self.run("systemctl", "poweroff")
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def make(self, target: str) -> None:
        """Call `make TARGET` for the guest's own paths; its /opt is laid over the host's meanwhile."""
        (self.root / "opt").mkdir(exist_ok=True)
        folders = f"SYSCONFDIR={self.root}/etc LIBDIR={self.root}/usr/lib BINDIR={self.root}/usr/local/bin"
        make = f"make -C {ROOT} {target} PYTHON=/usr/bin/python3 {folders}"
        command = ["unshare", "--mount", "sh", "-ec", f"mount --bind {self.root}/opt /opt; {make}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def _boot(self) -> None:
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--register=no", "--keep-unit"]
        command += [f"--machine=guest{os.getpid()}", "--link-journal=no", "--boot"]
        console = self._folder / "console"
        with console.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = subprocess.run(
                ["pgrep", "--parent", str(self._process.pid), "--exact", "systemd"],
                capture_output=True,
                text=True,
            )
            if found.stdout.strip():
                self._leader = found.stdout.split()[0]
                if self.run("systemctl", "is-system-running", "--wait").stdout.strip() in {
                    "running",
                    "degraded",
                }:
                    return
            time.sleep(0.2)
        raise AssertionError(f"the guest did not boot within a minute: {console.read_text(errors='replace')}")
