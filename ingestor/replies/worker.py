"""The thread that answers: it reads what is committed, decides, claims, sends, and notes the end.

It works beside the intake and never in its way: a POST has its `+OK` before this thread has seen its SMS. It
may be killed at any instruction. A decision that was not committed is made again; a claim that was committed
is never made again, and of what it became nobody knows (`unknown`).
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine, select

from ingestor.archive.columns import in_parts
from ingestor.archive.engine import reading, writing
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.queries import whole_hours_off
from ingestor.archive.reply_tables import answers
from ingestor.archive.tables import sms
from ingestor.errors import IngestorError, ProviderUnavailable
from ingestor.logs import OncePerMinute, get_logger
from ingestor.replies import answering
from ingestor.replies.agile import AgileClient, Message, client_of
from ingestor.replies.answering import OPTED_OUT, TOO_OLD, note_state
from ingestor.replies.answers import (
    HEARD_SECONDS,
    Decision,
    Kind,
    Waiting,
    attempt,
    database_now,
    decide,
    message_of,
    settle_abandoned,
    waiting,
)
from ingestor.replies.figures import scan_state
from ingestor.replies.opt_outs import are_out, number_hmac, words_of
from ingestor.replies.rules import (
    Candidate,
    Policy,
    Question,
    answer_text,
    first_readings_over,
    policy_of,
    read_candidates,
    reports_wanted,
    rule_for,
    too_old,
    undecided,
    why_not,
)
from ingestor.replies.verdicts import Fate
from ingestor.settings import Settings
from ingestor.settings.replies import Answer

LOOK_SECONDS: Final = 1.0
"""Between two looks for new SMS."""
RECENT: Final = timedelta(minutes=2)
"""What an ordinary look goes back by. A commit may come that much later than its rows say."""
WIDE_SECONDS: Final = 600.0
"""Between two looks that go back as far as any rule has not looked for sure."""
LATE: Final = timedelta(days=1)
"""No transaction is open longer: what was ingested before that, and is not there, never comes."""
TELL_SECONDS: Final = 30.0
"""Between two notes for `status`."""
AT_ONCE: Final = 50
RULE_GONE: Final = "rule_gone"
CREDIT_SECONDS: Final = 3600.0
_MOST_PASSED_OVER: Final = 100_000
_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)

log = get_logger(__name__)


class AnswerWorker:
    """Answers by the rules of `settings` until it is stopped. `progress` moves with each look that ended."""

    def __init__(
        self, engine: Engine, settings: Settings, may_write: Callable[[], bool] = lambda: True
    ) -> None:
        """Fetch nothing yet: the lack of the API's key must not stop the intake. `may_write` says whether the
        archive is as it must be: without its unique keys answers might double.
        """
        self._may_write = may_write
        self.progress = time.monotonic()
        self.credit: Decimal | None = None
        """What was left of the account when any daemon asked last, in EUR."""
        self._engine = engine
        self._settings = settings
        self._client: AgileClient | None = None
        self._policy: Policy | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self.start, self.ask_to_stop = self._thread.start, self._stop.set
        """Begin to look; let no further request begin."""
        self._passed_over: set[int] = set()
        self._wide_at = 0.0
        self._told_at = 0.0
        self._low_credit = False
        self._offset: int | None = None
        self._trouble = OncePerMinute[str, IngestorError](
            lambda _, fault, times: log.warning("answers wait", reason=str(fault), times=times)
        )

    def join(self, seconds: float) -> None:
        """Wait for the end of what is on its way; a request that is not over then is `unknown` later."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning(
                "an answer is on its way at the stop", consequence="it stands as unknown after the start"
            )

    def work(self) -> None:
        """Look once: decide on what is new, and send what is decided. Raises IngestorError."""
        client = self._client = self._client or client_of(self._settings)
        policy = self._policy = self._policy or policy_of(
            self._settings, words_of(self._settings.opt_out), read_archive_key(self._engine)
        )
        with reading(self._engine) as connection:
            known, now = scan_state(connection).done, database_now(connection)
        if not self._may_write() or not known:  # until who is out can be told nobody is answered
            return
        wide = time.monotonic() >= self._wide_at
        if wide:
            self._settle(client, now)
        self._decide(policy, now, wide=wide)
        longest = timedelta(seconds=self._settings.answers.max_age_seconds)
        self._send(client, policy, _BEGINNING if wide else now - longest - timedelta(hours=1))
        if wide:
            self._look_at_clocks(now)
            self._wide_at = time.monotonic() + WIDE_SECONDS
        self._poll_credit(client)
        if time.monotonic() >= self._told_at:
            with reading(self._engine) as connection:
                now = database_now(connection)
            note_state(self._engine, now)
            self._told_at = time.monotonic() + TELL_SECONDS

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.work()
            except IngestorError as fault:
                self._trouble.note(type(fault).__name__, fault)
            except Exception:
                log.exception("the answers met an internal fault; they are tried again")
                self._stop.wait(WIDE_SECONDS / 10)
            self._trouble.tick()
            self.progress = time.monotonic()

    def _settle(self, client: AgileClient, now: datetime) -> None:
        """Say of claims whose makers are gone that nobody knows."""
        with writing(self._engine) as connection:
            answering.set_back(connection, now)
            number = settle_abandoned(connection, client.longest_seconds + HEARD_SECONDS, now)
        if number:
            log.warning(
                "answers that may have been sent", number=number, needs="ingestor answers list --unknown"
            )

    def _decide(self, policy: Policy, now: datetime, *, wide: bool) -> None:
        rules = {f"rule:{rule.name}": rule.name for rule in policy.settings.answer}
        since = self._since(rules, now)
        mailboxes = self._mailboxes()
        begin = min(since.values()) if wide else max(min(since.values()), now - RECENT)
        if len(self._passed_over) > _MOST_PASSED_OVER:
            self._passed_over.clear()
        decide_all(self._engine, policy, begin, since, mailboxes, self._passed_over)
        if wide and now - LATE > min(since.values()):
            with writing(self._engine) as connection:
                for name, rule in rules.items():
                    answering.put(connection, name, "", max(since[rule], now - LATE))

    def _since(self, rules: dict[str, str], now: datetime) -> dict[str, datetime]:
        """Return since when each rule counts: from the first time that any daemon had it."""
        with reading(self._engine) as connection:
            known = {name: answering.value_of(connection, name) for name in rules}
        if not all(known.values()):
            with writing(self._engine) as connection:
                for name in rules:
                    answering.set_once(connection, name, "", now)
                known = {name: answering.value_of(connection, name) for name in rules}
        return {rules[name]: found[1] for name, found in known.items() if found is not None}

    def _mailboxes(self) -> dict[str, datetime]:
        """Return of each mailbox that was read whole once since when its mails are new."""
        names = {f"mailbox:{one.name}": one.name for one in self._settings.mailbox}
        with reading(self._engine) as connection:
            known = {
                names[name]: found[1]
                for name in names
                if (found := answering.value_of(connection, name)) is not None
            }
            over = first_readings_over(connection, set(names.values()) - known.keys())
        if over:
            with writing(self._engine) as connection:
                for name, when in over.items():
                    answering.set_once(connection, f"mailbox:{name}", "", when)
        return {**over, **known}

    def _send(self, client: AgileClient, policy: Policy, decided_after: datetime) -> None:
        with reading(self._engine) as connection:
            due = waiting(connection, decided_after)
            paused = answering.paused(connection) is not None
            now = database_now(connection)
        longest = timedelta(seconds=self._settings.answers.max_age_seconds)
        for one in due:
            if self._stop.is_set():
                return
            if one.again_at is not None and one.again_at > now:
                continue
            # What the last look will find too old has its end noted while sending is paused, too.
            if paused and now - one.decided_at <= longest:
                paused = not self._probe(client, one)
                if paused:
                    continue
            check = partial(last_look, policy, one.answer_id)
            verdict = attempt(self._engine, client, one.answer_id, one.attempt, check)
            self.progress = time.monotonic()
            if verdict is None:
                continue
            log.info(
                "an answer was tried", answer=one.answer_id, outcome=str(verdict.fate), says=verdict.words
            )
            paused = paused or verdict.pauses

    def _probe(self, client: AgileClient, one: Waiting) -> bool:
        """Simulate the next answer, once a minute among all daemons; say whether sending goes on."""
        with writing(self._engine) as connection:
            turn = answering.take_turn(connection, "probe", answering.PROBE_SECONDS, database_now(connection))
            message = message_of(connection, one.answer_id) if turn else None
            paused = answering.paused(connection)
        if message is None or paused is None:
            return paused is None
        verdict = client.send(replace(message, id=str(uuid.uuid4()), simulation=True, delivery=False))
        if verdict.pauses or verdict.fate not in {Fate.ACCEPTED, Fate.REFUSED}:
            return False
        if paused.code in {2, 402} and not self._has_credit(client):
            return False
        with writing(self._engine) as connection:
            answering.resume(connection)
        return True

    def _has_credit(self, client: AgileClient) -> bool:
        try:
            return client.credit() > max(Decimal(0), self._settings.answers.credit_floor)
        except ProviderUnavailable:
            return False

    def _poll_credit(self, client: AgileClient) -> None:
        """Ask for the credit once an hour among all daemons, and say when it falls below the floor."""
        with reading(self._engine) as connection:
            last = answering.value_of(connection, "credit poll")
            self.credit = answering.credit(connection)
            if last is not None and database_now(connection) - last[1] < timedelta(seconds=CREDIT_SECONDS):
                return
        with writing(self._engine) as connection:
            if not answering.take_turn(connection, "credit poll", CREDIT_SECONDS, database_now(connection)):
                return
        with suppress(ProviderUnavailable):
            credit = self.credit = client.credit()
            with writing(self._engine) as connection:
                answering.put(connection, "credit", str(credit), database_now(connection))
            low = credit < self._settings.answers.credit_floor
            if low and not self._low_credit:
                log.warning(
                    "the credit is below answers.credit_floor", credit=str(credit),
                    consequence="nothing is answered", needs="top the account up",
                )  # fmt: skip
            self._low_credit = low

    def _look_at_clocks(self, now: datetime) -> None:
        """Say where a provider's time zone seems to be set wrong: its SMS would all be too old."""
        with writing(self._engine) as connection:
            offset = whole_hours_off(connection, now, "agile")
            if offset is None:
                answering.forget(connection, answering.CLOCK)
            else:
                answering.put(connection, answering.CLOCK, str(offset), now)
        if offset is not None and offset != self._offset:
            log.error(
                "the SMS of agile seem to be sent whole hours before they arrive", hours=offset,
                consequence="answers are held back", needs="set agile.timezone",
            )  # fmt: skip
        self._offset = offset


