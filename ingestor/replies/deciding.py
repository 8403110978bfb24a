"""From committed SMS to decisions, a row each; and the last look at one before it leaves."""

import uuid
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, Engine, select

from ingestor.archive.columns import in_parts
from ingestor.archive.engine import reading, writing
from ingestor.archive.reply_tables import answers
from ingestor.archive.tables import sms
from ingestor.logs import get_logger
from ingestor.replies.agile import Message
from ingestor.replies.answering import OPTED_OUT, TOO_OLD
from ingestor.replies.answers import Decision, Kind, database_now, decide
from ingestor.replies.opt_outs import are_out, number_hmac
from ingestor.replies.rules import (
    Candidate,
    Policy,
    Question,
    answer_text,
    read_candidates,
    reports_wanted,
    rule_for,
    too_old,
    undecided,
    why_not,
)
from ingestor.settings.replies import Answer

AT_ONCE = 50
RULE_GONE = "rule_gone"

log = get_logger(__name__)


def decide_all(
    engine: Engine, policy: Policy, since: datetime, rules_since: Mapping[str, datetime],
    read_since: Mapping[str, datetime], passed_over: set[int],
) -> int:  # fmt: skip
    """Decide on every SMS ingested after `since` that has no decision; return how many there were.

    A rule is for what came after `rules_since` alone. SMS that no rule is for are added to `passed_over`, and
    not looked at again; forgetting them costs time and nothing else.
    """
    with reading(engine) as connection:
        waiting = [one for one in undecided(connection, since) if one not in passed_over]
    decided = 0
    for part in in_parts(waiting, AT_ONCE):
        with reading(engine) as connection:
            candidates = read_candidates(connection, part, policy.words, read_since)
        met = [(candidate, _rule(policy, candidate, rules_since)) for candidate in candidates]
        wanted = [(candidate, rule) for candidate, rule in met if rule is not None]
        passed_over.update(set(part) - {candidate.sms_id for candidate, _ in wanted})
        if wanted:
            with writing(engine) as connection:
                for candidate, rule in wanted:
                    decided += _decide(connection, policy, candidate, rule)
    return decided


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


def _rule(policy: Policy, candidate: Candidate, rules_since: Mapping[str, datetime]) -> Answer | None:
    rules = [rule for rule in policy.settings.answer if candidate.ingested_at > rules_since[rule.name]]
    return rule_for(rules, candidate)


def _decide(connection: Connection, policy: Policy, candidate: Candidate, rule: Answer) -> bool:
    """Write the decision on one SMS; say whether it was ours to write."""
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
    return answer_id is not None
