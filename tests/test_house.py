"""The house itself: which room may know which, and what a stranger must never find in it."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

from ingestor import __version__

MOST_FILES = 174

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ingestor"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# Ground floor first: a room imports only rooms that stand at or above its own line.
FLOORS = [
    {"errors", "numbers", "pauses", "redaction", "timestamps", "record"},
    {"providers"},
    {"settings", "logs"},
    {"archive", "http", "logins"},
    {"intake"},
    {"replies"},
    {"watch"},
    {"service"},
    {"demo"},
    {"cli"},
]


def _floor(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def _imported_rooms(source: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "ingestor" else [f"ingestor.{a.name}" for a in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("ingestor.")}
    return rooms & set().union(*FLOORS)


@pytest.mark.parametrize(
    "source", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_room_imports_only_rooms_above_it(source: Path) -> None:
    """Data flows one way: no module imports a room that stands below its own."""
    room = source.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in {"__init__", "__main__"}:
        assert _imported_rooms(source) <= ({"cli"} if room == "__main__" else set())
        return

    too_low = {other for other in _imported_rooms(source) if _floor(other) > _floor(room)}

    assert set() == too_low


def _module(name: str) -> Path | None:
    """Return the file of ours that a dotted name stands for, None where it is no module."""
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported_files(source: Path) -> set[Path]:
    """Return the files of ours that `source` imports, also inside functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if _module(name) else node.module for name in submodules}
    return {file for name in names if name.startswith("ingestor") and (file := _module(name))} - {source}


def test_no_file_imports_one_that_imports_it() -> None:
    """Each file can be read after those it imports: there is no circle, not even for the type checker."""
    imported = {source: _imported_files(source) for source in PACKAGE.rglob("*.py")}

    try:
        TopologicalSorter(imported).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(str(file.relative_to(ROOT)) for file in circle.args[1]))


def test_intakes_do_not_know_each_other() -> None:
    """The mailbox, the files and the listener share the writer, and nothing of one another."""
    ways = {"mailbox": set[str](), "files": set[str](), "listener": set[str]()}
    for source in (PACKAGE / "intake").rglob("*.py"):
        way = next(
            (way for way in ways if source.relative_to(PACKAGE / "intake").parts[0].startswith(way)), None
        )
        if way:
            ways[way] |= set(
                re.findall(r"ingestor\.intake(?:\.| import )(mailbox|files|listener)", source.read_text())
            )

    assert all(not (known - {way}) for way, known in ways.items()), ways


def test_no_source_file_outgrows_its_room() -> None:
    """A file of more than 400 lines wants a second room."""
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in _tracked("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    ]

    assert long == []


def test_the_house_has_no_more_files_than_a_newcomer_can_walk_through() -> None:
    """Beside the rooms of answers and the watch, which came later, the product is at most so many files."""
    later = {"replies", "watch"}
    files = [path for path in PACKAGE.rglob("*.py") if not later & {*path.relative_to(PACKAGE).parts}]
    print(
        f"{len(files)} files, median {median(len(one.read_text().splitlines()) for one in files):.0f} lines"
    )

    assert len(files) <= MOST_FILES


def test_nothing_is_left_for_later() -> None:
    """No stub and no reminder stays behind in the product."""
    words = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    found = [
        str(path.relative_to(ROOT)) for path in _tracked("ingestor/*.py") if words.search(path.read_text())
    ]

    assert found == []


def test_every_test_says_what_it_holds() -> None:
    """Each test function carries a sentence."""
    silent = [
        f"{path.relative_to(ROOT)}::{node.name}"
        for path in _tracked("tests/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


def test_skips_are_told_by_reason(tmp_path: Path) -> None:
    """A machine without PostgreSQL skips hundreds of tests for one reason, and reads it in one line."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_terminal_summary\n")
    (tmp_path / "test_three.py").write_text(
        "import pytest\n@pytest.mark.parametrize('name', 'abc')\n"
        "def test_one(name): pytest.skip('no server' if name < 'c' else 'no disk')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    told = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    ).stdout

    assert "    2  no server\n    1  no disk\n" in told


def test_the_pinned_requirements_name_no_registry() -> None:
    """The requirements file carries versions and hashes, and no address."""
    text = (ROOT / ".ci" / "requirements.txt").read_text()

    assert "://" not in text
    assert "--index-url" not in text
    assert text.count("--hash=sha256:") >= text.count("==")


def test_contributing_names_what_is_there() -> None:
    """Every path in CONTRIBUTING.md is tracked, and what it says to stand in a file stands there."""
    tracked = {str(path.relative_to(ROOT)) for path in _tracked()}
    named = re.findall(
        r"`([\w./-]*(?:/|\.md|\.toml|\.service)[\w./-]*)(?:: (\w+))?`", CONTRIBUTING.read_text()
    )
    absent = [
        f"{path} {name}"
        for path, name in named
        if not any(one.startswith(path) if path.endswith("/") else one == path for one in tracked)
        or (name and not re.search(rf"\b{name}\b", (ROOT / path).read_text()))
    ]

    assert len(named) > 25
    assert absent == []


def test_the_version_is_one() -> None:
    """What `--version`, `runs` and metrics say is what a release is made of."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
