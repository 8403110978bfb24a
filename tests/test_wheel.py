"""The built wheel and sdist, not the tree: what a server installs, and what is unpacked, work alone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def built(folder: Path, what: str) -> Path:
    """Build the checked-out code into `folder`; return the one file that comes of it."""
    command = [sys.executable, "-m", "build", what, "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("agile_sms_ingestor-*"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checked-out code."""
    return built(tmp_path_factory.mktemp("wheel"), "--wheel")


def test_the_sdist_is_the_checkout(tmp_path: Path) -> None:
    """Each file that is checked in is in it, what `make` calls with its mode, and nothing that was made."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    subprocess.run(["tar", "-xf", built(tmp_path, "--sdist"), "-C", tmp_path], check=True)
    [unpacked] = (one for one in tmp_path.iterdir() if one.is_dir())

    checked_in = set(filter(None, listed.stdout.split("\0")))
    found = {str(one.relative_to(unpacked)) for one in unpacked.rglob("*") if not one.is_dir()}
    assert sorted(checked_in - found) == []
    assert sorted(found - checked_in) == ["PKG-INFO"]
    assert [one for one in sorted(checked_in) if os.access(ROOT / one, os.X_OK)] == [
        one for one in sorted(checked_in) if os.access(unpacked / one, os.X_OK)
    ]
    for goal in ("run", "test"):
        said = subprocess.run(
            ["make", "-n", "--no-print-directory", goal],
            cwd=unpacked,
            capture_output=True,
            text=True,
            check=True,
        )
        script, requirements = said.stdout.split()[:2]
        assert (unpacked / script).is_file()
        assert (unpacked / requirements).is_file()


def test_the_wheel_carries_migrations_types_and_licence_and_no_tests(wheel: Path) -> None:
    """Migrations travel inside the package; tests do not travel at all."""
    names = zipfile.ZipFile(wheel).namelist()

    assert "ingestor/migrations/env.py" in names
    assert any(name.startswith("ingestor/migrations/versions/0001") for name in names)
    assert "ingestor/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "migrations/"))]


def test_the_installed_wheel_makes_an_archive(wheel: Path, tmp_path: Path) -> None:
    """`db upgrade` finds its migrations inside the installed package, far from any checkout."""
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    where = subprocess.run(
        [sys.executable, "-c", "import ingestor; print(ingestor.__file__)"],
        cwd=work, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    upgrade = subprocess.run(
        [sys.executable, "-m", "ingestor", "db", "upgrade"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert where.stdout.startswith(str(site))
    assert upgrade.returncode == 0, upgrade.stderr
    assert (work / "ingestor.db").stat().st_size > 0
