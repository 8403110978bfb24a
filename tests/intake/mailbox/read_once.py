"""A process that reads one mailbox once; prints its peak memory in bytes and the balance."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.settings import Mailbox
from tests.intake.mailbox.desk import RULES


def main(port: int, file: str) -> None:
    """Read the mailbox on loopback port `port` into the SQLite archive `file`."""
    engine = open_engine(f"sqlite:///{file}")
    ensure_schema(engine, auto_upgrade=True)
    writer = Writer(Store(engine))
    writer.start()
    run_id = begin_run(engine, "run", {}, datetime.now(UTC))
    mailbox = Mailbox(
        name="main", host="127.0.0.1", port=port, security="plain", username="demo", password="demo"
    )
    MailboxThread(mailbox, RULES, writer, engine, run_id).run_once()
    writer.stop(10)
    # Not ru_maxrss: it begins with the memory of the process that started this one.
    done = balance(engine, run_id)
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    print(peak, done.read, done.stored, done.quarantined)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
