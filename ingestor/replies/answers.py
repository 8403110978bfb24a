"""The rows of what leaves: a decision each, the events that say what became of it, and who may try next.

And one attempt at a message: the claim is committed first, then the request leaves, then its end is noted.

An answer is tried by whoever inserts its claim: the unique key (answer, attempt, event) lets one of all
daemons and commands win, on both databases, and a claim that was committed is never taken back. So a message
leaves at most once for each attempt, and a further attempt exists only where the one before was certainly not
accepted.
"""

import hmac
import json
import random
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Engine, exists, func, insert, or_, select

from ingestor.archive.columns import insert_once
from ingestor.archive.engine import writing
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.mailbox_state import NOW
from ingestor.archive.reply_tables import answer_content, answer_events, answers
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError
from ingestor.numbers import last_four
from ingestor.pauses import pauses
from ingestor.replies import answering
from ingestor.replies.agile import AgileClient, Message
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
from ingestor.replies.parts import parts_of
from ingestor.replies.verdicts import Fate, Verdict

TRIES: Final = 3

HEARD_SECONDS: Final = 30.0
"""After its request must be over a claim is given so long to be noted, until it counts as abandoned."""

_SENT_AS: Final = ("number", "sender", "body", "id", "delivery")
"""What of a message has a column of its own; the rest stands in `options` where it is not the default."""
_FINAL: Final = ("sent", "refused", "not_sent", "unknown", "suppressed")


_NOTE_SECONDS: Final = 20.0


class Kind(StrEnum):
    """Why there is a row: a rule, a command (or one that only simulates), or an unknown one again."""

    ANSWER = "answer"
    COMMAND = "command"
    SIMULATION = "simulation"
    RESEND = "resend"


@dataclass(frozen=True, slots=True)
class Decision:
    """To send `message`, or not to: then `suppressed` says why."""

    kind: Kind
    message: Message
    our_number: str | None = None
    sms_id: int | None = None
    rule: str | None = None
    resend_of: int | None = None
    suppressed: str | None = None
    reason: str | None = None
    """A person's words: why it is sent although the number is out."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answer that nobody has finished: the attempt that comes next, and from when on."""

    answer_id: int
    attempt: int
    decided_at: datetime
    again_at: datetime | None


def database_now(connection: Connection) -> datetime:
    """Return the database's clock (aware UTC): machines that share it may disagree about the time."""
    value = connection.exec_driver_sql(f"SELECT {NOW[connection.dialect.name]}").scalar_one()
    return datetime.fromisoformat(value) if isinstance(value, str) else value.astimezone(UTC)


def text_hmac(secret: bytes, words: str) -> bytes:
    """Return the HMAC of a text: equal texts are known after an erasure, too."""
    return hmac.digest(secret, b"text\0" + words.encode("utf-8", "surrogatepass"), "sha256")


def decide(
    connection: Connection, secret: bytes, number_hmac: bytes, decision: Decision, now: datetime
) -> int | None:
    """Write a decision; return its id, None where the archive has one for the same SMS or message id."""
    message = decision.message
    found = parts_of(message.body, hex_body=message.hex_body)
    answer_id: int | None = insert_once(connection, answers, {
        "kind": decision.kind, "sms_id": decision.sms_id, "rule": decision.rule,
        "resend_of": decision.resend_of, "message_id": message.id, "number_hmac": number_hmac,
        "our_number": decision.our_number, "sender": message.sender,
        "text_hmac": text_hmac(secret, message.body),
        "encoding": found.encoding, "parts": found.parts,
        "options": json.dumps(_options(message)), "expects_report": message.delivery,
        "suppressed": decision.suppressed, "reason": decision.reason, "decided_at": now,
    })  # fmt: skip
    if answer_id is not None:
        connection.execute(insert(answer_content).values(
            answer_id=answer_id, number=message.number, text=message.body, salt=secrets.token_bytes(32)
        ))  # fmt: skip
    return answer_id


def claim(connection: Connection, answer_id: int, attempt: int, now: datetime) -> bool:
    """Say whether this attempt is ours; the request may leave once the claim is committed."""
    values = {"answer_id": answer_id, "attempt": attempt, "event": "sending", "at": now}
    return insert_once(connection, answer_events, values) is not None


def note(connection: Connection, answer_id: int, attempt: int, verdict: Verdict, now: datetime) -> None:
    """Write what became of an attempt, and where it was surely not accepted whether there is another."""
    event, again_at = _event_of(verdict, attempt, now)
    _note(connection, answer_id, attempt, event, now, {
        "code": verdict.code, "detail": verdict.words, "again_at": again_at,
        "credit": None if verdict.credit is None else str(verdict.credit),
    })  # fmt: skip


