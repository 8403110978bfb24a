"""POSTs that come together become durable together, and none waits for another's sake."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.items import Receipt, Submission
from ingestor.archive.store import Store
from ingestor.intake.listener.reception import Limits
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, Stand, finish
from tests.waiting import until

CROWD = 20
PATIENT = Limits(writer_seconds=60.0, answer_seconds=60.0)


def test_a_crowd_needs_few_commits(
    tmp_path: Path, archive_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty POSTs sent while the writer is busy become durable in one transaction."""
    sizes: list[int] = []
    write = Store.write

    def slowly(store: Store, submissions: Sequence[Submission], *args: Any, **options: Any) -> list[Receipt]:
        sizes.append(len(submissions))
        if len(sizes) == 1:
            until(lambda: stand.writer is not None and stand.writer.queued == CROWD + 1)
        return write(store, submissions, *args, **options)

    monkeypatch.setattr(Store, "write", slowly)
    stand = Stand(tmp_path, archive_engine, limits=PATIENT)
    clients = [stand.client() for _ in range(CROWD + 1)]
    clients[0].send(post(AGILE, sms(0)))
    until(lambda: sizes)
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


def test_a_slow_writer_holds_up_nobody_else(make_stand: MakeStand) -> None:
    """While POSTs wait for the database, others are answered; the POSTs are, too, once durable."""
    stand = make_stand(limits=PATIENT)
    stand.at_hand.silent = True
    with stand.client() as waiting:
        waiting.send(post(AGILE, sms(1)))
        until(lambda: stand.at_hand.taken)
        for _ in range(50):
            assert stand.ask(post("/nothing/here", b"")).status == 404
        [(submission, future)] = stand.at_hand.taken
        finish(submission, future)
        assert waiting.answer().body == b"+OK"
