"""Tables and views of opt-outs, dated events, and of what leaves: decisions, their ends, reports of them.

A number stands on the permanent side only as an HMAC under the archive's key; as text it stands, like the
message, on the erasable side, with 32 random bytes of salt.
"""

from typing import Final

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, UniqueConstraint

from ingestor.archive.columns import (
    SALT,
    Big,
    Flag,
    Instant,
    Ordered,
    Small,
    col,
    index_of_rows,
    new_table,
    one_of,
)

KINDS = {
    "stop": "out", "provider": "out", "import": "out", "add": "out", "start": "in", "remove": "in",
    "review": "none", "nearly_start": "none", "dismiss": "none",
}  # fmt: skip
"""What an event can be, and whether it opts out or in again."""

consents = new_table(
    "consents", "append-only: what opts a number out or in again, or may, without the number itself",
    col("id", Big, "number of the event", key=True),
    col("number_hmac", LargeBinary,
        "that number as a hash under the archive's key: it blocks when the person is erased, too"),
    col("scope", Text, "the number of ours that it is for; `*`: every one"),
    col("kind", Text,
        "`stop`, `start`: an SMS says so; `review`: an SMS that may; `provider`: the provider says so; "
        "`import`: of another program's list; `add`, `remove`: by a person; `dismiss`: a person says that a "
        "review is neither; `nearly_start`: a `review` where the sender is out, else nothing"),
    col("effect", Text, "`out`, `in` or `none`, as follows from the kind"),
    col("at", Ordered, "when it counts from: the time of the SMS, or of a person's decision"),
    col("sms_id", Big, "the SMS that proves it; NULL where none does", null=True, of="sms.id"),
    col("rule", Text, "by which rule the SMS was read so", null=True),
    col("noted_at", Instant, "when it became durable here"),
    UniqueConstraint("sms_id", "kind", "scope"),
    CheckConstraint("length(number_hmac) = 32", name="number_hmac"),
    CheckConstraint(
        " OR ".join(f"(kind = '{kind}' AND effect = '{effect}')" for kind, effect in KINDS.items()),
        name="kind",
    ),
    Index("ix_consents_number_hmac", "number_hmac", "effect", "at"),
    index_of_rows(
        "uq_consents_by_hand", "number_hmac", "kind", "scope", "at", unique=True, where="sms_id IS NULL"
    ),
)  # fmt: skip

consent_content = new_table(
    "consent_content", "erasable: whom an event is about, and what a person wrote",
    col("consent_id", Big, "the event", of="consents.id", key=True),
    col("number", Text, "the number: E.164 with `+`", index=True),
    col("reason", Text, "what a person wrote", null=True),
    col("salt", LargeBinary, SALT),
    CheckConstraint("length(salt) = 32", name="salt"),
)  # fmt: skip

consent_scans = new_table(
    "consent_scans", "how far the SMS of earlier programs have been read for opt-outs: one row",
    col("id", Small, "always 1", autoincrement=False, key=True),
    col("words", LargeBinary, "a hash of the words that are looked for"),
    col("after_id", Big, "SMS up to this one have been read"),
    col("until_id", Big, "SMS up to this one are read; NULL: that has not begun", null=True),
    col("started_at", Instant, "when it began", null=True),
    col("finished_at", Instant, "when it was done; NULL: who is out cannot be told yet", null=True),
    CheckConstraint("id = 1", name="one"),
)  # fmt: skip

