"""A stored POST is seen: a line an endpoint and minute, and counts by outcome for `status`."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from ingestor.archive.items import Receipt
from ingestor.intake.listener.posts import TEST, PostsRead
from ingestor.intake.listener.reception import Limits
from ingestor.record import Outcome
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, INFOBIP, Stand

NOW = datetime(2026, 5, 14, 8, 23, 1, tzinfo=UTC)


def said(lines: list[Any]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name not in {"event", "log_level"}}
        for line in lines
        if line["event"] == "POSTs read"
    ]


def test_each_endpoint_has_a_line_a_minute() -> None:
    """The first at once, those after it together a minute later; a busy endpoint hides no other."""
    now = [0.0]
    posts = PostsRead(["agile-1", "ip1-1"], clock=lambda: now[0])
    with structlog.testing.capture_logs() as lines:
        for outcome in ("stored", "stored", "duplicate", "quarantined"):
            posts.note("agile-1", [outcome], NOW)
        posts.note("ip1-1", ["stored", "stored"], NOW)
        posts.tick()
        now[0] = 61.0
        posts.tick()
        posts.note("agile-1", ["stored"], NOW)
        posts.end()

    assert said(lines) == [
        {"endpoint": "agile-1", "posts": 1, "stored": 1},
        {"endpoint": "ip1-1", "posts": 1, "stored": 2},
        {"endpoint": "agile-1", "posts": 3, "stored": 1, "duplicate": 1, "quarantined": 1},
        {"endpoint": "agile-1", "posts": 1, "stored": 1},
    ]


def test_a_test_of_ours_is_no_news_from_the_provider() -> None:
    """`webhook test` is counted, and does not make a silent provider look alive."""
    posts = PostsRead(["agile-1"])
    posts.note("agile-1", [TEST], NOW)
    assert posts.by_endpoint["agile-1"] == (1, {"test": 1}, None)


def test_what_was_stored_is_counted_by_endpoint(archived: Stand) -> None:
    """Stored, duplicate, quarantined and empty POSTs on a real archive, each where it came in."""
    with structlog.testing.capture_logs() as lines:
        archived.sms(1)
        archived.sms(1)
        archived.ask(post(AGILE, b"nothing that anybody can read"))
        archived.ask(post(AGILE, sms(7, "%2B99900000000")))  # one of our own tests
        archived.ask(post(INFOBIP, b'{"results": []}', content_type="application/json"))
        archived.listener.stop()

    found = archived.listener.posts.by_endpoint
    agile = {"stored": 1, "duplicate": 1, "quarantined": 1, "test": 1}
    assert (found["agile-1"].posts, found["agile-1"].outcomes) == (4, agile)
    assert (found["infobip-1"].posts, found["infobip-1"].outcomes) == (1, {"empty": 1})
    assert found["ip1-1"] == (0, {}, None)
    told = said(lines)
    assert {line["endpoint"] for line in told} == {"agile-1", "infobip-1"}
    assert sum(line["posts"] for line in told if line["endpoint"] == "agile-1") == 4
    assert sum(line.get("duplicate", 0) for line in told) == 1


def test_a_spooled_post_has_its_outcome_once_it_is_replayed(
    stand: Stand, eventually: Callable[..., None]
) -> None:
    """It is one POST: spooled when it is acknowledged, stored when the database has it."""
    stand.at_hand.trouble = "away"
    assert stand.sms(1).body == b"+OK"
    assert stand.listener.posts.by_endpoint["agile-1"][:2] == (1, {"spooled": 1})

    stand.at_hand.trouble = None
    eventually(lambda: stand.listener.posts.by_endpoint["agile-1"][:2] == (1, {"spooled": 1, "stored": 1}))


def test_a_late_commit_counts_for_the_post_that_lies_in_the_spool(
    make_stand: MakeStand, eventually: Callable[..., None]
) -> None:
    """The writer was slow, the spool answered: its outcome comes after all, once."""
    stand = make_stand(limits=Limits(writer_seconds=0.1))
    stand.at_hand.silent = stand.at_hand.begins = True
    assert stand.sms(1).body == b"+OK"
    assert stand.listener.posts.by_endpoint["agile-1"][:2] == (1, {"spooled": 1})
    [(submission, future)] = stand.at_hand.taken
    future.set_result(Receipt((Outcome.STORED,) * len(submission.items)))
    eventually(lambda: stand.listener.posts.by_endpoint["agile-1"][:2] == (1, {"spooled": 1, "stored": 1}))


def test_a_post_of_an_endpoint_that_is_no_more_is_replayed(
    make_stand: MakeStand, eventually: Callable[..., None]
) -> None:
    """The spool outlives a change of the configuration."""
    before = make_stand()
    before.at_hand.trouble = "away"
    assert before.ask(post(INFOBIP, b"{}", content_type="application/json")).status == 200
    before.stop()
    after = make_stand(endpoints=[{"path": AGILE, "provider": "agile"}])
    eventually(lambda: after.listener.keeper.depth == 0)
    assert after.listener.posts.by_endpoint["infobip-1"].outcomes == {"stored": 1}
