"""The folder of the demo: its configuration, its archive (read while the daemon writes it, by the SQL that
everybody may use), and how the next demo clears them away."""

import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ingestor.demo.imap import CONFIRMATION, NUMBERS
from ingestor.errors import ConfigurationError

OUTCOMES = ("stored", "duplicate", "ignored", "quarantined", "failed")
PAUSE = 0.01
MARK = "# Written by `ingestor demo`; the next demo in this folder writes it anew."


class Folder:
    """The files of a demo. `afresh` says that those of an earlier one were cleared away."""

    def __init__(self, path: Path, *, afresh: bool = False) -> None:
        self.path, self.afresh = path, afresh
        self.configuration = path / "ingestor.toml"
        self.archive = path / "archive.db"
        self.password = path / "imap-password"
        self.api_key = path / "agile-api-key"
        self.log = path / "daemon.log"  # what the daemon wrote on stdout and stderr


def prepare(path: Path) -> Folder:
    """Return the folder at `path`, empty of an earlier demo: only files that a demo wrote are removed.

    Raises ConfigurationError where an archive or a configuration is none of ours.
    """
    folder = Folder(path)
    theirs = [folder.configuration, folder.archive, *_beside(folder.archive)]
    found = [file for file in theirs if file.exists()]
    if found and not _marked(folder.configuration):
        raise ConfigurationError(
            f"{found[0]} was not made by a demo; call the demo from another folder, or move {path} away"
        )
    try:
        path.mkdir(exist_ok=True)
        for file in [*found, folder.password, folder.api_key, folder.log]:
            file.unlink(missing_ok=True)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise ConfigurationError(f"{reason}; call the demo from a folder of yours") from None
    return Folder(path, afresh=bool(found))


@dataclass(frozen=True, slots=True)
class Agile:
    """Where the demo's Agile takes messages, and to which of our ports and paths it posts its reports."""

    base_url: str
    port: int
    path: str


def write(folder: Folder, agile: Agile, *, port: int, username: str, password: str) -> None:
    """Write the configuration of a daemon that reads the mailbox on `port` of this machine and answers."""
    _write_private(folder.password, password + "\n")
    _write_private(folder.api_key, "demo\n")
    url = "sqlite:///" + quote(str(folder.archive.absolute()))
    _write_private(
        folder.configuration,
        f"""{MARK}
# The mailbox was in memory and is gone. The archive stays: every command but `run` and `check` works on it.

[database]
url = {json.dumps(url)}

[agile]
numbers = {json.dumps(NUMBERS)}

[[mailbox]]
name = "demo"
host = "127.0.0.1"
port = {port}
security = "plain"                  # never leaves this machine; a real one uses "tls"
username = {json.dumps(username)}
password_file = {json.dumps(str(folder.password.absolute()))}
idle = true                         # be told of new mail at once
after_store = "keep"

[agile.api]
base_url = {json.dumps(agile.base_url)}
api_key_file = {json.dumps(str(folder.api_key.absolute()))}

[[answer]]
name = "stop"
on = "opt_out"                      # the confirmation of a STOP
sender = {json.dumps(NUMBERS[0])}
text = {json.dumps(CONFIRMATION)}

[webhook]
listen = "127.0.0.1:{agile.port}"

[[webhook.endpoint]]
provider = "agile-reports"          # what became of each message
path = {json.dumps(agile.path)}
""",
    )


class ArchiveWatch:
    """A reader of the archive: what is new, and what the run's balance says."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._shown = 0

    def new_sms(self) -> Iterator[tuple[int, str, str, str]]:
        """Yield (id, received_at, originator, text) of each SMS that was not there before."""
        rows = self._connection.execute(
            "SELECT id, received_at, originator, text FROM inbound_sms WHERE id > ? ORDER BY id",
            (self._shown,),
        )
        for row in rows.fetchall():
            self._shown = row[0]
            yield row

    def newest_answer(self) -> tuple[str, str, str] | None:
        """Return sender, text and state of the answer to the newest SMS, once it has been delivered."""
        row = self._connection.execute(
            "SELECT sender, text, state FROM answers_sent WHERE sms_id = ? AND state = 'delivered'",
            (self._shown,),
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def opt_outs(self) -> list[tuple[str, str]]:
        return self._connection.execute("SELECT number, scope FROM opt_outs ORDER BY 1").fetchall()

    def balance(self) -> dict[str, int]:
        row = self._connection.execute(
            "SELECT read, stored, duplicate, ignored, quarantined, failed FROM runs ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return dict(zip(("read", *OUTCOMES), row or (0,) * 6, strict=True))


@contextmanager
def watching(archive: Path, go_on: Callable[[], None], deadline: float) -> Iterator[ArchiveWatch]:
    """Give a reader of `archive` as soon as a run stands in it; raise TimeoutError at `deadline` (monotonic).

    `go_on` is called while nothing is there yet and raises when nothing will be.
    """
    while True:
        try:
            uri = f"file:{quote(str(archive.absolute()))}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)
        except sqlite3.OperationalError:
            pass
        else:
            with closing(connection):
                if _has_run(connection):
                    yield ArchiveWatch(connection)
                    return
        go_on()
        pause(deadline)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pause(deadline: float) -> None:
    """Wait a moment; raise TimeoutError when `deadline` (monotonic) has passed."""
    if time.monotonic() > deadline:
        raise TimeoutError
    time.sleep(PAUSE)


def _has_run(connection: sqlite3.Connection) -> bool:
    try:
        return bool(connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone())
    except sqlite3.OperationalError:
        return False


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _beside(archive: Path) -> list[Path]:
    return [archive.with_name(archive.name + suffix) for suffix in ("-wal", "-shm", "-journal")]


def _marked(configuration: Path) -> bool:
    try:
        return configuration.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError:
        return False
