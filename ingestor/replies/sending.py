"""One attempt at a message: the claim is committed first, then the request leaves, then its end is noted."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine

from ingestor.archive.engine import writing
from ingestor.errors import ArchiveUnavailable
from ingestor.logs import get_logger
from ingestor.pauses import pauses
from ingestor.replies import answering
from ingestor.replies.agile import AgileClient, Message
from ingestor.replies.answers import claim, database_now, message_of, note, note_suppressed
from ingestor.replies.opt_outs import EVERY, Event, read_secret, write_events
from ingestor.replies.verdicts import Fate, Verdict

Check = Callable[[Connection, datetime], str | None]
"""Says, inside the claim's transaction, why an answer must not leave after all; None where it may."""

_NOTE_SECONDS: Final = 20.0

log = get_logger(__name__)


def attempt(
    engine: Engine, client: AgileClient, answer_id: int, number: int, check: Check | None = None
) -> Verdict | None:
    """Make attempt `number` at an answer; return what became of it, None where it was not made.

    It is not where another has claimed it, where `check` says why not, or where its content was erased.
    Raises ArchiveUnavailable where the database does not take the claim; then nothing was sent.
    """
    with writing(engine) as connection:
        now = database_now(connection)
        if not claim(connection, answer_id, number, now):
            return None
        message = message_of(connection, answer_id)
        why_not = "erased" if message is None else check(connection, now) if check else None
        if why_not is not None:
            note_suppressed(connection, answer_id, number, why_not, now)
    if message is None or why_not is not None:
        return None
    verdict = client.send(message)
    _keep(engine, answer_id, number, verdict, message)
    return verdict


def _keep(engine: Engine, answer_id: int, number: int, verdict: Verdict, message: Message) -> None:
    """Note the end of an attempt, however long the database takes; what is not noted becomes `unknown`."""
    deadline = time.monotonic() + _NOTE_SECONDS
    for pause in pauses(0.2, 2.0):
        try:
            with writing(engine) as connection:
                now = database_now(connection)
                note(connection, answer_id, number, verdict, now)
                if verdict.credit is not None:
                    answering.note_credit(connection, verdict.credit, now)
                if verdict.pauses:
                    answering.pause(connection, verdict, now)
                elif verdict.fate is Fate.ACCEPTED and not message.simulation:
                    answering.resume(connection)
                if verdict.opted_out:
                    event = Event(message.number, EVERY, "provider", now, rule="Agile refuses the number")
                    write_events(connection, read_secret(connection), [event], now)
        except ArchiveUnavailable:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
        else:
            return
