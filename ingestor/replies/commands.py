"""What a person sends, by `send` or an unknown answer again: the row is committed before a request leaves."""

import time
import uuid
from dataclasses import replace

from sqlalchemy import Connection, Engine, select

from ingestor.archive.engine import writing
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.reply_tables import answers
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.numbers import last_four
from ingestor.replies.agile import AgileClient, Message
from ingestor.replies.answers import (
    TRIES,
    Decision,
    Kind,
    database_now,
    decide,
    message_of,
)
from ingestor.replies.opt_outs import is_out, number_hmac, our_number_of
from ingestor.replies.scanning import scan_state
from ingestor.replies.sending import attempt
from ingestor.replies.verdicts import Fate, Verdict

OUT = "opted_out"


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
        suppressed = OUT if out and force is None else None
        decision = Decision(kind, message, suppressed=suppressed, reason=force if out else None)
        answer_id = decide(connection, secret, hmac, decision, database_now(connection))
    if answer_id is None:
        raise ConfigurationError(f"a message with the id {message.id!r} was sent before; give another --id")
    why = f"not sent: {last_four(message.number)} is out (ingestor optout check); --force REASON sends it"
    return answer_id, why if suppressed else None


def again(engine: Engine, answer_id: int, reason: str | None) -> tuple[int, Message]:
    """Write the decision to send an unknown answer again, under an id of its own; return its id and message.

    Raises ConfigurationError where there is no such answer, its content was erased, its number is out, or it
    was sent again before.
    """
    secret = read_archive_key(engine)
    with writing(engine) as connection:
        row = connection.execute(select(answers).where(answers.c.id == answer_id)).first()
        if row is None:
            raise ConfigurationError(f"there is no answer {answer_id}; `ingestor answers list` shows them")
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
        time.sleep(verdict.retry_after if verdict.retry_after is not None else 2.0**number)
    raise AssertionError("unreachable")
