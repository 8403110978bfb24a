"""From a mailbox to SQL: a real Dovecot on loopback, against mbsync, a naive script and the bare socket.

Everybody reads the same mails from the same warm server. mbsync only copies them to disk; the naive script
stores what it finds with a commit a mail; the bare socket reads the bytes of the same FETCH and drops them.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.providers.contract import Rules
from ingestor.settings import Mailbox
from tests.benchmarks._naive_mailbox import read_all
from tests.sample_mails import NUMBERS, generate
from tests.servers.dovecot import PASSWORD, DovecotServer, unavailable

MAILS = 5000
NAIVE_MAILS = 500
BATCH = 500
ROUNDS = 3
ROUND_TRIP = 0.05

_MBSYNC = """
IMAPAccount there
Host 127.0.0.1
Port {port}
User {user}
Pass {password}
SSLType None
AuthMechs PLAIN

IMAPStore there
Account there

MaildirStore here
Path {folder}/
Inbox {folder}/INBOX

Channel all
Far :there:
Near :here:
Patterns INBOX
Create Near
Sync Pull
SyncState *
"""


def _ours(port: int, user: str, folder: Path) -> float:
    """Return mails a second, from the connection to the last commit."""
    engine = open_engine(f"sqlite:///{folder / 'archive.db'}")
    ensure_schema(engine, auto_upgrade=True)
    writer = Writer(Store(engine))
    writer.start()
    run_id = begin_run(engine, "run", {}, datetime.now(UTC))
    mailbox = Mailbox.model_validate(
        {"name": "main", "host": "127.0.0.1", "port": port, "security": "plain", "username": user,
         "password": PASSWORD}
    )  # fmt: skip
    rules = Rules(ZoneInfo("Europe/Rome"), frozenset(NUMBERS))
    thread = MailboxThread(mailbox, rules, writer, engine, run_id)
    began = time.perf_counter()
    thread.run_once()
    seconds = time.perf_counter() - began
    writer.stop(10)
    done = balance(engine, run_id)
    engine.dispose()
    if done.read != MAILS or not done.adds_up:
        raise AssertionError(f"{done} of {MAILS}")
    return MAILS / seconds


def _mbsync(port: int, user: str, folder: Path) -> float:
    configuration = folder / "mbsyncrc"
    configuration.write_text(_MBSYNC.format(port=port, user=user, password=PASSWORD, folder=folder))
    began = time.perf_counter()
    subprocess.run(["mbsync", "-q", "-c", str(configuration), "all"], check=True, timeout=300)
    seconds = time.perf_counter() - began
    copied = sum(1 for part in ("cur", "new") for _ in (folder / "INBOX" / part).iterdir())
    if copied != MAILS:
        raise AssertionError(f"mbsync copied {copied} of {MAILS}")
    return MAILS / seconds


def _naive(port: int, user: str, folder: Path) -> float:
    began = time.perf_counter()
    read = read_all(port, user, PASSWORD, folder / "naive.db", NAIVE_MAILS)
    return read / (time.perf_counter() - began)


def _bare_socket(port: int, user: str, folder: Path) -> float:
    """Return mails a second of the same FETCH, its bytes read and dropped."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(4096)

        def command(words: str) -> None:
            connection.sendall(f"a {words}\r\n".encode())
            tail = b""
            while not (tail.endswith(b"\r\n") and (tail.startswith(b"a ") or b"\r\na " in tail)):
                tail = (tail + connection.recv(262144))[-4096:]

        command(f"LOGIN {user} {PASSWORD}")
        command("EXAMINE INBOX")
        began = time.perf_counter()
        for first in range(1, MAILS + 1, BATCH):
            command(f"UID FETCH {first}:{first + BATCH - 1} (BODY.PEEK[])")
        return MAILS / (time.perf_counter() - began)


@contextmanager
def _delayed(port: int) -> Iterator[int]:
    """Give the port of a proxy, in a process of its own, that adds a round trip of ROUND_TRIP."""
    proxy = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks._delay_proxy", str(port), str(ROUND_TRIP / 2)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert proxy.stdin is not None
    assert proxy.stdout is not None
    with proxy:
        yield int(proxy.stdout.readline())
        proxy.stdin.close()
        proxy.terminate()


def main() -> None:
    """Measure everybody in turn, a few rounds, and print the ratios of the medians."""
    if reason := unavailable():
        print(reason)
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    readers = {"ours": _ours, "naive": _naive, "bare socket": _bare_socket}
    if shutil.which("mbsync"):
        readers["mbsync"] = _mbsync
    rates: dict[str, list[float]] = {name: [] for name in (*readers, "delayed")}
    server = DovecotServer()
    try:
        user = server.account()
        server.deliver(user, (one.raw for one in generate(MAILS, 11)))
        with tempfile.TemporaryDirectory() as folder:
            _bare_socket(server.imap_port, user, Path(folder))  # the server makes its index and cache
        for _ in range(ROUNDS):
            for name, read in readers.items():
                with tempfile.TemporaryDirectory() as folder:
                    rates[name].append(read(server.imap_port, user, Path(folder)))
        with tempfile.TemporaryDirectory() as folder, _delayed(server.imap_port) as port:
            rates["delayed"].append(_ours(port, user, Path(folder)))
    finally:
        server.close()
    median = {name: statistics.median(found) for name, found in rates.items() if found}
    ours = median["ours"]
    print(f"mailbox to SQL: {ours:,.0f} mails/s ({MAILS} mails, SQLite with FULL durability)")
    if "mbsync" in median:
        print(f"  {ours / median['mbsync']:.1f} times mbsync ({median['mbsync']:,.0f}/s; target >= 2)")
    else:
        print("  mbsync is not installed: apt-get install isync")
    print(f"  {ours / median['naive']:.1f} times imaplib + email + a commit a mail "
          f"({median['naive']:,.0f}/s; target >= 5)")  # fmt: skip
    print(f"  {ours / median['bare socket']:.2f} of reading the same FETCH bytes off a bare socket "
          f"({median['bare socket']:,.0f}/s)")  # fmt: skip
    print(f"  {median['delayed']:,.0f} mails/s over a round trip of {ROUND_TRIP * 1000:.0f} ms")


if __name__ == "__main__":
    main()
