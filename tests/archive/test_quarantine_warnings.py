"""What goes to the quarantine is said: no intake fills it in silence."""

import time

import pytest
import structlog
from sqlalchemy import Engine

from ingestor import logs
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.archive.writer import Writer
from tests.archive.samples import NOW, broken, item


def test_what_is_quarantined_is_a_warning_once_a_minute_and_kind(sqlite_engine: Engine) -> None:
    """The first of a kind is said at once, the others with their number; stored SMS never."""
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    writer.start()
    kinds = [*(broken(n) for n in range(3)), broken(3, "the label Body is missing")]
    with structlog.testing.capture_logs() as lines:
        for one in (item(9), *kinds):
            writer.submit(Submission(None, (one,))).result(30)
        assert [line["count"] for line in lines] == [1, 1]
        assert writer.stop(30)

    assert {line["log_level"] for line in lines} == {"warning"}
    assert [(line["source"], line["channel"], line["reason"], line["count"]) for line in lines] == [
        ("old.mbox", "import", "the label To is missing", 1),
        ("old.mbox", "import", "the label Body is missing", 1),
        ("old.mbox", "import", "the label To is missing", 2),
    ]


def test_what_is_quarantined_is_said_while_nothing_else_comes(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of those after the first does not wait for the next item, nor for the end."""
    monkeypatch.setattr(logs, "SECONDS_BETWEEN", 0.2)
    writer = Writer(Store(sqlite_engine), clock=lambda: NOW)
    writer.start()
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            writer.submit(Submission(None, (broken(number),))).result(30)
        deadline = time.monotonic() + 30
        while sum(line["count"] for line in lines) < 3:
            assert time.monotonic() < deadline, lines
            time.sleep(0.01)
    assert writer.stop(30)
