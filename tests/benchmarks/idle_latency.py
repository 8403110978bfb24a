"""From the server's IDLE word to the committed row: at the small server, which knows its word, and Dovecot.

Dovecot gathers news for half a second before it says a word; what is measured there starts at the delivery,
and the figure of the small server is the one that is ours.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Engine, text

from ingestor.archive.engine import open_engine, reading
from ingestor.archive.items import Receipt, Submission
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.providers.contract import Rules
from ingestor.settings import Mailbox
from tests.sample_mails import NUMBERS, generate
from tests.servers.dovecot import PASSWORD, DovecotServer, unavailable
from tests.servers.imap.server import ImapServer

MAILS = 40
DOVECOT_MAILS = 10
LIMIT = 0.015


class _Clocked(Store):
    """The real store; notes when each commit with an item is durable."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.committed: list[float] = []

    def write(self, submissions: "list[Submission]", now: datetime) -> list[Receipt]:  # type: ignore[override]
        receipts = super().write(submissions, now)
        self.committed += [time.monotonic() for one in submissions if one.items]
        return receipts


def _latencies(
    mailbox: dict[str, object], deliver: Callable[[bytes], object], spoken: Callable[[], list[float]],
    count: int,
) -> list[float]:  # fmt: skip
    """Return the seconds from each word (as `spoken` knows them) to its commit, of `count` mails."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'archive.db'}")
        ensure_schema(engine, auto_upgrade=True)
        store = _Clocked(engine)
        writer = Writer(store)
        writer.start()
        run_id = begin_run(engine, "run", {}, datetime.now(UTC))
        rules = Rules(ZoneInfo("Europe/Rome"), frozenset(NUMBERS))
        thread = MailboxThread(Mailbox.model_validate(mailbox), rules, writer, engine, run_id)
        thread.start()
        while thread.state != "watching":
            time.sleep(0.01)
        samples = generate(count * 3, 5, unrelated=0, duplicates=0)
        ours = [one.raw for one in samples if one.kind == "sms"][:count]
        for number, raw in enumerate(ours, 1):
            time.sleep(0.05)  # until it idles again
            deliver(raw)
            while len(store.committed) < number:
                time.sleep(0.0005)
        thread.stop()
        thread.join(10)
        writer.stop(10)
        with reading(engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM inbound_sms")).scalar() == count
        engine.dispose()
        return [done - word for word, done in zip(spoken(), store.committed, strict=True)]


def main() -> None:
    """Print the medians, and what share of the limit ours is."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    server = ImapServer()
    with server.running():
        settings: dict[str, object] = {
            "name": "main", "host": "127.0.0.1", "port": server.port, "security": "plain",
            "username": "demo", "password": "demo",
        }  # fmt: skip
        found = _latencies(settings, server.deliver, lambda: server.pushed_at, MAILS)
    median, worst = statistics.median(found), max(found)
    print(f"IDLE word to committed row: median {median * 1000:.1f} ms, worst {worst * 1000:.1f} ms "
          f"({median / LIMIT:.2f} of the {LIMIT * 1000:.0f} ms allowed)")  # fmt: skip
    if reason := unavailable():
        print(reason)
        return
    dovecot = DovecotServer()
    try:
        user = dovecot.account()
        delivered: list[float] = []

        def deliver(raw: bytes) -> None:
            delivered.append(time.monotonic())
            dovecot.deliver(user, [raw])

        settings |= {"host": "localhost", "port": dovecot.imaps_port, "security": "tls",
                     "ca_file": str(dovecot.ca_file), "username": user, "password": PASSWORD}  # fmt: skip
        found = _latencies(settings, deliver, lambda: delivered, DOVECOT_MAILS)
    finally:
        dovecot.close()
    print(f"delivery to committed row at Dovecot over TLS: median {statistics.median(found) * 1000:.0f} ms "
          "(500 of them are Dovecot's own wait)")  # fmt: skip


if __name__ == "__main__":
    main()
