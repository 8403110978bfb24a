"""Automated answers: which SMS get one, what holds one back, and that none leaves twice."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.numbers import OriginatorKind
from ingestor.record import Channel
from ingestor.replies import answering
from ingestor.replies.answers import claim, database_now
from ingestor.replies.worker import AnswerWorker
from tests.archive.reading import number_of, one, rows
from tests.replies.desk import RULES, US, Desk, arrived, settings_of
from tests.servers.agile import ScriptedAgile, newer, plain, refusal, reset


@pytest.fixture
def agile() -> Iterator[ScriptedAgile]:
    """A fake Agile that behaves, until a test writes another script."""
    with ScriptedAgile() as server:
        yield server


@pytest.fixture
def desk(archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path) -> Desk:
    """An archive with rules, once on each database."""
    return Desk(archive_engine, settings_of(agile, tmp_path))


def _desk(engine: Engine, agile: ScriptedAgile, folder: Path, limits: str = "", rules: str = RULES) -> Desk:
    return Desk(engine, settings_of(agile, folder, rules, f"[answers]\n{limits}\n"))


def test_an_sms_is_answered_once_by_one_rule(desk: Desk, agile: ScriptedAgile) -> None:
    """A keyword goes before `any`; a second look, the same SMS by mail and by POST again change nothing."""
    same = {"date_time": "20260301130000"}
    desk.look(arrived(1, "orari?", **same), arrived(2, "Buongiorno"))
    today = f"{datetime.now(UTC):%Y-}"
    desk.receive(arrived(1, "orari?", **same), arrived(1, "orari?", channel=Channel.IMPORT, **same))
    desk.look_wide()

    sent = {request["messages"][0]["destinations"][0]: request["messages"][0] for request in agile.requests}
    assert desk.rows() == [("hours", "sent", None), ("any", "sent", None)]
    assert len(agile.requests) == 2
    assert sent["+393330000001"]["body"].startswith(f"Open from 9 to 18, {today}")
    assert sent["+393330000002"]["sender"] == US


def test_without_an_endpoint_for_reports_none_is_asked_for(desk: Desk, agile: ScriptedAgile) -> None:
    """`enableDelivery` is false, and `sent` is the last state."""
    desk.look(arrived(1))

    assert agile.requests[0]["enableDelivery"] is False
    assert rows(desk.engine, "SELECT expects_report FROM answers")[0][0] == 0


def test_imports_rescans_and_retries_get_no_row(desk: Desk, agile: ScriptedAgile) -> None:
    """Old mail triggers nothing, however young the SMS in it says it is."""
    desk.receive(arrived(1, channel=Channel.IMPORT))
    desk.receive(arrived(2, channel=Channel.MAILBOX, source="main"), command="rescan")
    desk.look_wide()

    assert (desk.rows(), agile.requests) == ([], [])


def test_what_lay_in_a_mailbox_at_its_first_reading_gets_no_row(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path
) -> None:
    """Mail counts from the first whole reading on; what is new to us counts, whenever it is read."""
    mailbox = '[[mailbox]]\nname = "main"\nhost = "127.0.0.1"\nusername = "u"\npassword = "secret"\n'
    desk = Desk(archive_engine, settings_of(agile, tmp_path, RULES, mailbox))
    desk.look(arrived(1, channel=Channel.MAILBOX, source="main"))
    with writing(archive_engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO sources (name, kind, state, last_success, updated_at)"
            f" VALUES ('main', 'mailbox', 'watching', '{datetime.now(UTC).isoformat()[:26]}Z',"
            " '2026-01-01T00:00:00Z')"
        )
    desk.look_wide()
    assert desk.rows() == []

    time.sleep(0.01)
    desk.look(arrived(2, channel=Channel.MAILBOX, source="main"))

    assert desk.rows() == [("any", "sent", None)]


def test_what_was_there_before_the_rule_gets_no_row(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path
) -> None:
    """A rule that is new on an old archive answers nobody of the past."""
    first = Desk(
        archive_engine,
        settings_of(agile, tmp_path, RULES.replace('name = "any"', 'name = "all"')),
    )
    first.receive(arrived(1))

    Desk(archive_engine, settings_of(agile, tmp_path, RULES)).look_wide()

    assert agile.requests == []


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"ago": 700}, "too_old"),
        ({"ago": 5, "late": 700}, "too_old"),
        ({"ago": -3600}, "from_the_future"),
        ({"originator": "Agile", "originator_kind": OriginatorKind.ALPHA}, "not_a_phone"),
        ({"originator": "48888", "originator_kind": OriginatorKind.SHORT}, "not_a_phone"),
        ({"originator": US}, "own_number"),
        ({"originator": "+398900000"}, "denied"),
        ({"text": "please stop it"}, "in_review"),
        ({"text": "Re: thank you, WE have your message."}, None),
    ],
)
def test_what_the_sms_itself_tells_holds_back(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path, made: dict[str, Any], reason: str | None
) -> None:
    """Each suppressed answer is a row with its reason, and no request leaves."""
    desk = _desk(archive_engine, agile, tmp_path, 'deny = ["+3989"]')
    desk.look(arrived(1, **made))

    assert [row[2] for row in desk.rows()] == [reason]
    assert len(agile.requests) == (reason is None)


def test_a_stop_is_confirmed_although_the_number_is_closed(desk: Desk, agile: ScriptedAgile) -> None:
    """Once a cycle: a second STOP gets none, after a START the next one does; ordinary SMS get none."""
    for seconds, words in enumerate(("STOP", "Stop!", "Buongiorno", "START", "STOP")):
        desk.look(arrived(1, words, ago=60 - seconds))

    assert desk.rows() == [
        ("stop", "sent", None),
        ("stop", "suppressed", "confirmed_before"),
        ("any", "suppressed", "opted_out"),
        ("start", "sent", None),
        ("stop", "sent", None),
    ]
    assert agile.requests[0]["messages"][0]["body"] == f"No more messages from {US}."


def test_a_late_confirmation_is_none(desk: Desk, agile: ScriptedAgile) -> None:
    """Five minutes are its limit, not the ten of other answers."""
    desk.look(arrived(1, "STOP", ago=400), arrived(2, "Hello", ago=400))

    assert desk.rows() == [("stop", "suppressed", "too_old"), ("any", "sent", None)]


def test_a_confirmation_can_be_switched_off_for_a_provider(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path
) -> None:
    """Where the provider confirms by itself we do not."""
    desk = _desk(archive_engine, agile, tmp_path, 'confirm = ["infobip"]')
    desk.look(arrived(1, "STOP"))

    assert desk.rows() == [("stop", "suppressed", "confirmation_off")]


def test_start_from_a_stranger_is_an_ordinary_sms(desk: Desk) -> None:
    """Without a STOP before it, START is no opt-in."""
    desk.look(arrived(1, "START"))

    assert desk.rows() == [("any", "sent", None)]


def test_a_stop_between_decision_and_claim_counts(desk: Desk, agile: ScriptedAgile) -> None:
    """The claim looks again: the answer that was decided does not leave."""
    agile.script = [refusal(9, 503, Retry_After="0")]
    desk.look(arrived(1, "Hello", ago=60))
    assert desk.rows() == [("any", "planned", None)]

    desk.look(arrived(1, "STOP", ago=50))

    assert desk.rows() == [("any", "suppressed", "opted_out"), ("stop", "sent", None)]
    assert [request["messages"][0]["body"][:2] for request in agile.requests] == ["Th", "No"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("per_number = 2", ["sent", "sent", "number_limit", "number_limit"]),
        ("equal_texts = 1", ["sent", "equal_texts", "equal_texts", "equal_texts"]),
        ("per_minute = 3\nequal_texts = 9", ["sent", "sent", "sent", "minute_limit"]),
        ("per_hour = 1", ["sent", "hour_limit", "hour_limit", "hour_limit"]),
    ],
)
def test_limits_hold_back(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path, limits: str, expected: list[str]
) -> None:
    """N to a number, K equal texts to it, so many to all in a minute and an hour."""
    desk = _desk(archive_engine, agile, tmp_path, limits)
    desk.look(*(arrived(1, f"Hello {number}", ago=20 - number) for number in range(4)))

    assert [suppressed or state for _, state, suppressed in desk.rows()] == expected


def test_confirmations_count_for_no_number(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path
) -> None:
    """Whoever used up the answers to a number still gets the confirmation, and it takes no place."""
    desk = _desk(archive_engine, agile, tmp_path, "per_number = 1")
    desk.look(arrived(1, "Hello", ago=50))
    desk.look(arrived(1, "STOP", ago=40))

    assert [state for _, state, _ in desk.rows()] == ["sent", "sent"]


def test_our_own_words_quoted_back_are_not_answered(desk: Desk, agile: ScriptedAgile) -> None:
    """A robot that repeats our answer, in any case, gets no further one."""
    desk.look(arrived(1, "Hello"))
    desk.look(arrived(1, "Auto: THANK YOU, we have your message. Bye", ago=2))

    assert desk.rows()[1] == ("any", "suppressed", "quotes_us")
    assert len(agile.requests) == 1


def test_below_the_floor_nothing_is_answered(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The credit is asked for once an hour and known from each answer; the fall is said once."""
    agile.credit = Decimal("4.99")
    desk = _desk(archive_engine, agile, tmp_path, 'credit_floor = "5.00"')
    desk.look(arrived(1))
    desk.look(arrived(2))

    assert [row[2] for row in desk.rows()] == ["credit_floor", "credit_floor"]
    assert agile.requests == []


