"""Which rule an SMS meets, and the words of its answer; nothing of the incoming text is ever among them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from ingestor.providers import REPORT_READERS
from ingestor.replies.words import Kind, cleaned
from ingestor.settings import Settings
from ingestor.settings.replies import DAYS, Answer, span

_NAME = re.compile(r"\{([a-z_]+)\}")
_ON: Final = {Kind.STOP: "opt_out", Kind.START: "opt_in", Kind.HELP: "help"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An SMS that may be answered; times are aware UTC."""

    sms_id: int
    provider: str
    source: str
    originator: str = field(repr=False)
    originator_kind: str
    destination: str
    text: str = field(repr=False)
    received_at: datetime
    arrived_at: datetime
    ingested_at: datetime
    said: Kind | None
    """What it says about being written to; `start` and `review` only where there is such an event."""


def reports_wanted(settings: Settings) -> bool:
    """Say whether an endpoint takes delivery reports; without one `sent` is the last that is known."""
    return settings.webhook is not None and any(
        one.provider in REPORT_READERS for one in settings.webhook.endpoint
    )


def rule_for(rules: Sequence[Answer], candidate: Candidate) -> Answer | None:
    """Return the one rule that `candidate` meets, None where none is for it.

    Words about being written to outrank every other rule: an SMS with one is never a keyword, nor `any`.
    """
    open_now = [rule for rule in rules if _is_for(rule, candidate)]
    on = _ON.get(candidate.said) if candidate.said is not None else None
    if on is not None:
        return next((rule for rule in open_now if rule.on == on), None)
    tokens = cleaned(candidate.text)
    for rule in open_now:
        keywords = [cleaned(word) for word in rule.keywords]
        if rule.on == "keyword" and any(word and tokens[: len(word)] == word for word in keywords):
            return rule
    return next((rule for rule in open_now if rule.on == "any"), None)


def answer_text(rule: Answer, our_number: str, now: datetime) -> str:
    """Return the words of `rule` for one answer, decided at `now` (aware)."""
    local = now.astimezone(ZoneInfo(rule.timezone))
    values = {
        "our_number": our_number, "sender": rule.sender,
        "date": f"{local:%Y-%m-%d}", "time": f"{local:%H:%M}",
    }  # fmt: skip
    return _NAME.sub(lambda found: values[found[1]], rule.text)


def _is_for(rule: Answer, candidate: Candidate) -> bool:
    if rule.numbers and candidate.destination not in rule.numbers:
        return False
    came = candidate.ingested_at.astimezone(ZoneInfo(rule.timezone))
    today, yesterday = DAYS[came.weekday()], DAYS[came.weekday() - 1]
    if rule.hours is None:
        return today in rule.days
    begin, end = span(rule.hours)
    at = came.time().replace(second=0, microsecond=0)
    if end is None or begin <= end:
        return today in rule.days and begin <= at < (end or time.max)
    return (today in rule.days and at >= begin) or (yesterday in rule.days and at < end)
