"""The spool before the database: each POST is on the disk first, and stays there beyond its commit."""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine

from ingestor.archive.items import Receipt
from ingestor.archive.runs import balance, begin_run
from ingestor.intake.listener import spool
from ingestor.intake.listener.posts import PostsRead, ReceivedPost
from ingestor.intake.listener.reception import Limits
from ingestor.intake.listener.replay import Keeper
from ingestor.providers.contract import Post
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, Stand, WriterAtHand, rules

Eventually = Callable[..., None]


def kept(stand: Stand) -> int:
    """Return how many files stay after their commit."""
    return spool.depth(stand.spool / spool.KEPT)


def keys(stand: Stand) -> list[bytes]:
    """Return the UUID of each submission, as the writer got it."""
    return [submission.items[0].content_key for submission, _ in stand.at_hand.taken]


@pytest.fixture
def stand(make_stand: MakeStand) -> Stand:
    """A listener whose spool comes first."""
    return make_stand(spool_first=True, limits=Limits(writer_seconds=0.3))


def test_no_post_is_submitted_before_its_file_is_there(stand: Stand, eventually: Eventually) -> None:
    """The writer has a POST only once its file is on the disk; after the commit the file is kept apart."""
    seen: list[int] = []
    submit = stand.at_hand.submit

    def looking(*given: Any) -> "Future[Receipt]":
        seen.append(spool.depth(stand.spool))
        return submit(*given)

    stand.at_hand.submit = looking  # type: ignore[method-assign]  # it looks over the writer's shoulder
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            assert stand.sms(number).body == b"+OK"
            eventually(lambda: kept(stand) == number + 1)  # noqa: B023 - it is called before the next turn
    eventually(lambda: stand.listener.keeper.depth == 0)
    assert seen == [1, 1, 1]
    assert spool.depth(stand.spool) == 0
    assert not [line for line in lines if "spool" in line["event"]]  # nothing out of the ordinary
    assert stand.listener.posts.by_endpoint["agile-1"].outcomes == {"stored": 3}


def test_what_is_kept_is_submitted_again_under_its_first_uuid(
    make_stand: MakeStand, eventually: Eventually
) -> None:
    """When it is asked for, and not by a restart alone; a later run does it too, and keeps it again."""
    first = make_stand(spool_first=True)
    for number in range(3):
        first.sms(number)
    eventually(lambda: kept(first) == 3)
    first.stop()

    second = make_stand(spool_first=True)
    assert second.at_hand.taken == []
    second.at_hand.trouble = "down"
    second.listener.keeper.submit_again(7)
    assert second.listener.keeper.left_again
    second.at_hand.trouble = None
    eventually(lambda: not second.listener.keeper.left_again)
    eventually(lambda: kept(second) == 3)

    assert keys(second) == keys(first)
    assert {submission.run_id for submission, _ in second.at_hand.taken} == {7}
    assert spool.depth(second.spool) == 0


def test_a_second_submission_is_the_same_arrival(
    make_stand: MakeStand, archive_engine: Engine, eventually: Eventually
) -> None:
    """In an archive that has all of it nothing is doubled, and each POST stays one arrival."""
    stand = make_stand(archive_engine, spool_first=True)
    for number in range(3):
        stand.sms(number)
    eventually(lambda: kept(stand) == 3)
    run = begin_run(archive_engine, "rescan", {}, datetime.now(UTC))
    stand.listener.keeper.submit_again(run)
    eventually(lambda: not stand.listener.keeper.left_again)

    assert stand.rows("SELECT count(*), sum(arrivals) FROM inbound_sms") == [(3, 3)]
    counts = balance(archive_engine, run)
    assert (counts.read, counts.duplicate) == (3, 3)


def test_a_post_is_answered_however_the_database_fares(stand: Stand, eventually: Eventually) -> None:
    """Where that is slow after the patience, where it fails at once: the file waits, and is replayed."""
    stand.at_hand.silent = True
    assert stand.sms(1).body == b"+OK"
    assert spool.depth(stand.spool) == 1
    [(_, future)] = stand.at_hand.taken
    stand.at_hand.silent = False
    assert future.set_running_or_notify_cancel()  # nothing is gained by taking it back
    future.set_exception(RuntimeError("a fault of the program"))
    eventually(lambda: kept(stand) == 1)
    assert len(stand.at_hand.taken) == 2

    stand.at_hand.error = RuntimeError("stopping")
    assert stand.sms(2).body == b"+OK"
    assert spool.depth(stand.spool) == 1


def test_a_failed_commit_is_answered_from_the_spool(stand: Stand, eventually: Eventually) -> None:
    """The client need not wait for a second try: its POST is on the disk."""
    stand.at_hand.silent = True
    with stand.client() as client:
        client.send(post(AGILE, sms(1)))
        eventually(lambda: bool(stand.at_hand.taken))
        [(_, future)] = stand.at_hand.taken
        future.set_running_or_notify_cancel()
        future.set_exception(RuntimeError("a fault of the program"))
        assert client.answer().body == b"+OK"
    assert kept(stand) == 0


def test_a_spool_that_takes_no_write_costs_no_post(stand: Stand) -> None:
    """It is said, and the archive takes what comes, as without the setting."""
    stand.spool.rename(stand.spool.with_name("elsewhere"))
    assert stand.sms(1).body == b"+OK"
    assert len(stand.at_hand.taken) == 1
    assert stand.listener.keeper.trouble is not None


def received(number: int) -> ReceivedPost:
    """Return a POST with UUID `number`."""
    arrived = datetime(2026, 11, 22, 8, 0, number, tzinfo=UTC)
    return ReceivedPost(number.to_bytes(16), "agile-1", "agile", "", Post(sms(number), b"", "", arrived))


@pytest.mark.parametrize("keeps", [True, False])
def test_a_file_is_kept_for_ten_minutes(tmp_path: Path, eventually: Eventually, keeps: bool) -> None:
    """Counted from its commit, or from the start that finds it, whatever that start's setting is."""
    now = 0.0
    spool.prepare(tmp_path)
    [name] = spool.store(tmp_path, [received(1)])
    spool.set_aside(tmp_path, str(name), spool.KEPT)
    place = tmp_path / spool.KEPT / str(name)
    keeper = Keeper(tmp_path, WriterAtHand(), rules(), PostsRead([]), keeps=keeps, clock=lambda: now)
    keeper.start()

    def write(number: int) -> None:
        told: list[object] = []
        keeper.keep(received(number), told.append, with_writer=False)
        eventually(lambda: told and not keeper.depth)

    try:
        now = 599.0
        write(2)
        assert place.exists()
        now = 600.0
        write(3)
        eventually(lambda: not place.exists())
        assert spool.depth(tmp_path / spool.KEPT) == (2 if keeps else 0)
    finally:
        keeper.stop(30)
