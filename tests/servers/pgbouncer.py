"""A real PgBouncer in transaction mode before one database, with two sessions for everybody."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

INSTALL = "PgBouncer is not installed; on Debian: apt-get install pgbouncer"

_CONFIGURATION = """[databases]
{database} = user={user} host=127.0.0.1 port={server} dbname={database}
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
    """Return the path of the program, None where there is none."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """One pooler; as root it runs as `nobody`, as it refuses root."""

    def __init__(self, server: int, database: str, user: str = "app") -> None:
        """Start it before `database` of the PostgreSQL at port `server`, and wait until it listens."""
        self.folder = Path(tempfile.mkdtemp(prefix="bouncer-", dir="/tmp"))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self._url = f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            _CONFIGURATION.format(
                database=database, user=user, server=server, port=self.port, folder=self.folder
            )
        )
        (self.folder / "users.txt").write_text(f'"{user}" ""\n')
        command = [program() or "pgbouncer", str(config)]
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, nobody.pw_uid, nobody.pw_gid)
            ids = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"]
            command = ["setpriv", *ids, "--clear-groups", *command]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        self._wait()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database, by way of the pooler."""
        return self._url

    def close(self) -> None:
        """Stop it and remove everything of it."""
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)