def settle_abandoned(connection: Connection, older_than: float, now: datetime) -> int:
    """Turn claims unheard of for `older_than` seconds into `unknown`: they may have left; return how many."""
    ended, patience = answer_events.alias("ended"), timedelta(seconds=older_than)
    claims = select(answer_events.c.answer_id, answer_events.c.attempt).where(
        answer_events.c.event == "sending",
        # One of the future was made before the clock was set back.
        or_(answer_events.c.at < now - patience, answer_events.c.at > now + patience),
        ~exists().where(
            ended.c.answer_id == answer_events.c.answer_id,
            ended.c.attempt == answer_events.c.attempt,
            ended.c.event != "sending",
        ),
    )
    abandoned = connection.execute(claims).all()
    for answer_id, attempt in abandoned:
        detail = {"detail": "whoever sent it ended before it could note the answer; it may have been sent"}
        _note(connection, answer_id, attempt, "unknown", now, detail)
    return len(abandoned)


def waiting(connection: Connection, decided_after: datetime) -> Sequence[Waiting]:
    """Return the automated answers decided since that can be claimed, oldest first."""
    other = answer_events.alias("other")
    attempts = (
        select(func.count())
        .where(other.c.answer_id == answers.c.id, other.c.event == "sending")
        .scalar_subquery()
    )
    given_back = select(func.count()).where(other.c.answer_id == answers.c.id, other.c.event == "later")
    again_at = select(func.max(other.c.again_at)).where(other.c.answer_id == answers.c.id).scalar_subquery()
    query = (
        select(
            answers.c.id, (attempts + 1).label("attempt"), answers.c.decided_at, again_at.label("again_at")
        )
        .where(
            answers.c.decided_at > decided_after,
            answers.c.kind == Kind.ANSWER,
            answers.c.suppressed.is_(None),
            ~exists().where(other.c.answer_id == answers.c.id, other.c.event.in_(_FINAL)),
            attempts == given_back.scalar_subquery(),
        )
        .order_by(answers.c.decided_at, answers.c.id)
    )
    return [Waiting(*row) for row in connection.execute(query)]


def message_of(connection: Connection, answer_id: int) -> Message | None:
    """Return the message of an answer, None where its content was erased."""
    query = select(
        answers.c.message_id, answers.c.sender, answers.c.options, answers.c.expects_report,
        answer_content.c.number, answer_content.c.text,
    ).join(answer_content).where(answers.c.id == answer_id)  # fmt: skip
    row = connection.execute(query).first()
    if row is None:
        return None
    given = {**json.loads(row.options), "delivery": bool(row.expects_report)}
    return Message(row.message_id, row.number, row.sender, row.text, **given)


def _event_of(verdict: Verdict, attempt: int, now: datetime) -> tuple[str, datetime | None]:
    if verdict.fate in {Fate.LATER, Fate.NOT_SENT}:
        if attempt < TRIES:
            return "later", now + timedelta(seconds=pause_after(verdict, attempt))
        return ("refused" if verdict.fate is Fate.LATER else "not_sent"), None
    return {Fate.ACCEPTED: "sent", Fate.REFUSED: "refused", Fate.UNKNOWN: "unknown"}[verdict.fate], None


def pause_after(verdict: Verdict, attempt: int) -> float:
    """Return the seconds that the server asks for, else about 2 after the first try, 8 after the second."""
    if verdict.retry_after is not None:
        return verdict.retry_after
    longest = 2.0 * 4 ** (attempt - 1)
    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, no secret


def _note(
    connection: Connection, answer_id: int, attempt: int, event: str, now: datetime, more: dict[str, Any]
) -> None:
    values = {"answer_id": answer_id, "attempt": attempt, "event": event, "at": now, **more}
    insert_once(connection, answer_events, values)


def _options(message: Message) -> dict[str, Any]:
    return {
        field.name: value
        for field in fields(message)
        if field.name not in _SENT_AS and (value := getattr(message, field.name)) != field.default
    }


def attempt(
    engine: Engine, client: AgileClient, answer_id: int, number: int,
    check: Callable[[Connection, datetime], str | None] = lambda *_: None,
) -> Verdict | None:  # fmt: skip
    """Make attempt `number` at an answer; return what became of it, None where it was not made.

    It is not where another has claimed it, where its content was erased, or where `check`, which is asked
    inside the claim's transaction, says why it must not leave after all.
    Raises ArchiveUnavailable where the database does not take the claim; then nothing was sent.
    """
    with writing(engine) as connection:
        now = database_now(connection)
        if not claim(connection, answer_id, number, now):
            return None
        message = message_of(connection, answer_id)
        why_not = "erased" if message is None else check(connection, now)
        if why_not is not None:
            _note(connection, answer_id, number, "suppressed", now, {"detail": why_not})
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
                    answering.put(connection, "credit", str(verdict.credit), now)
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
    """Send a decided message, again where it was surely not accepted, and return what became of it."""
    for number in range(1, TRIES + 1):
        verdict = attempt(engine, client, answer_id, number)
        if verdict is None:
            return Verdict(Fate.UNKNOWN, "another process has taken it")
        if verdict.fate not in {Fate.LATER, Fate.NOT_SENT} or verdict.pauses or number == TRIES:
            return verdict
        time.sleep(pause_after(verdict, number))
    raise AssertionError("unreachable")
