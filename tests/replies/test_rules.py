"""Which rule an SMS meets: words about being written to, then keywords, then any; hours, days, numbers."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from ingestor.replies.rules import Candidate, answer_text, rule_for
from ingestor.replies.words import Kind
from ingestor.settings.replies import Answer

US, OTHER = "+393331234333", "+393330000000"


def _rule(name: str, on: str = "any", **more: Any) -> Answer:
    return Answer(name=name, on=on, sender="MyShop", text="x", **more)  # type: ignore[arg-type]


def _sms(text: str = "Hello", said: Kind | None = None, came: str = "2026-05-14T10:00:00Z") -> Candidate:
    at = datetime.fromisoformat(came)
    return Candidate(1, "agile", "main", "+393351234567", "msisdn", US, text, at, at, at, said)


def _met(rules: list[Answer], candidate: Candidate) -> str | None:
    found = rule_for(rules, candidate)
    return None if found is None else found.name


RULES = [
    _rule("any"), _rule("hours", "keyword", keywords=["ORARI", "opening hours"]), _rule("help", "help"),
    _rule("in", "opt_in"), _rule("out", "opt_out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "name"),
    [
        (_sms(), "any"), (_sms("orari"), "hours"), (_sms("Orari? grazie"), "hours"),
        (_sms("gli orari"), "any"), (_sms("Opening  HOURS please"), "hours"), (_sms("opening"), "any"),
        (_sms("ＯＲＡＲＩ"), "hours"), (_sms("STOP", Kind.STOP), "out"), (_sms("START", Kind.START), "in"),
        (_sms("HELP", Kind.HELP), "help"),
        (_sms("please stop", Kind.REVIEW), "any"),
    ],
)  # fmt: skip
def test_words_about_being_written_to_outrank_every_rule(candidate: Candidate, name: str) -> None:
    """Whatever the order of the file, `any` is the last; a keyword is the beginning of the SMS."""
    assert _met(RULES, candidate) == name


@pytest.mark.parametrize("said", [Kind.STOP, Kind.START, Kind.HELP])
def test_without_a_rule_for_it_such_a_word_is_not_answered(said: Kind) -> None:
    """A STOP is no `any`."""
    assert _met([_rule("any")], _sms("STOP", said)) is None


@pytest.mark.parametrize(
    ("hours", "came", "met"),
    [
        # In Rome it is two hours later in May.
        ("08:00-20:00", "2026-05-14T06:00:00Z", True), ("08:00-20:00", "2026-05-14T05:59:59Z", False),
        ("08:00-20:00", "2026-05-14T17:59:59Z", True), ("08:00-20:00", "2026-05-14T18:00:00Z", False),
        ("22:00-06:00", "2026-05-14T20:00:00Z", True), ("22:00-06:00", "2026-05-15T03:59:00Z", True),
        ("22:00-06:00", "2026-05-15T04:00:00Z", False), ("20:00-24:00", "2026-05-14T21:59:59Z", True),
        ("20:00-24:00", "2026-05-14T22:00:00Z", False),
        # In winter one hour.
        ("08:00-20:00", "2026-01-14T07:00:00Z", True), ("08:00-20:00", "2026-01-14T06:59:00Z", False),
    ],
)  # fmt: skip
def test_hours_are_those_of_the_zone(hours: str, came: str, met: bool) -> None:
    """The first minute counts, the last does not; hours may go over midnight."""
    assert (_met([_rule("any", hours=hours)], _sms(came=came)) == "any") == met


@pytest.mark.parametrize(
    ("came", "met"),
    [("2026-05-14T21:00:00Z", True), ("2026-05-15T02:00:00Z", True), ("2026-05-15T21:00:00Z", False),
     ("2026-05-14T02:00:00Z", False)],
)  # fmt: skip
def test_hours_over_midnight_belong_to_the_day_they_began(came: str, met: bool) -> None:
    """The night from Thursday to Friday is Thursday's."""
    rule = _rule("any", hours="22:00-06:00", days=["thu"])

    assert (_met([rule], _sms(came=came)) == "any") == met


def test_a_rule_may_be_for_one_number_of_ours() -> None:
    """The next one takes the others."""
    assert _met([_rule("other", numbers=[OTHER]), _rule("ours", numbers=[US])], _sms()) == "ours"


def test_names_in_the_text_are_replaced_in_the_rules_zone() -> None:
    """Date and time of the decision, our number, the sender; no other name is accepted."""
    rule = Answer(
        name="a", on="any", sender="MyShop", text="{our_number} {sender} {date} {time} {our_number}"
    )

    words = answer_text(rule, US, datetime(2026, 5, 14, 22, 30, tzinfo=UTC))

    assert words == f"{US} MyShop 2026-05-15 00:30 {US}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": "{text}"}, {"text": ""}, {"sender": "TwelveLetters"}, {"sender": ""}, {"hours": "8-20"},
        {"hours": "08:00-25:00"}, {"keywords": ["X"]}, {"on": "keyword"}, {"timezone": "Rome"},
        {"days": ["monday"]}, {"name": "two words"}, {"sender": None},
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_anybody_is_answered(wrong: dict[str, Any]) -> None:
    """A rule is checked when the configuration is read."""
    given = {"name": "a", "on": "any", "sender": "MyShop", "text": "x", **wrong}

    with pytest.raises(ValidationError):
        Answer.model_validate(given)