answers = new_table(
    "answers", "append-only: one row a decision to send, or not to",
    col("id", Big, "number of the message, or of the decision to send none", key=True),
    col("kind", Text,
        "`answer` (by a rule), `command` (`ingestor send`), `simulation` (with `--simulate`) or `resend`"),
    col("sms_id", Big, "which SMS is answered; NULL for a command", null=True, of="sms.id"),
    col("rule", Text, "by which rule; NULL for a command or a resend", null=True),
    col("resend_of", Big, "the message that it sends again", null=True, of="answers.id", unique=True),
    col("message_id", Text, "`globalId` and `ids[0]` of the request; reports name it", unique=True),
    col("number_hmac", LargeBinary, "the number it goes to, as a hash under the archive's key"),
    col("our_number", Text, "the number of ours that the SMS was for", null=True),
    col("sender", Text, "whom the message comes from"),
    col("text_hmac", LargeBinary, "the text as such a hash: equal ones are known when they are erased, too"),
    col("encoding", Text, "`GSM 7-bit`, `UCS-2` or `HEX`"),
    col("parts", Small, "in how many parts it goes"),
    col("options", Text, "parameters of the request that are not the defaults, as JSON"),
    col("expects_report", Flag, "whether a report was asked for"),
    col("suppressed", Text, "why it is not sent; NULL where it is", null=True),
    col("reason", Text, "a person's words: why it was sent although the number is out", null=True),
    col("decided_at", Instant, "when it was decided, by the database's clock", index=True),
    UniqueConstraint("sms_id", "rule"),
    CheckConstraint("length(number_hmac) = 32", name="number_hmac"),
    CheckConstraint("length(text_hmac) = 32", name="text_hmac"),
    CheckConstraint(
        "(kind = 'answer' AND sms_id IS NOT NULL AND rule IS NOT NULL AND resend_of IS NULL)"
        " OR ((kind = 'command' OR kind = 'simulation')"
        " AND sms_id IS NULL AND rule IS NULL AND resend_of IS NULL)"
        " OR (kind = 'resend' AND rule IS NULL AND resend_of IS NOT NULL)",
        name="kind",
    ),
    Index("ix_answers_number_hmac", "number_hmac", "decided_at"),
)  # fmt: skip

answer_content = new_table(
    "answer_content", "erasable: to whom, and what",
    col("answer_id", Big, "the message", of="answers.id", key=True),
    col("number", Text, "the number"),
    col("text", Text, "the text"),
    col("salt", LargeBinary, SALT),
    CheckConstraint("length(salt) = 32", name="salt"),
)  # fmt: skip

answer_events = new_table(
    "answer_events", "append-only: what became of each request; of all who claim one, one wins",
    col("id", Big, "number of the event", key=True),
    col("answer_id", Big, "the message", of="answers.id"),
    col("attempt", Small, "which request for it, from 1"),
    col("event", Text,
        "`sending` (the claim, before the request), `sent`, `later` (refused for now), `refused`, "
        "`not_sent`, `unknown` or `suppressed`"),
    col("at", Instant, "when, by the database's clock"),
    col("code", Small, "what Agile answered, by number", null=True),
    col("detail", Text, "the same in words", null=True),
    col("again_at", Instant, "after `later`: not before", null=True),
    col("credit", Text, "what was left of the account, in EUR", null=True),
    # A claim is an insert: of all who try to send an answer one wins.
    UniqueConstraint("answer_id", "attempt", "event"),
    one_of("event", "sending", "sent", "later", "refused", "not_sent", "unknown", "suppressed"),
)  # fmt: skip

delivery_reports = new_table(
    "delivery_reports", "append-only: one row each time a report came",
    col("id", Big, "number of the report", key=True),
    col("post", LargeBinary, "UUID given to the POST on receipt"),
    col("number", Small, "its place among the reports of the POST, from 0"),
    col("report_hmac", LargeBinary, "what equal reports have in common, as a hash under the archive's key"),
    col("message_id", Text, "the message that it is about", index=True),
    col("shape", Text, "which of the documented shapes it has; `other`: none"),
    col("status", Text,
        "`accepted`, `buffered`, `delivered`, `expired`, `rejected`, `deleted`, `undeliverable`, `failed`, "
        "`unknown`, or `unclear` where no document says what it means"),
    col("status_raw", Text, "the word and the number as they came"),
    col("part", Small, "which part of the message it is about, from 1"),
    col("parts", Small, "of how many"),
    col("operator", Text, "the network", null=True),
    col("price", Text, "what it cost, as it was written", null=True),
    col("done_at", Instant, "when that was, by the provider's clock", null=True),
    col("source", Text, "at which endpoint"),
    col("run_id", Big, "the run that took it", null=True, of="runs.id"),
    col("arrived_at", Instant, "when it reached us"),
    UniqueConstraint("post", "number"),
    CheckConstraint("length(report_hmac) = 32", name="report_hmac"),
)  # fmt: skip
"""`message_id` is that of an answer, which may be committed later."""

