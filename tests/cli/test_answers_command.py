"""`ingestor answers`: lists, one in full, and sending again what may not have arrived."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archive.reading import opened
from tests.cli.calling import Called
from tests.cli.test_send import config_of
from tests.servers.agile import ScriptedAgile, plain, refusal


@pytest.fixture
def agile() -> Iterator[ScriptedAgile]:
    """A fake Agile that behaves, until a test writes another script."""
    with ScriptedAgile() as server:
        yield server


@pytest.fixture
def call(
    agile: ScriptedAgile, made_archive_url: str, called: Callable[..., Called], tmp_path: Path
) -> Callable[..., Called]:
    """Call the command with a configuration that points to it, once on each database."""
    config = config_of(agile, made_archive_url, tmp_path)
    return lambda *words: called("--config", str(config), *words)


def _send(call: Callable[..., Called], number: str) -> Called:
    return call("send", number, "--sender", "MyShop", "--text", "Grazie")


def test_what_may_have_been_sent_is_listed_shown_and_sent_again(
    agile: ScriptedAgile, call: Callable[..., Called]
) -> None:
    """`list --unknown` names it, `show` has its attempt, `resend` gives it a new id, once."""
    agile.script = [plain(500)]
    _send(call, "+393351234567")
    _send(call, "+393351234568")

    (line,) = call("answers", "list", "--unknown", "--json").out.splitlines()
    assert (json.loads(line)["id"], json.loads(line)["state"]) == (1, "unknown")
    shown = call("answers", "show", "1").out
    assert "HTTP 500; it may have been sent" in shown
    assert "attempt 1: unknown" in shown

    asked = call("answers", "resend", "1")
    assert (asked.code, len(agile.requests)) == (2, 2)
    assert "it may arrive twice" in asked.faults[0]

    again = call("answers", "resend", "1", "--yes")
    assert again.code == 0, again.err
    assert again.out.startswith("answer 3 (again for 1): accepted; id ")
    assert agile.requests[2]["messages"][0]["destinations"] == ["+393351234567"]
    assert agile.requests[2]["globalId"] != agile.requests[0]["globalId"]

    twice = call("answers", "resend", "1", "--yes")
    assert (twice.code, len(agile.requests)) == (2, 3)
    assert "was sent again before" in twice.faults[0]


def test_what_was_sent_is_not_sent_again(agile: ScriptedAgile, call: Callable[..., Called]) -> None:
    """A message that was accepted, and one that does not exist, are refused in one line."""
    _send(call, "+393351234567")

    sent, absent = call("answers", "resend", "1", "--yes"), call("answers", "resend", "9", "--yes")

    assert (sent.code, absent.code, len(agile.requests)) == (2, 1, 1)
    assert "is sent; nothing is to be sent again" in sent.faults[0]
    assert "there is no answer 9" in absent.faults[0]
    assert call("answers", "show", "9").code == 1


def test_lists_are_for_people_and_for_pipes(agile: ScriptedAgile, call: Callable[..., Called]) -> None:
    """Newest first, a line each, with the reason in words."""
    agile.script = [refusal(7)]
    _send(call, "+393351234567")
    _send(call, "+393351234568")

    header, *lines = call("answers", "list", "--utc").out.splitlines()

    assert header == "id\tdecided_at\trule\tnumber\tstate\tdetail\ttext"
    assert [line.split("\t")[0] for line in lines] == ["2", "1"]
    assert "the number is not valid (code 7)" in lines[1]
    first = call("answers", "list", "--limit", "1")
    assert first.out.count("\n") == 2
    assert "There are more" in first.err


def test_a_killed_sender_leaves_an_unknown_one(
    agile: ScriptedAgile, call: Callable[..., Called], made_archive_url: str
) -> None:
    """After ten minutes a claim without an end is one of which nobody knows; it can be sent again."""
    _send(call, "+393351234567")
    with opened(made_archive_url) as engine:
        _older_claim(engine)

    (line,) = call("answers", "list", "--unknown", "--json").out.splitlines()
    assert json.loads(line)["message_id"] == "killed"
    assert call("answers", "resend", "2", "--yes").code == 0


def _older_claim(engine: Any) -> None:
    from datetime import timedelta

    from ingestor.archive.engine import writing
    from ingestor.replies.agile import Message
    from ingestor.replies.answers import Decision, Kind, claim, database_now, decide

    with writing(engine) as connection:
        then = database_now(connection) - timedelta(minutes=11)
        message = Message("killed", "+393351234569", "MyShop", "Grazie")
        number = decide(connection, bytes(32), bytes(32), Decision(Kind.COMMAND, message), then)
        assert number is not None
        assert claim(connection, number, 1, then)