@pytest.mark.parametrize("code", [1, 2, 26, 100])
def test_a_refusal_of_the_account_pauses_everything(
    desk: Desk, agile: ScriptedAgile, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One refusal, then one simulated message a minute; the others wait, and leave once it is accepted."""
    agile.then = refusal(code, 403)
    desk.look(*(arrived(number) for number in range(1, 5)))
    for _ in range(3):
        desk.worker.work()
    assert [row[1] for row in desk.rows()] == ["refused", "planned", "planned", "planned"]
    assert len(agile.real) == len(agile.requests) == 1

    def let_a_minute_pass() -> None:
        with writing(desk.engine) as connection:
            answering.put(connection, "probe", "", database_now(connection) - timedelta(seconds=61))

    let_a_minute_pass()
    desk.worker.work()
    desk.worker.work()
    assert [len(agile.real), len(agile.requests)] == [1, 2]

    agile.then = None
    let_a_minute_pass()
    desk.worker.work()

    assert [row[1] for row in desk.rows()] == ["refused", "sent", "sent", "sent"]
    with writing(desk.engine) as connection:
        assert answering.paused(connection) is None


@pytest.mark.parametrize(
    ("behaviour", "state"),
    [
        (reset(20), "unknown"), (plain(500), "unknown"), (plain(200, {"ok": 1}), "unknown"),
        (newer(False, 403), "refused"), (refusal(7), "refused"), (newer(), "sent"),
    ],
)  # fmt: skip
def test_an_answer_is_never_tried_again_by_itself(
    desk: Desk, agile: ScriptedAgile, behaviour: Any, state: str
) -> None:
    """Unknown, refused and sent are ends: whatever is looked at later, no second request leaves."""
    agile.script = [behaviour]
    desk.look(arrived(1))
    desk.look_wide()

    assert [row[1] for row in desk.rows()] == [state]
    assert len(agile.requests) == 1


def test_a_refusal_for_now_is_tried_three_times(desk: Desk, agile: ScriptedAgile) -> None:
    """With the pause that the server asks for; then it is an end."""
    agile.then = refusal(9, 503, Retry_After="0")
    desk.look(arrived(1))
    for _ in range(5):
        desk.worker.work()

    assert desk.rows("state, attempts") == [("refused", 3)]
    assert len(agile.requests) == 3


def test_a_claim_without_an_end_becomes_unknown(desk: Desk, agile: ScriptedAgile) -> None:
    """Whoever made it was killed: at the next start, and in time, it stands for a person to see."""
    agile.script = [refusal(9, 503, Retry_After="3600")]
    desk.look(arrived(1))
    with writing(desk.engine) as connection:
        assert claim(connection, 1, 2, database_now(connection) - timedelta(seconds=600))
    fresh = AnswerWorker(desk.engine, desk.settings)
    fresh.work()

    assert desk.rows() == [("any", "unknown", None)]
    assert len(agile.requests) == 1


def test_a_claim_is_won_once(desk: Desk, agile: ScriptedAgile) -> None:
    """Of two who insert it one wins, whichever database judges."""
    agile.script = [refusal(9, 503, Retry_After="3600")]
    desk.look(arrived(1))
    with writing(desk.engine) as connection:
        now = database_now(connection)
        assert [claim(connection, 1, 2, now), claim(connection, 1, 2, now)] == [True, False]
    assert number_of(desk.engine, "answer_events") == 3


def test_what_an_outage_made_older_gets_its_row(desk: Desk, agile: ScriptedAgile) -> None:
    """Days later: an SMS that was stored while no answers ran is decided on, and held back as too old."""
    with writing(desk.engine) as connection:
        answering.put(connection, "rule:any", "", datetime.now(UTC) - timedelta(days=3))
    now = datetime.now(UTC) - timedelta(days=2)
    desk.store.write([_submission(arrived(1, ago=2 * 86400))], now)
    desk.worker.work()
    assert desk.rows() == []

    desk.look_wide()

    assert desk.rows() == [("any", "suppressed", "too_old")]


def _submission(*items: Any) -> Any:
    from ingestor.archive.items import Submission

    return Submission(None, items)


def test_a_clock_that_is_hours_off_is_named(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """SMS that seem an hour old again and again are a wrong time zone, not an outage."""
    desk.look(*(arrived(number, ago=3600 + 20 * number) for number in range(1, 4)))
    desk.look_wide()

    assert one(desk.engine, "SELECT value FROM answering WHERE name = 'clock agile'") == "1"
    assert "set agile.timezone" in capsys.readouterr().out

    desk.look(*(arrived(number, f"x{number}") for number in range(4, 30)))
    desk.look_wide()
    assert rows(desk.engine, "SELECT value FROM answering WHERE name = 'clock agile'") == []


def test_nothing_of_the_incoming_sms_is_in_the_answer(
    archive_engine: Engine, agile: ScriptedAgile, tmp_path: Path
) -> None:
    """Braces in an SMS do nothing, and names are replaced from a closed list."""
    text = "{sender} {our_number} {date} {time}"
    rules = f'[[answer]]\nname = "any"\non = "any"\nsender = "MyShop"\ntext = "{text}"\n'
    desk = Desk(archive_engine, settings_of(agile, tmp_path, rules))
    desk.look(arrived(1, "{sender} {text} %s"))

    body = agile.requests[0]["messages"][0]["body"]
    assert body.startswith(f"MyShop {US} 20")
    assert "text" not in body
