"""The README is true: every command and every statement in it runs."""

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from ingestor.settings import load
from tests import readme
from tests.sample_mails import generate
from tests.servers.postgresql import PostgresqlServer

PLACES = {
    "checkout", "guest", "sandbox", "sql", "auditor", "service", "postgresql", "listener", "proxy",
    "campaign", "waiting", "chatbot", "agile", "balancer",
}  # fmt: skip
MAILS = [mail.raw for mail in generate(60, seed=3)]
ROOT = readme.ROOT
# What the README's calls of sqlite3 print, where that program is missing.
SQLITE = (
    "import sqlite3, sys; [print(*row, sep='|') for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])]"
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with old mailboxes, a configuration, and an archive that has been filled from others."""
    folder = tmp_path_factory.mktemp("sandbox")
    mbox = b"".join(b"From sms Mon May 11 10:00:00 2026\n" + _lf(mail) + b"\n" for mail in MAILS[:20])
    (folder / "old.mbox").write_bytes(mbox)
    for name in ("cur", "new", "tmp"):
        (folder / "Maildir" / name).mkdir(parents=True)
    for number, mail in enumerate(MAILS[20:40]):
        (folder / "Maildir" / "cur" / f"{number}.host:2,S").write_bytes(_lf(mail))
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        for number, mail in enumerate(MAILS[40:]):
            archive.writestr(f"{number}.eml", mail)
    (folder / "ingestor.toml").write_text(f'[database]\nurl = "sqlite:///{folder}/archive.db"\n')
    _shell(folder, "ingestor import old.mbox --quiet")
    return folder


def test_every_block_says_where_it_is_tested() -> None:
    """No command or statement stands in the README without a test."""
    untested = [
        (language, place)
        for language, place in readme.languages_and_places()
        if language in {"sh", "sql", "nginx", "caddy", "haproxy"} and place not in PLACES
    ]

    assert untested == []


@pytest.mark.parametrize("block", readme.blocks("sandbox"))
def test_the_commands_run_as_written(sandbox: Path, block: str) -> None:
    """Each command for an archive ends well, in the README's own words."""
    for command in block.splitlines():
        done = _shell(sandbox, command)

        # These may tell the truth about an archive that no daemon feeds, and that no mailbox is configured.
        allowed = {"ingestor status": {0, 1}, "ingestor check": {0, 2}}.get(
            " ".join(command.split()[:2]), {0}
        )
        assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "target", [line.split()[1] for block in readme.blocks("checkout") for line in block.splitlines()]
)
def test_the_make_targets_exist(target: str) -> None:
    """Every make target that the README names is one."""
    assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True).returncode == 0


def test_make_run_leaves_an_archive_and_ends() -> None:
    """`make run` ends by itself with exactly one database of at least twenty SMS."""
    done = subprocess.run(["make", "run"], cwd=ROOT, capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stdout + done.stderr
    [archive] = (ROOT / "demo").glob("*.db")
    with closing(sqlite3.connect(f"file:{archive}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM inbound_sms").fetchone()[0] >= 20


def test_continuous_integration_runs_the_same_test_command() -> None:
    """CI ends with the README's own `make test`."""
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")


def test_every_statement_runs(archive_url: str) -> None:
    """Each SQL statement of the README is answered by both databases."""
    _upgrade(archive_url)
    engine = sqlalchemy.create_engine(archive_url)
    with engine.connect() as connection:
        for statement in ";".join(readme.blocks("sql")).split(";"):
            if statement.strip():
                connection.execute(sqlalchemy.text(statement)).all()
    engine.dispose()


def test_every_column_of_the_views_is_documented(sandbox: Path) -> None:
    """The README's tables name exactly the columns that the views have."""
    with closing(sqlite3.connect(sandbox / "archive.db")) as connection, connection:
        for view in ("inbound_sms", "quarantine"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({view})")]
            table = readme.TEXT.split(f"**`{view}`**")[1].split("\n**")[0]
            first_cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
            documented = re.findall(r"`(\w+)`", " ".join(first_cells))
            assert documented == columns


def test_every_log_line_that_is_explained_exists() -> None:
    """The README explains lines that the program really writes."""
    sources = "".join(path.read_text() for path in (ROOT / "ingestor").rglob("*.py"))
    table = readme.TEXT.split("| the log says |")[1].split("\n\n")[0]
    lines = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)

    assert len(lines) > 8
    assert [line for line in lines if f'"{line}' not in sources] == []


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", readme.TEXT, re.DOTALL))
def test_every_configuration_is_valid(tmp_path: Path, example: str) -> None:
    """Each configuration in the README is accepted as it stands."""
    file = tmp_path / "ingestor.toml"
    file.write_text(example)

    load(file, None)


def test_the_database_recipe_makes_a_database_that_the_program_takes(
    postgresql_server: PostgresqlServer,
) -> None:
    """The README's psql line makes a role and a database in which `db upgrade` works."""
    [block] = readme.blocks("postgresql")
    command = block.strip().replace(
        "psql ", f"psql -X -v ON_ERROR_STOP=1 -d '{_libpq(postgresql_server.url())}' ", 1
    )

    made = subprocess.run(["sh", "-ec", command], capture_output=True, text=True)

    assert made.returncode == 0, made.stderr
    _upgrade(postgresql_server.url("sms", "ingestor"))


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def _upgrade(url: str) -> None:
    command = [sys.executable, "-m", "ingestor", "--database-url", url, "db", "upgrade"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    scripts = Path(sys.executable).parent
    path, configuration = f"{scripts}:{os.environ['PATH']}", str(folder / "ingestor.toml")
    environment = {**os.environ, "PATH": path, "INGESTOR_CONFIG": configuration}
    if command.startswith("sqlite3") and not shutil.which("sqlite3"):
        command = command.replace("sqlite3 -readonly", shlex.join([sys.executable, "-c", SQLITE]), 1)
    return subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)


def _lf(mail: bytes) -> bytes:
    return mail.replace(b"\r\n", b"\n")
