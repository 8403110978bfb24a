"""The listener in a process of its own, for the webhook benchmark.

    python -m tests.benchmarks._webhook_server DATABASE-URL|none SPOOL-FOLDER PATH [first]

With `first` each POST goes to the spool before the database. `none` answers without storing anything: the
rate of the same server without storage. Prints its port.
"""

import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog

from ingestor.archive.engine import open_engine
from ingestor.archive.items import Receipt, Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.listener.listener import Listener
from ingestor.providers import POST_READERS
from ingestor.providers.contract import Rules
from ingestor.record import Outcome
from ingestor.service.daemon import tune_interpreter
from ingestor.settings import Endpoint, Webhook


class Nowhere:
    """A writer that stores nothing."""

    trouble: str | None = None

    def submit(self, submission: Submission, future: "Future[Receipt] | None" = None, /) -> "Future[Receipt]":
        """Answer at once."""
        future = future or Future()
        future.set_result(Receipt((Outcome.STORED,) * len(submission.items)))
        return future


def main() -> None:
    """Serve until SIGTERM."""
    url, spool, path = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    writer: Writer | None = None
    if url != "none":
        engine = open_engine(url)
        ensure_schema(engine, auto_upgrade=True)
        writer = Writer(Store(engine))
        writer.start()
    endpoint = Endpoint(path=path, provider="agile")
    webhook = Webhook(listen="127.0.0.1:0", endpoint=(endpoint,), spool_first="first" in sys.argv)
    rules = {provider: Rules(zone=ZoneInfo("Europe/Rome")) for provider in POST_READERS}
    listener = Listener(webhook, rules, writer or Nowhere(), spool)
    listener.start()
    tune_interpreter()
    print(listener.address[1], flush=True)
    asked.wait()
    listener.stop()
    if writer is not None:
        writer.stop(10)


if __name__ == "__main__":
    main()
