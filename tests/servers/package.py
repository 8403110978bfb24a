"""Debian packages of the checkout, built for either release."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.servers.booted import ROOT, bootstrap, host_suite

INSTALL = "no package to build: apt-get install debhelper dh-python dpkg-dev lintian piuparts"
_BUILDS_WITH = "build-essential,debhelper,dh-python,python3-venv,ca-certificates"
# The network as this machine has it: names, authorities, and where pip looks.
_NETWORK = ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt", "etc/pip.conf")


def unavailable() -> str | None:
    """Return why no package can be built here, or None."""
    return (
        None if all(map(shutil.which, ("dh", "dh_python3", "lintian", "piuparts", "mmdebstrap"))) else INSTALL
    )


def build(suite: str, folder: Path) -> Path:
    """Build the package for Debian `suite` into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    if suite == host_suite():
        _run(["make", "-C", str(ROOT), "deb", f"DIST={folder}"])
    else:
        root = folder / "root"
        bootstrap(suite, root, _BUILDS_WITH)
        for name in _NETWORK:
            if Path("/", name).exists():
                shutil.copy(Path("/", name), root / name)
        copy = (
            'git -C "$2" ls-files -z | tar -C "$2" --null --files-from=- -cf - | tar -xf - -C "$1/checkout"'
        )
        script = (
            f'mkdir "$1/checkout" "$1/dist"; {copy}; mount -t proc proc "$1/proc";'
            ' mount --rbind /dev "$1/dev";'
            ' exec chroot "$1" env LANG=C.UTF-8 /checkout/systemd/debian/build /dist'
        )
        _run(["unshare", "--mount", "sh", "-ec", script, "sh", str(root), str(ROOT)])
        for package in (root / "dist").glob("*.deb"):
            shutil.move(package, folder)
        shutil.rmtree(root)
    [built] = folder.glob("*.deb")
    return built


def aged(package: Path, folder: Path) -> Path:
    """Return `package` as a version before it would have been: an older number, another settings file."""
    tree = folder / "tree"
    _run(["dpkg-deb", "-R", str(package), str(tree)])
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    control.write_text("".join("Version: 0.0.1\n" if line.startswith("Version:") else line for line in lines))
    settings = tree / "etc/ingestor/ingestor.toml"
    settings.write_text("# An earlier sentence.\n" + settings.read_text())
    old = folder / "old.deb"
    _run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(old)])
    shutil.rmtree(tree)
    return old


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
