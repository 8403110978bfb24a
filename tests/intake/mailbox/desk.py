"""What the mailbox's tests work with: a real archive and writer, mails, and threads that read them."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, text

from ingestor.archive.engine import reading
from ingestor.archive.mailbox_state import read_sources
from ingestor.archive.runs import Balance, balance, begin_run
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.mailbox.context import Timing
from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.providers.contract import Rules
from ingestor.settings import Mailbox

RULES = Rules(ZoneInfo("Europe/Rome"), frozenset({"+393331234333"}))

QUICK = Timing(
    connect=5.0, silence=5.0, command=10.0, idle=60.0, retry_first=0.02, retry_longest=0.1,
    refused_first=60.0, settled=0.0,
)  # fmt: skip
"""As in earnest, with short pauses after a fault. A push that got lost would show as a wait of a minute."""

OFTEN = replace(QUICK, idle=0.1)
"""With a poll every tenth of a second, whatever `poll_seconds` says."""

PATIENCE = 20.0

FOREIGN = b"From: friend@example.org\r\nSubject: hello\r\nMessage-ID: <f@example.org>\r\n\r\nno SMS\r\n"


def mail(number: int, body: str | None = None, *, to: str = "+393331234333") -> bytes:
    """Return SMS `number` as Agile mails it; every number is another SMS."""
    said = f"text {number}" if body is None else body
    return (
        "From: smsin@agiletelecom.com\r\n"
        "To: sms@example.org\r\n"
        "Subject: Agile Telecom -- SMS received\r\n"
        "Date: Thu, 14 May 2026 08:23:05 +0000\r\n"
        f"Message-ID: <{number}@agiletelecom.com>\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "\r\n"
        f"From: +39335{number:07}\r\n"
        f"To: {to}\r\n"
        "Date/Time: 20260514102301\r\n"
        f"Body: {said}\r\n"
    ).encode()


BROKEN = mail(0).replace(b"To: +393331234333\r\n", b"")
"""Ours, but no destination: it goes to the quarantine."""


class Desk:
    """An archive with its writer, and the threads started on it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.writer = Writer(Store(engine))
        self.writer.start()
        self.now = datetime(2026, 6, 1, 12, tzinfo=UTC)
        self.run_id = begin_run(engine, "run", {}, self.now)
        self.threads: list[MailboxThread] = []

    def close(self) -> None:
        """Stop whatever runs."""
        for thread in self.threads:
            thread.stop()
        ended = [thread.join(PATIENCE) for thread in self.threads]
        self.writer.stop(PATIENCE)
        assert all(ended)

    def mailbox(self, port: int, **changed: object) -> Mailbox:
        """Return the settings of a mailbox on loopback."""
        values: dict[str, object] = {
            "name": "main", "host": "127.0.0.1", "port": port, "security": "plain",
            "username": "demo", "password": "demo",
        }  # fmt: skip
        return Mailbox.model_validate(values | changed)

    def thread(
        self, port: int, *, timing: Timing = QUICK, start: bool = True, holder: str | None = None,
        **changed: object,
    ) -> MailboxThread:  # fmt: skip
        """Return a thread on the mailbox at `port`, started unless told otherwise."""
        thread = MailboxThread(
            self.mailbox(port, **changed), RULES, self.writer, self.engine, self.run_id,
            timing=timing, clock=lambda: self.now, holder=None if holder is None else lambda: holder,
        )  # fmt: skip
        if start:
            self.threads.append(thread)
            thread.start()
        return thread

    def pass_time(self, **delta: float) -> None:
        """Put the threads' clock forward."""
        self.now += timedelta(**delta)

    def column(self, query: str) -> list[object]:
        """Return the first column of a query."""
        with reading(self.engine) as connection:
            return [row[0] for row in connection.execute(text(query))]

    def texts(self) -> Counter[str]:
        """Return how often each text stands in the auditors' view."""
        return Counter(str(one) for one in self.column("SELECT text FROM inbound_sms"))

    def has(self, *numbers: int) -> bool:
        """Say whether exactly these SMS are in the archive, each once."""
        return self.texts() == Counter(f"text {number}" for number in numbers)

    def count(self, table: str) -> int:
        """Return the number of rows of a table or view."""
        found = self.column(f"SELECT count(*) FROM {table}")[0]
        assert isinstance(found, int)
        return found

    @property
    def balance(self) -> Balance:
        """How the items of the run ended."""
        return balance(self.engine, self.run_id)

    def source_state(self, name: str = "main") -> str | None:
        """Return what `status` would say of a mailbox."""
        return next((source.state for source in read_sources(self.engine) if source.name == name), None)
