"""POSTs that come together become durable together, and none waits for another's sake."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.items import Receipt, Submission
from ingestor.archive.store import Store
from tests.intake.listener.client import post, sms
from tests.intake.listener.stand import AGILE, Stand, finish

CROWD = 20


def test_a_crowd_needs_few_commits(
    tmp_path: Path, archive_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty POSTs sent while the writer is busy become durable in one transaction."""
    sizes: list[int] = []
    write = Store.write

    def slowly(store: Store, submissions: Sequence[Submission], *args: Any, **options: Any) -> list[Receipt]:
        sizes.append(len(submissions))
        if len(sizes) == 1:
            time.sleep(1.0)
        return write(store, submissions, *args, **options)

    monkeypatch.setattr(Store, "write", slowly)
    stand = Stand(tmp_path, archive_engine)
    clients = [stand.client() for _ in range(CROWD + 1)]
    clients[0].send(post(AGILE, sms(0)))
    while not sizes:
        time.sleep(0.01)
    for number, client in enumerate(clients[1:], 1):
        client.send(post(AGILE, sms(number)))
    for client in clients:
        assert client.answer().body == b"+OK"
    assert stand.stop()
    assert sizes == [1, CROWD]


def test_a_lone_post_is_handed_on_at_once(stand: Stand) -> None:
    """Whoever comes alone is a submission of its own."""
    for number in range(3):
        assert stand.sms(number).body == b"+OK"
    assert [len(submission.items) for submission, _ in stand.at_hand.taken] == [1, 1, 1]


def test_a_slow_writer_holds_up_nobody_else(stand: Stand) -> None:
    """While POSTs wait for the database, others are answered; the POSTs are, too, once durable."""
    stand.at_hand.silent = True
    with stand.client() as waiting:
        waiting.send(post(AGILE, sms(1)))
        while not stand.at_hand.taken:
            time.sleep(0.01)
        began = time.monotonic()
        for _ in range(50):
            assert stand.ask(post("/nothing/here", b"")).status == 404
        assert time.monotonic() - began < 5
        for submission, future in stand.at_hand.taken:
            finish(submission, future)
        assert waiting.answer().body == b"+OK"
