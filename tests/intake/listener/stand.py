"""A listener with the real writer on a real archive, for the tests to knock at."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, text

from ingestor.archive.engine import reading
from ingestor.archive.items import Receipt, Submission
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from ingestor.intake.listener.listener import Listener
from ingestor.intake.listener.reception import Limits
from ingestor.providers import POST_READERS
from ingestor.providers.contract import Rules
from ingestor.record import Outcome
from ingestor.settings import Webhook
from tests.intake.listener.client import Answered, Client, post, sms

AGILE = "/agile/jUst-a-Secret-that-nobody-guesses-0001"
INFOBIP = "/infobip/jUst-a-Secret-that-nobody-guesses-0002"
IP1 = "/ip1/jUst-a-Secret-that-nobody-guesses-0003"
SECRET = "nobody-guesses"

ENDPOINTS = (
    {"path": AGILE, "provider": "agile"},
    {"path": INFOBIP, "provider": "infobip"},
    {"path": IP1, "provider": "ip1"},
)


def rules(**changes: Any) -> dict[str, Rules]:
    """Return the same rules for every provider."""
    return {provider: Rules(zone=ZoneInfo("Europe/Rome"), **changes) for provider in POST_READERS}


class WriterAtHand:
    """A writer of which the test says what it does: answer, keep silent, refuse, or be in trouble."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.silent = False
        self.begins = False  # a silent one that has begun with what it has: it cannot be taken back
        self.error: Exception | None = None
        self.taken: list[tuple[Submission, Future[Receipt]]] = []

    def submit(self, submission: Submission, future: "Future[Receipt] | None" = None, /) -> "Future[Receipt]":
        """Take a submission."""
        if self.error is not None:
            raise self.error
        future = future or Future()
        self.taken.append((submission, future))
        if self.begins:
            future.set_running_or_notify_cancel()
        if not self.silent:
            finish(submission, future)
        return future


def finish(submission: Submission, future: "Future[Receipt]") -> None:
    """Make a submission durable."""
    if future.set_running_or_notify_cancel():
        future.set_result(Receipt((Outcome.STORED,) * len(submission.items)))


class Stand:
    """A running listener. Without an engine the writer is one at hand, and there is no archive."""

    def __init__(
        self, folder: Path, engine: Engine | None = None, *, limits: Limits | None = None,
        listener_rules: Mapping[str, Rules] | None = None, endpoints: Sequence[Mapping[str, Any]] = ENDPOINTS,
        passwords: Sequence[str] = (), listen: str = "127.0.0.1:0", **webhook: Any,
    ) -> None:  # fmt: skip
        self._clients: list[Client] = []
        self.engine = engine
        self.at_hand = WriterAtHand()
        self.writer = Writer(Store(engine)) if engine is not None else None
        if self.writer is not None:
            self.writer.start()
        self.spool = folder / "spool"
        self.listener = Listener(
            Webhook(listen=listen, endpoint=tuple(endpoints), **webhook),  # type: ignore[arg-type]  # pydantic takes mappings
            listener_rules or rules(),
            self.writer or self.at_hand,
            self.spool,
            limits=limits,
            passwords=lambda _: tuple(passwords),
        )
        self.listener.start()

    def client(self) -> Client:
        """Return a new connection."""
        self._clients.append(Client(self.listener.address))
        return self._clients[-1]

    def ask(self, request: bytes) -> Answered:
        """Send one request on a connection of its own."""
        with self.client() as client:
            return client.ask(request)

    def sms(self, number: int, path: str = AGILE) -> Answered:
        """Post the SMS called `number` to Agile's endpoint."""
        return self.ask(post(path, sms(number)))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the archive."""
        assert self.engine is not None
        with reading(self.engine) as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def texts(self) -> list[str]:
        """Return the texts of all SMS in the archive, in order."""
        return [row[0] for row in self.rows("SELECT text FROM inbound_sms ORDER BY text")]

    def stop(self) -> bool:
        """End the listener, then the writer."""
        ended = self.listener.stop()
        for client in self._clients:
            client.close()
        if self.writer is not None:
            self.writer.stop(30)
        return ended
