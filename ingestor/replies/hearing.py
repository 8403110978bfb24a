"""Hearing what comes in: the events of an SMS go into the transaction that stores it."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine

from ingestor.archive.items import Row
from ingestor.archive.settle import NewSms, OnStored
from ingestor.archive.store import Store
from ingestor.errors import ConfigurationError
from ingestor.replies.opt_outs import Event, Said, event_of, read_secret, write_events
from ingestor.replies.words import Verdict, Words
from ingestor.settings import OptOut
from ingestor.timestamps import utc_now


def words_of(section: OptOut) -> Words:
    """Return the words of the table `[opt_out]`. Raises ConfigurationError where they cannot be."""
    try:
        return Words(
            languages=section.languages, stop=section.stop, stop_all=section.stop_all, start=section.start,
            help_=section.help,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigurationError(f"[opt_out]: {error}") from None


def hearing_store(engine: Engine, section: OptOut) -> Store:
    """Return the store that every intake writes to: when it has stored a STOP, the STOP stands.

    Raises ConfigurationError as `words_of` does.
    """
    return Store(engine, hearing(words_of(section)))


def hearing(words: Words, clock: Callable[[], datetime] = utc_now) -> OnStored:
    """Return what writes down the events of the SMS that a transaction stores."""

    judge = words.judge

    def hear(connection: Connection, stored: Sequence[NewSms]) -> None:
        events = [
            event
            for sms_id, row in stored
            if (content := row.content) is not None
            and (verdict := judge(content.text)) is not None
            and (event := _event(verdict, sms_id, row)) is not None
        ]
        if events:
            write_events(connection, read_secret(connection), events, clock())

    return hear


def _event(verdict: Verdict, sms_id: int, row: Row) -> Event | None:
    sms, content = row.sms, row.content
    assert sms is not None and content is not None  # noqa: S101, PT018 - `NewSms` has both
    said = Said(
        sms_id, content.originator, sms.originator_kind, sms.destination, sms.received_at, content.text
    )
    return event_of(verdict, said)
