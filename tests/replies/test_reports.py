"""Delivery reports in the archive: kept whatever they say, and joined to what was sent, in any order."""

import itertools
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.archive.items import Receipt
from ingestor.archive.payloads import unpack
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from ingestor.intake.listener.posts import ReceivedPost, new_identity, submission_of
from ingestor.providers.contract import Post, Rules
from ingestor.record import Outcome
from ingestor.replies.agile import Message
from ingestor.replies.answers import Decision, Kind, claim, decide, note
from ingestor.replies.verdicts import Fate, Verdict
from tests.archive.reading import number_of, one, rows
from tests.cli.calling import ingestor

NOW = datetime.now(UTC)
RULES = {"agile-reports": Rules(zone=ZoneInfo("Europe/Rome"))}


class Box:
    """An archive that reports reach, and messages of ours in it."""

    def __init__(self, engine: Engine) -> None:
        """Begin a run."""
        self.engine = engine
        self.store = Store(engine)
        self.run = begin_run(engine, "run", {}, NOW)

    def sent(self, message_id: str, fate: Fate | None = Fate.ACCEPTED, ago: float = 0.0) -> None:
        """Keep a message that met `fate`, None: of which nothing was heard yet."""
        then = datetime.now(UTC) - timedelta(hours=ago)
        with writing(self.engine) as connection:
            message = Message(message_id, "+393471234567", "MyShop", "Grazie")
            number = decide(connection, bytes(32), bytes(32), Decision(Kind.COMMAND, message), then)
            assert number is not None
            assert claim(connection, number, 1, then)
            if fate is not None:
                note(connection, number, 1, Verdict(fate, "said"), then)

    def post(self, body: Any, identity: bytes | None = None) -> Receipt:
        """Let a POST arrive."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        post = Post(raw, b"", "application/json", NOW)
        identity = identity or new_identity(NOW)
        received = ReceivedPost(identity, "agile-reports-1", "agile-reports", "127.0.0.1", post)
        submission = submission_of(received, RULES)
        assert submission is not None
        return self.store.write([_of_run(submission, self.run)], NOW)[0]

    def report(self, message_id: str, status: str, part: int = 1, parts: int = 1, **more: Any) -> Receipt:
        """Let a report of the legacy shape arrive."""
        return self.post({
            "messageId": message_id, "destination": "+393471234567", "statusCode": 1, "description": status,
            "doneDate": "2026-04-08 14:35:22.045+0200", "concatTotal": parts, "concatProgressive": part,
            "realOperator": "22201", "price": 0.005, **more,
        })  # fmt: skip

    def state(self, message_id: str) -> tuple[Any, ...]:
        """Return state, delivery, and whether it was delivered late."""
        found = rows(
            self.engine,
            f"SELECT state, delivery, delivered_late FROM answers_sent WHERE message_id = '{message_id}'",
        )
        return (*found[0][:2], bool(found[0][2]))


def _of_run(submission: Any, run: int) -> Any:

    return submission._replace(run_id=run)


@pytest.fixture
def box(archive_engine: Engine) -> Box:
    """A fresh archive, once on each database."""
    return Box(archive_engine)


def test_a_report_is_kept_with_its_bytes_and_counted(box: Box) -> None:
    """Its POST as it came lies on the erasable side; the run counts it and balances."""
    raw = b'{"messageId": "m", "statusCode": 3, "odd": 0.10}'
    assert box.post(raw).outcomes == (Outcome.STORED,)

    (kept,) = rows(box.engine, "SELECT payload, destination FROM delivery_report_content")
    assert unpack(bytes(kept[0])) == raw
    assert one(box.engine, "SELECT status FROM delivery_reports") == "unclear"
    counted = balance(box.engine, box.run)
    assert (counted.read, counted.stored, counted.adds_up) == (1, 1, True)


def test_the_same_post_given_again_is_one_report(box: Box) -> None:
    """From the spool, or after a doubtful commit: the UUID of its receipt tells."""
    identity = os.urandom(16)
    outcomes = [box.post({"messageId": "m", "statusCode": 3}, identity).outcomes for _ in range(2)]

    assert outcomes == [(Outcome.STORED,), (Outcome.DUPLICATE,)]
    assert number_of(box.engine, "delivery_reports") == 1


def test_a_report_sent_twice_counts_up(box: Box) -> None:
    """Equal reports are one line of the view, which says how often they came."""
    box.report("m", "Delivered")
    box.report("m", "Delivered")

    assert rows(box.engine, "SELECT message_id, status, times FROM delivery_reports_received") == [
        ("m", "delivered", 2)
    ]


def test_what_is_no_report_is_quarantined_with_its_bytes(box: Box) -> None:
    """Beside good ones in one POST, too: nothing is lost."""
    receipt = box.post([{"messageId": "m", "statusCode": 3}, {"nothing": 1}])

    assert set(receipt.outcomes) == {Outcome.STORED, Outcome.QUARANTINED}
    assert one(box.engine, "SELECT reason FROM quarantine") == "the report names no message"
    assert one(box.engine, "SELECT size FROM quarantine") > 10


@pytest.mark.parametrize(
    ("fate", "status", "state"),
    [
        (Fate.ACCEPTED, "Delivered", "delivered"), (Fate.UNKNOWN, "Delivered", "delivered"),
        (Fate.UNKNOWN, "Expired", "failed"), (Fate.UNKNOWN, "Accepted", "sent"),
        (None, "Delivered", "delivered"), (None, "Accepted", "sent"),
        (Fate.ACCEPTED, "Accepted", "sent"), (Fate.UNKNOWN, "whatever", "unknown"),
        (Fate.REFUSED, "Accepted", "refused"), (Fate.REFUSED, "Delivered", "delivered"),
    ],
)  # fmt: skip
def test_a_report_settles_what_nobody_knew(box: Box, fate: Fate | None, status: str, state: str) -> None:
    """Before the answer of the send call, after a lost one, against a refusal: the report counts."""
    box.sent("m", fate)
    box.report("m", status, statusCode=None)

    assert box.state("m")[0] == state


def test_a_report_of_an_unknown_message_is_joined_when_its_row_appears(box: Box) -> None:
    """It is kept without an answer, and counts from the row's commit on."""
    box.report("m", "Delivered")
    assert one(box.engine, "SELECT answer_id FROM delivery_reports_received") is None

    box.sent("m", None)

    assert box.state("m") == ("delivered", "delivered", False)
    assert one(box.engine, "SELECT answer_id FROM delivery_reports_received") == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_parts_come_in_any_order_and_the_worst_wins(box: Box, order: tuple[int, ...]) -> None:
    """Two delivered and one expired are a failure, whichever comes first; two of three are not the whole."""
    reports = [("Delivered", 1), ("Expired", 2), ("Delivered", 3)]
    box.sent("m")
    for place in order[:2]:
        box.report("m", reports[place][0], reports[place][1], 3)
    half = {reports[place][0] for place in order[:2]}
    assert box.state("m")[:2] == (
        ("failed", "expired") if "Expired" in half else ("sent", "partly_delivered")
    )

    box.report("m", reports[order[2]][0], reports[order[2]][1], 3)

    assert box.state("m") == ("failed", "expired", False)
    box.report("m", "Delivered", 2, 3)
    assert box.state("m") == ("delivered", "delivered", True)


