"""A real PgBouncer in transaction mode before a test's PostgreSQL."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.servers.postgresql import PostgresqlServer, _free_port, _unprivileged

INSTALL = "PgBouncer is not installed; on Debian: apt-get install pgbouncer"

_CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server_port} user=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 2
unix_socket_dir =
ignore_startup_parameters = extra_float_digits
"""


def program() -> str | None:
    """Return the path of pgbouncer, None where there is none."""
    return shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


class PgBouncer:
    """One pooler with two server connections; as root it runs as the user of the PostgreSQL tests."""

    def __init__(self, server: PostgresqlServer) -> None:
        """Start it before `server` and wait until it takes connections."""
        self.folder = Path(tempfile.mkdtemp(prefix="pgb-", dir="/tmp"))
        self.port = _free_port()
        (self.folder / "pgbouncer.ini").write_text(
            _CONFIGURATION.format(server_port=server.port, port=self.port, folder=self.folder)
        )
        (self.folder / "users.txt").write_text('"app" ""\n')
        before: list[str] = []
        user = _unprivileged()
        if user is not None:
            shutil.chown(self.folder, user.pw_uid, user.pw_gid)
            before = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*before, program() or "pgbouncer", str(self.folder / "pgbouncer.ini")],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text(errors="replace")) from None
                time.sleep(0.05)
            else:
                return

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database behind it."""
        return f"postgresql+psycopg://app@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        """End it and remove everything of it."""
        self._process.terminate()
        self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
