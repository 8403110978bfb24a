"""The views of opt-outs: every event that counts, and who is out now.

Both follow from the events alone, in the order of their own time (then of the SMS, then of their writing):
whatever order they came in, the answer is the same.
"""

from typing import Final

NAMES: Final = ("opt_outs", "opt_out_events")

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


def definitions(dialect: str) -> dict[str, str]:
    """Return the SELECT of each view, as `dialect` writes it."""
    return {
        "opt_outs": OPT_OUTS.format(at=_AT[dialect], joined=_JOINED[dialect]),
        "opt_out_events": OPT_OUT_EVENTS.format(at=_AT[dialect]),
    }
