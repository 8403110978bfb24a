"""A listener with the real writer that is made to be killed: it forks itself anew in a moment.

    python -m tests.intake.listener.crashing DATABASE-URL PORT SPOOL-FOLDER

For each line on its standard input it forks a fresh listener, prints its process id once it listens, and its
exit status once it is gone. A line `patient` gives the writer 5 s before the spool, any other hardly any
time, so that both ways are met.
"""

import os
import signal
import sys
import time
from pathlib import Path

import structlog

from ingestor.archive.engine import open_engine
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.listener.listener import Listener
from ingestor.intake.listener.reception import Limits
from ingestor.settings import Webhook
from tests.intake.listener.stand import ENDPOINTS, rules


def serve(url: str, port: int, spool: Path, ready: int, *, patient: bool) -> None:
    """Listen until killed, or until SIGTERM asks for an orderly end."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    writer = Writer(Store(open_engine(url)))
    writer.start()
    limits = Limits(writer_seconds=5.0 if patient else 0.01)
    webhook = Webhook(listen=f"127.0.0.1:{port}", endpoint=ENDPOINTS)  # type: ignore[arg-type]  # pydantic takes mappings
    listener = Listener(webhook, rules(), writer, spool, limits=limits)
    listener.start()
    os.write(ready, b"x")
    os.close(ready)
    while not asked or listener.keeper.depth:
        time.sleep(0.02)
    ended = listener.stop() and writer.stop(30)
    os._exit(0 if ended else 1)


def main() -> None:
    """Fork a listener for each line read."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the test
    url, port, spool = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    for line in sys.stdin:
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ready)
            serve(url, port, spool, told, patient=line.strip() == "patient")
        os.close(told)
        listening = os.read(ready, 1)
        os.close(ready)
        print(child if listening else -1, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