delivery_report_content = new_table(
    "delivery_report_content", "erasable: whom a report is about, and its bytes",
    col("report_id", Big, "the report", of="delivery_reports.id", key=True),
    col("destination", Text, "the number", null=True, index=True),
    col("content_type", Text, "Content-Type of the POST", null=True),
    col("payload", LargeBinary, "body of the POST as it came, as one zstd frame"),
    col("salt", LargeBinary, SALT),
    CheckConstraint("length(salt) = 32", name="salt"),
)  # fmt: skip

answering = new_table(
    "answering", "what all daemons of an archive must agree on",
    col("name", Text,
        "`rule:NAME` and `mailbox:NAME` (since when each counts), `paused`, `probe`, `credit`, `credit "
        "poll`, `clock agile`", key=True),
    col("value", Text, "what stands under it"),
    col("at", Instant, "since when, or when last"),
)  # fmt: skip

# The views follow from the rows alone, so nothing is ever changed. Who is out follows from the events in the
# order of their own time (then of the SMS, then of their writing), whatever order they came in; a report that
# came before the row of its answer counts from that row's commit on.

NO_REPORT_HOURS: Final = 48
"""After so long without a report none is waited for; the message may have arrived all the same."""

ABANDONED_MINUTES: Final = 10
"""Whoever claimed an answer so long ago, and noted no end, was killed: no request takes as long."""

_LAST_SMS = "9223372036854775807"  # what somebody wrote down in the same moment as an SMS comes after it
# PostgreSQL then asks the index for each event, in the order of the CASE. Joined by number instead, somebody
# who has sent STOP 5,000 times kept it busy for 15 seconds.
_ONE_BY_ONE = "LIMIT 1 OFFSET 0"


def _after(later: str, earlier: str) -> str:
    """Return the condition that one event of a number is later than another one of it."""
    key = "({0}.at, coalesce({0}.sms_id, " + _LAST_SMS + "), {0}.id)"
    # The first comparison follows from the second, and lets an index answer.
    return (
        f"{later}.number_hmac = {earlier}.number_hmac AND {later}.at >= {earlier}.at"
        f" AND {key.format(later)} > {key.format(earlier)}"
    )


def _opened_after(event: str, scope: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM consents AS o WHERE {_after('o', event)}"  # noqa: S608 - our own words
        f" AND o.effect = 'in' AND (o.scope = {scope} OR o.scope = '*') {_ONE_BY_ONE})"
    )


# Of the events that close a scope and were never undone the first one; the later ones change nothing.
OPT_OUTS = f"""
SELECT
  content.number,
  c.scope,
  {{at}} AS since,
  c.kind,
  c.sms_id,
  coalesce(content.reason, c.rule) AS reason,
  CASE WHEN c.scope = '*' THEN coalesce((
    SELECT ' ' || {{joined}} || ' ' FROM (
      SELECT DISTINCT s.scope FROM consents AS s
      WHERE s.number_hmac = c.number_hmac AND s.effect = 'in' AND s.scope <> '*'
        AND NOT EXISTS (SELECT 1 FROM consents AS k WHERE {_after("k", "s")}
          AND k.effect = 'out' AND (k.scope = s.scope OR k.scope = '*') {_ONE_BY_ONE})
    ) AS every), '') ELSE '' END AS reopened,
  c.id AS event_id,
  c.number_hmac
FROM consents AS c LEFT JOIN consent_content AS content ON content.consent_id = c.id
WHERE c.effect = 'out'
  AND CASE WHEN {_opened_after("c", "c.scope")} THEN 0 WHEN EXISTS (SELECT 1 FROM consents AS e
    WHERE {_after("c", "e")} AND e.effect = 'out' AND e.scope = c.scope
      AND NOT {_opened_after("e", "e.scope")} {_ONE_BY_ONE}) THEN 0 ELSE 1 END = 1
"""  # noqa: S608 - our own words

