"""A real `ingestor run` in a process of its own, its log, and a service manager's ear."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.forked import Forked, serves
from tests.waiting import until


def mailbox(port: int, name: object = "main", **more: object) -> str:
    """Return the block of a mailbox on a loopback server without TLS."""
    keys: dict[str, object] = {
        "name": name, "host": "127.0.0.1", "port": port, "security": "plain", "username": "demo",
        "password": "demo", **more,
    }  # fmt: skip
    return "[[mailbox]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def configuration(folder: Path, url: str, *blocks: str) -> Path:
    """Write a configuration file with the archive at `url` and return its path."""
    path = folder / "ingestor.toml"
    path.write_text(f"[database]\nurl = {json.dumps(url)}\n\n" + "\n".join(blocks))
    path.chmod(0o600)
    return path


class Running:
    """One process of the program; use it through `running`."""

    def __init__(
        self, config: Path, *words: str, environment: Mapping[str, str] | None = None, fork: bool = True
    ) -> None:
        """Fork it, or start the program where that is needed (see `tests.forked`)."""
        self.config = config
        self._folder = tempfile.TemporaryDirectory(prefix="ing", dir="/tmp")  # a socket's path must be short
        self.log_path = Path(self._folder.name) / "log"
        self._said = Path(self._folder.name) / "out"
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(f"{self._folder.name}/notify")
        self._ear.setblocking(False)
        self._heard: list[str] = []
        clean = {key: value for key, value in os.environ.items() if not key.startswith("INGESTOR_")}
        clean |= {"NOTIFY_SOCKET": f"{self._folder.name}/notify", **(environment or {})}
        command = [sys.executable, "-m", "ingestor", "--config", str(config), *words]
        folder = config.parent  # with PostgreSQL it is the state directory, where the spool goes
        self.process: Forked | subprocess.Popen[bytes]
        with Path(os.devnull).open() as none, self.log_path.open("ab") as log, self._said.open("ab") as said:
            if fork and serves(environment or {}):
                streams = [one.fileno() for one in (none, said, log)]
                self.process = Forked(command[2:], cwd=folder, env=clean, streams=streams)
            else:
                self.process = subprocess.Popen(
                    command, stdin=none, stdout=said, stderr=log, cwd=folder, env=clean
                )

    @property
    def heard(self) -> list[str]:
        """The notify messages until now, oldest first."""
        while True:
            try:
                self._heard.append(self._ear.recv(65536).decode())
            except BlockingIOError:
                return self._heard

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log's lines until now."""
        lines = self.log_path.read_text().rpartition("\n")[0].splitlines()  # the last one may be half written
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def said(self) -> str:
        """What it printed on stdout."""
        return self._said.read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one kind."""
        return [line for line in self.log if line["event"] == event]

    def wait_ready(self) -> None:
        """Wait for READY=1 of the start, and for the archive, which READY does not wait for."""
        self.wait_heard("READY=1")
        until(lambda: self.events("daemon started"), "the archive")

    def wait_heard(self, start: str, times: int = 1) -> None:
        """Wait until so many notify messages begin with `start`."""

        def enough() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {self.log_path.read_text()}")
            return sum(message.startswith(start) for message in self.heard) >= times

        until(enough, f"notify {start}")

    def reload(self, times: int = 1) -> None:
        """Send SIGHUP and wait for the READY=1 after it (`times` counts the reloads)."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_heard("RELOADING=1", times)
        self.wait_heard("READY=1", times + 1)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code: 1 where it took longer than promised, by its own clock."""
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Free everything."""
        if self.process.poll() is None:
            self.kill()
        self._ear.close()
        self._folder.cleanup()


@contextmanager
def running(
    config: Path, *words: str, environment: Mapping[str, str] | None = None, fork: bool = True
) -> Iterator[Running]:
    """Run `ingestor --config CONFIG WORDS` (default: run --json) until the block ends."""
    process = Running(config, *(words or ("run", "--json")), environment=environment, fork=fork)
    try:
        yield process
    finally:
        process.close()