def decide_all(
    engine: Engine, policy: Policy, since: datetime, rules_since: Mapping[str, datetime],
    read_since: Mapping[str, datetime], passed_over: set[int],
) -> None:  # fmt: skip
    """Decide on every SMS ingested after `since` that has no decision.

    A rule is for what came after `rules_since` alone. SMS that no rule is for are added to `passed_over`, and
    not looked at again; forgetting them costs time and nothing else.
    """
    with reading(engine) as connection:
        waiting = [one for one in undecided(connection, since) if one not in passed_over]
    for part in in_parts(waiting, AT_ONCE):
        with reading(engine) as connection:
            candidates = read_candidates(connection, part, policy.words, read_since)
        wanted = []
        for candidate in candidates:
            rules = [one for one in policy.settings.answer if candidate.ingested_at > rules_since[one.name]]
            if (rule := rule_for(rules, candidate)) is not None:
                wanted.append((candidate, rule))
        passed_over.update(set(part) - {candidate.sms_id for candidate, _ in wanted})
        if wanted:
            with writing(engine) as connection:
                for candidate, rule in wanted:
                    _decide(connection, policy, candidate, rule)


def last_look(policy: Policy, answer_id: int, connection: Connection, now: datetime) -> str | None:
    """Return why an answer that was decided must not leave now: a STOP may have come since."""
    query = (
        select(answers.c.rule, answers.c.our_number, answers.c.number_hmac, sms.c.received_at)
        .join(sms, sms.c.id == answers.c.sms_id)
        .where(answers.c.id == answer_id)
    )
    row = connection.execute(query).one()
    rule = next((one for one in policy.settings.answer if one.name == row.rule), None)
    if rule is None:
        return RULE_GONE
    confirms = rule.on == "opt_out"
    if too_old(row.received_at, policy.settings.answers, now, confirms=confirms):
        return TOO_OLD
    number = bytes(row.number_hmac)
    if not confirms and are_out(connection, [number], row.our_number)[number] is not None:
        return OPTED_OUT
    return None


def _decide(connection: Connection, policy: Policy, candidate: Candidate, rule: Answer) -> None:
    now = database_now(connection)
    words = answer_text(rule, candidate.destination, now)
    hmac = number_hmac(policy.secret, candidate.originator)
    suppressed = why_not(connection, Question(candidate, rule, words, hmac, policy, now))
    message = Message(
        str(uuid.uuid4()), candidate.originator, rule.sender, words, delivery=reports_wanted(policy.settings)
    )
    decision = Decision(
        Kind.ANSWER, message, candidate.destination, candidate.sms_id, rule.name, suppressed=suppressed
    )
    answer_id = decide(connection, policy.secret, hmac, decision, now)
    if answer_id is not None and suppressed is not None:
        log.info("an answer is held back", answer=answer_id, rule=rule.name, why=suppressed)