_WAS_OUT = f"""EXISTS (SELECT 1 FROM consents AS e
    WHERE {_after("c", "e")} AND e.effect = 'out' AND (e.scope = c.scope OR e.scope = '*')
      AND NOT EXISTS (SELECT 1 FROM consents AS o WHERE {_after("o", "e")} AND {_after("c", "o")}
        AND o.effect = 'in' AND (o.scope = c.scope OR o.scope = '*') {_ONE_BY_ONE}) {_ONE_BY_ONE})"""  # noqa: S608 - our own words

# A START undoes a STOP and is nothing else; what is nearly one matters only from somebody who is out.
OPT_OUT_EVENTS = f"""
SELECT
  c.id,
  {{at}} AS at,
  CASE WHEN c.kind = 'nearly_start' THEN 'review' ELSE c.kind END AS kind,
  content.number,
  c.scope,
  c.sms_id,
  coalesce(content.reason, c.rule) AS reason,
  c.noted_at,
  c.number_hmac
FROM consents AS c LEFT JOIN consent_content AS content ON content.consent_id = c.id
WHERE c.kind NOT IN ('start', 'nearly_start') OR {_WAS_OUT}
"""  # noqa: S608 - our own words

_AT = {"sqlite": "replace(c.at, '.000000Z', 'Z')", "postgresql": "c.at"}
_JOINED = {"sqlite": "group_concat(every.scope, ' ')", "postgresql": "string_agg(every.scope, ' ')"}

_FAILED = "'expired', 'rejected', 'deleted', 'undeliverable', 'failed'"

# What became of its requests: of an attempt's rows the one that says most, of several attempts the last.
_EVENT = """(SELECT e.{column} FROM answer_events AS e WHERE e.answer_id = a.id ORDER BY
    CASE e.event WHEN 'sent' THEN 1 WHEN 'refused' THEN 2 WHEN 'suppressed' THEN 3 WHEN 'not_sent' THEN 4
      WHEN 'unknown' THEN 5 ELSE 6 END, e.attempt DESC, e.event LIMIT 1)"""

# Delivered when every part is; failed as soon as a part is, and no later report says that it was delivered.
_DELIVERY = f"""CASE
    WHEN (SELECT count(DISTINCT r.part) FROM delivery_reports AS r
        WHERE r.message_id = a.message_id AND r.status = 'delivered')
      >= (SELECT max(r.parts) FROM delivery_reports AS r WHERE r.message_id = a.message_id) THEN 'delivered'
    ELSE coalesce(
      (SELECT r.status FROM delivery_reports AS r
        WHERE r.message_id = a.message_id AND r.status IN ({_FAILED})
          AND NOT EXISTS (SELECT 1 FROM delivery_reports AS d
            WHERE d.message_id = r.message_id AND d.part = r.part AND d.status = 'delivered')
        ORDER BY r.id LIMIT 1),
      (SELECT 'partly_delivered' FROM delivery_reports AS r
        WHERE r.message_id = a.message_id AND r.status = 'delivered' LIMIT 1),
      (SELECT r.status FROM delivery_reports AS r WHERE r.message_id = a.message_id
        ORDER BY r.id DESC LIMIT 1))
  END"""  # noqa: S608 - our own words

