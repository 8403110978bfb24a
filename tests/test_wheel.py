"""The built wheel, not the tree: what a server installs has to work alone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checked-out code."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("agile_sms_ingestor-*.whl"))


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
