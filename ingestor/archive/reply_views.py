"""The views of opt-outs, every event and who is out, and of what leaves: answers with their state, reports.

Both follow from the rows alone, so nothing is ever changed. Who is out follows from the events in the order
of their own time (then of the SMS, then of their writing), whatever order they came in; a report that came
before the row of its answer counts from that row's commit on.
"""

from typing import Final

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

_AT = {
    "sqlite": "replace(c.at, '.000000Z', 'Z')",
    "postgresql": "c.at",
}
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
