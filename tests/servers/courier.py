"""A real Courier-IMAP on loopback: its imapd on a Maildir, behind a login of our own; nothing is installed.

The package conflicts with Dovecot's, so it is unpacked beside the system: see INSTALL.
"""

import contextlib
import os
import re
import shutil
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("COURIER_ROOT", "/opt/courier"))
BINARY = ROOT / "usr/bin/imapd"
PACKAGES = "courier-imap courier-authlib libcourier-unicode4 libgamin0 libgdbm6 libidn12"
INSTALL = f"Courier is not unpacked: apt-get download {PACKAGES}; dpkg -x each of them into {ROOT}"

_CAPABILITIES = "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE SORT QUOTA"


def unavailable() -> str | None:
    """Return why no Courier can be started here, None where one can."""
    return None if BINARY.exists() else INSTALL


class CourierServer:
    """One account with any name and password, and its Maildir."""

    def __init__(self) -> None:
        self.maildir = Path(tempfile.mkdtemp(prefix="courier"))
        for part in ("cur", "new", "tmp"):
            (self.maildir / part).mkdir()
        self.commands: list[str] = []
        self.port = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["CourierServer"]:
        """Serve until the block ends."""
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    outer.converse(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        with Server(("127.0.0.1", 0), Handler) as listening:
            self.port = listening.server_address[1]
            thread = threading.Thread(target=listening.serve_forever, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                listening.shutdown()
                thread.join()
                shutil.rmtree(self.maildir, ignore_errors=True)

    def deliver(self, raw: bytes, name: str) -> None:
        """Put a mail into new/ under a name of one's own, as deliverers do: Courier numbers by names."""
        temporary = self.maildir / "tmp" / name
        temporary.write_bytes(raw.replace(b"\r\n", b"\n"))
        temporary.rename(self.maildir / "new" / name)

    def flags(self) -> list[str]:
        """Return the Maildir flags of every mail."""
        found = [
            p.name.partition(":2,")[2] for part in ("cur", "new") for p in (self.maildir / part).iterdir()
        ]
        return sorted(found)

    def converse(self, handler: socketserver.StreamRequestHandler) -> None:
        """Log anybody in, then hand the connection to an imapd."""
        handler.wfile.write(f"* OK [CAPABILITY {_CAPABILITIES}] Courier-IMAP ready.\r\n".encode())
        for line in handler.rfile:
            tag, _, command = line.decode().strip().partition(" ")
            if command.upper().startswith("LOGIN "):
                break
            handler.wfile.write(f"* CAPABILITY {_CAPABILITIES}\r\n{tag} OK done\r\n".encode())
        else:
            return
        libraries = f"{ROOT}/usr/lib:{ROOT}/usr/lib/x86_64-linux-gnu"
        with subprocess.Popen(
            [BINARY, self.maildir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"LD_LIBRARY_PATH": libraries, "IMAP_CAPABILITY": _CAPABILITIES, "PATH": "/usr/bin:/bin"},
        ) as imapd:  # fmt: skip
            assert imapd.stdin is not None
            assert imapd.stdout is not None
            while not imapd.stdout.readline().startswith(b"* PREAUTH"):
                pass
            handler.wfile.write(f"{tag} OK LOGIN Ok.\r\n".encode())
            answers = threading.Thread(target=_pump, args=(imapd.stdout, handler.wfile), daemon=True)
            answers.start()
            with contextlib.suppress(OSError):
                for line in handler.rfile:
                    self.commands.append(re.sub(r"^\S+ ", "", line.decode("latin-1").strip()))
                    imapd.stdin.write(line)
                    imapd.stdin.flush()
            imapd.kill()
            answers.join(5)


def _pump(source: Any, sink: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.read1(65536):
            sink.write(data)


def next_second() -> None:
    """Wait for the next second: Courier makes a UIDVALIDITY of the time."""
    time.sleep(1.05 - time.time() % 1)
