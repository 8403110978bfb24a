"""One attempt at a message: the claim is committed first, then the request leaves, then its end is noted.

And what a person sends, by `send` or an unknown answer again: its row is committed before all that.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine, select

from ingestor.archive.engine import writing
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.reply_tables import answers
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError
from ingestor.logs import get_logger
from ingestor.numbers import last_four
from ingestor.pauses import pauses
from ingestor.replies import answering
from ingestor.replies.agile import AgileClient, Message
from ingestor.replies.answers import (
    TRIES,
    Decision,
    Kind,
    claim,
    database_now,
    decide,
    message_of,
    note,
    note_suppressed,
    pause_after,
)
from ingestor.replies.figures import scan_state
from ingestor.replies.opt_outs import (
    EVERY,
    Event,
    is_out,
    number_hmac,
    our_number_of,
    read_secret,
    write_events,
)
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


def prepare(engine: Engine, message: Message, force: str | None) -> tuple[int, str | None]:
    """Write the decision to send `message`; return its id, and why it is not sent where the number is out.

    With `force`, a person's reason, it is sent all the same. Raises ConfigurationError where the id was used.
    """
    secret = read_archive_key(engine)
    hmac = number_hmac(secret, message.number)
    with writing(engine) as connection:
        _require_scanned(connection, force)
        out = is_out(connection, secret, message.number, our_number_of(message.sender))
        kind = Kind.SIMULATION if message.simulation else Kind.COMMAND
        suppressed = answering.OPTED_OUT if out and force is None else None
        decision = Decision(kind, message, suppressed=suppressed, reason=force if out else None)
        answer_id = decide(connection, secret, hmac, decision, database_now(connection))
    if answer_id is None:
        raise ConfigurationError(f"a message with the id {message.id!r} was sent before; give another --id")
    why = f"not sent: {last_four(message.number)} is out (ingestor optout check); --force REASON sends it"
    return answer_id, why if suppressed else None


def again(engine: Engine, answer_id: int, reason: str | None) -> tuple[int, Message]:
    """Write the decision to send an unknown answer again, under an id of its own; return its id and message.

    Raises IngestorError where there is no such answer, ConfigurationError where its content was erased, its
    number is out, or it was sent again before.
    """
    secret = read_archive_key(engine)
    with writing(engine) as connection:
        row = connection.execute(select(answers).where(answers.c.id == answer_id)).first()
        if row is None:
            raise IngestorError(f"there is no answer {answer_id}; `ingestor answers list` shows them")
        message = message_of(connection, answer_id)
        if message is None:
            raise ConfigurationError(f"the content of answer {answer_id} was erased")
        message = replace(message, id=str(uuid.uuid4()))
        _require_scanned(connection, reason)
        if (
            is_out(connection, secret, message.number, row.our_number or our_number_of(row.sender))
            and reason is None
        ):
            raise ConfigurationError(
                f"answer {answer_id} is for a number that is out; --force REASON sends it"
            )
        decision = Decision(
            Kind.RESEND, message, row.our_number, row.sms_id, resend_of=answer_id, reason=reason
        )
        made = decide(connection, secret, row.number_hmac, decision, database_now(connection))
    if made is None:
        raise ConfigurationError(f"answer {answer_id} was sent again before; look at `ingestor answers list`")
    return made, message


def _require_scanned(connection: Connection, force: str | None) -> None:
    """Raise IngestorError where SMS of the past may hold a STOP that nobody has read yet."""
    if force is None and not scan_state(connection).done:
        raise IngestorError(
            "the SMS of the past are not read for opt-outs yet: run `ingestor optout scan`, or --force REASON"
        )


def send_now(engine: Engine, client: AgileClient, answer_id: int) -> Verdict:
    """Send a decided message, again where it was surely not accepted, and return what became of it.

    Raises ArchiveUnavailable where the database takes no claim.
    """
    for number in range(1, TRIES + 1):
        verdict = attempt(engine, client, answer_id, number)
        if verdict is None:
            return Verdict(Fate.UNKNOWN, "another process has taken it")
        if verdict.fate not in {Fate.LATER, Fate.NOT_SENT} or verdict.pauses or number == TRIES:
            return verdict
        time.sleep(pause_after(verdict, number))
    raise AssertionError("unreachable")