def test_an_end_is_replaced_by_delivered_alone(box: Box) -> None:
    """Nothing goes back: accepted after delivered, rejected after expired change nothing."""
    box.sent("m")
    for status, state in (
        ("Accepted", ("sent", "accepted", False)), ("Expired", ("failed", "expired", False)),
        ("Rejected", ("failed", "expired", False)), ("Buffered", ("failed", "expired", False)),
        ("Delivered", ("delivered", "delivered", True)), ("Expired", ("delivered", "delivered", True)),
        ("Accepted", ("delivered", "delivered", True)),
    ):  # fmt: skip
        box.report("m", status)
        assert box.state("m") == state, status


def test_without_a_report_for_two_days_none_is_waited_for(box: Box) -> None:
    """`no_report` is no failure; one that comes all the same counts."""
    box.sent("old", ago=49)
    box.sent("new", ago=47)
    assert (box.state("old")[0], box.state("new")[0]) == ("no_report", "sent")

    box.report("old", "Delivered")

    assert box.state("old")[0] == "delivered"


def test_a_number_is_on_the_permanent_side_as_an_hmac_alone(box: Box) -> None:
    """Neither reports nor answers hold it elsewhere than in their content."""
    box.sent("m")
    box.report("m", "Delivered")

    permanent = ("answers", "answer_events", "delivery_reports")
    assert not any("3471234567" in str(rows(box.engine, f"SELECT * FROM {table}")) for table in permanent)


def test_a_report_comes_through_the_listener(tmp_path: Path) -> None:
    """The same gate, durability and answer as an SMS: `+OK` means that it is kept."""
    from ingestor.archive.engine import open_engine
    from ingestor.demo.agile import FakeAgile
    from tests.service.process import running

    config = tmp_path / "ingestor.toml"
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    port = _free_port()
    config.write_text(
        f'[database]\nurl = "{url}"\n[webhook]\nlisten = "127.0.0.1:{port}"\n'
        '[[webhook.endpoint]]\nprovider = "agile-reports"\npath = "/reports/4f9bR2xLq8Zt6mVw3yHd"\n'
    )
    with (
        running(config) as daemon,
        FakeAgile(f"http://127.0.0.1:{port}/reports/4f9bR2xLq8Zt6mVw3yHd") as agile,
    ):
        daemon.wait_ready()
        agile.report(messageId="m-1", destination="+393471234567")
        engine = open_engine(url, read_only=True)
        assert rows(engine, "SELECT message_id, status, source FROM delivery_reports_received") == [
            ("m-1", "delivered", "agile-reports-1")
        ]
        engine.dispose()
        tried = ingestor("--config", config, "webhook", "test", folder=tmp_path)
        assert tried.code == 0, tried.out
        assert "answered 200 +OK" in tried.out


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