ANSWERS_SENT = f"""
SELECT
  one.id, one.kind, one.sms_id, one.rule, one.resend_of, one.message_id,
  content.number, one.our_number, one.sender, content.text, one.encoding, one.parts, one.options,
  one.decided_at,
  CASE
    WHEN one.suppressed IS NOT NULL THEN 'suppressed'
    WHEN one.delivery = 'delivered' THEN 'delivered'
    WHEN one.delivery IN ({_FAILED}) THEN 'failed'
    WHEN one.delivery IN ('accepted', 'buffered', 'partly_delivered') AND coalesce(one.event, '') <> 'refused'
      THEN 'sent'
    WHEN one.event = 'sent' AND one.kind = 'simulation' THEN 'simulated'
    WHEN one.event = 'sent' AND one.expects_report AND one.delivery IS NULL
      AND one.event_at < {{long_ago}} THEN 'no_report'
    WHEN one.event IS NULL OR one.event = 'later' THEN 'planned'
    WHEN one.event = 'sending' AND one.event_at < {{abandoned}} THEN 'unknown'
    ELSE one.event
  END AS state,
  one.delivery,
  EXISTS (SELECT 1 FROM delivery_reports AS d JOIN delivery_reports AS f
    ON f.message_id = d.message_id AND f.part = d.part AND f.id < d.id AND f.status IN ({_FAILED})
    WHERE d.message_id = one.message_id AND d.status = 'delivered') AS delivered_late,
  coalesce(one.suppressed, CASE WHEN one.event = 'suppressed' THEN one.event_detail END) AS suppressed,
  one.reason,
  one.event_at AS state_at,
  one.event_code AS code,
  one.event_detail AS detail,
  (SELECT count(*) FROM answer_events AS e WHERE e.answer_id = one.id AND e.event = 'sending') AS attempts,
  (SELECT max(r.done_at) FROM delivery_reports AS r WHERE r.message_id = one.message_id) AS done_at,
  (SELECT max(r.operator) FROM delivery_reports AS r WHERE r.message_id = one.message_id) AS operator
FROM (SELECT a.*,
    {_EVENT.format(column="event")} AS event,
    {_EVENT.format(column="at")} AS event_at,
    {_EVENT.format(column="code")} AS event_code,
    {_EVENT.format(column="detail")} AS event_detail,
    {_DELIVERY} AS delivery
  FROM answers AS a) AS one
LEFT JOIN answer_content AS content ON content.answer_id = one.id
"""  # noqa: S608 - our own words

DELIVERY_REPORTS_RECEIVED = """
SELECT
  r.id, r.message_id,
  (SELECT a.id FROM answers AS a WHERE a.message_id = r.message_id) AS answer_id,
  content.destination, r.status, r.status_raw, r.shape, r.part, r.parts, r.operator, r.price, r.done_at,
  r.arrived_at, r.source,
  (SELECT count(*) FROM delivery_reports AS again
    WHERE again.message_id = r.message_id AND again.report_hmac = r.report_hmac) AS times
FROM delivery_reports AS r LEFT JOIN delivery_report_content AS content ON content.report_id = r.id
WHERE NOT EXISTS (SELECT 1 FROM delivery_reports AS earlier
  WHERE earlier.message_id = r.message_id AND earlier.report_hmac = r.report_hmac AND earlier.id < r.id)
"""

# Both directions; what was never meant to be sent, or was held back, is no message.
CONVERSATIONS = """
SELECT content.originator AS number, sms.destination AS our_number, sms.received_at AS at,
  'in' AS direction, content.text, 'received' AS state, sms.id AS sms_id, CAST(NULL AS bigint) AS answer_id
FROM sms LEFT JOIN sms_content AS content ON content.sms_id = sms.id
UNION ALL
SELECT a.number, coalesce(a.our_number, a.sender), coalesce(a.state_at, a.decided_at),
  'out', a.text, a.state, a.sms_id, a.id
FROM answers_sent AS a WHERE a.kind <> 'simulation' AND a.state <> 'suppressed'
"""


def _ago(dialect: str, span: str) -> str:
    if dialect == "sqlite":
        return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{span}')"
    return f"now() - interval '{span}'"


def definitions(dialect: str) -> dict[str, str]:
    """Return the SELECT of each view, as `dialect` writes it."""
    return {
        "opt_outs": OPT_OUTS.format(at=_AT[dialect], joined=_JOINED[dialect]),
        "opt_out_events": OPT_OUT_EVENTS.format(at=_AT[dialect]),
        "answers_sent": ANSWERS_SENT.format(
            long_ago=_ago(dialect, f"{NO_REPORT_HOURS} hours"),
            abandoned=_ago(dialect, f"{ABANDONED_MINUTES} minutes"),
        ),
        "delivery_reports_received": DELIVERY_REPORTS_RECEIVED,
        "conversations": CONVERSATIONS,
    }
