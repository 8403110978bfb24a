"""SMS as they are committed: each once, whatever commits late."""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from ingestor.archive.engine import writing
from ingestor.replies.following import KEPT_SECONDS, YOUNG_SECONDS, Following, wanted
from tests.replies.given import OURS, SHE, TEN, store


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


def put(engine: Engine, *numbers: int) -> None:
    """Commit SMS under these ids."""
    with writing(engine) as connection:
        for number in numbers:
            store(connection, number, "hello", TEN + timedelta(seconds=number), OURS)


@contextmanager
def uncommitted(engine: Engine, *numbers: int) -> Iterator[None]:
    """Hold SMS under these ids back from their commit while the block lasts."""
    with closing(engine.connect()) as connection, connection.begin():
        for number in numbers:
            store(connection, number, "late", TEN + timedelta(seconds=number), OURS)
        yield


def begun(
    engine: Engine, clock: Clock | None = None, since: datetime | None = None
) -> tuple[Following, list[int]]:
    """Return a reader that has begun, and the ids that it gave at once."""
    following = Following(engine, wanted(None, None, since), clock or Clock())
    return following, [row["id"] for row in following.begin(since)]


def seen(following: Following) -> list[int]:
    """Return the ids of the next look."""
    return [row["id"] for row in following.look()]


def test_what_is_committed_is_given_once(archive_engine: Engine) -> None:
    """What was there is not, what comes is, in the order of its ids, and never again."""
    put(archive_engine, 1, 2)
    following, there = begun(archive_engine)
    assert there == []

    put(archive_engine, 3)
    put(archive_engine, 5, 4)

    assert seen(following) == [3, 4, 5]
    assert seen(following) == []


def test_more_than_one_page_is_given_in_one_look(archive_engine: Engine) -> None:
    """An import's thousands come whole."""
    following, _ = begun(archive_engine)
    put(archive_engine, *range(1, 1202))

    assert seen(following) == list(range(1, 1202))


def test_since_gives_first_what_is_there(archive_engine: Engine) -> None:
    """What was received at that time or later, whenever it came; nothing older, also when it comes late."""
    put(archive_engine, 1, 2, 3)
    following, there = begun(archive_engine, since=TEN + timedelta(seconds=2))
    assert there == [2, 3]

    with writing(archive_engine) as connection:
        store(connection, 4, "old", TEN, OURS)
        store(connection, 5, "new", TEN + timedelta(seconds=9), OURS)

    assert seen(following) == [5]


def test_only_the_wanted_numbers_are_given(archive_engine: Engine) -> None:
    """A sender is exactly that one, as is a number of ours."""
    put(archive_engine, 1)
    for conditions, count in (
        (wanted(SHE, OURS, None), 1),
        (wanted(SHE[:-1], None, None), 0),
        (wanted(None, SHE, None), 0),
    ):
        following = Following(archive_engine, conditions)
        assert list(following.begin(None)) == []
        following._last = 0
        assert len(seen(following)) == count


@pytest.mark.postgresql
def test_a_lower_id_that_commits_later_is_given(postgresql_engine: Engine) -> None:
    """Of two writers at once, the one that drew its ids first may commit last."""
    put(postgresql_engine, 1)
    following, _ = begun(postgresql_engine)
    with uncommitted(postgresql_engine, 2, 4, 5):
        put(postgresql_engine, 3, 6)
        assert seen(following) == [3, 6]
        assert seen(following) == []

    assert seen(following) == [2, 4, 5]
    assert seen(following) == []


@pytest.mark.postgresql
def test_what_was_on_its_way_at_the_start_is_given(postgresql_engine: Engine) -> None:
    """An id below the last one that commits after the start is no old SMS."""
    with uncommitted(postgresql_engine, 1):
        put(postgresql_engine, 2)
        following, there = begun(postgresql_engine, since=TEN)
        assert there == [2]

    assert seen(following) == [1]


@pytest.mark.postgresql
def test_a_writer_that_was_stopped_for_hours_is_still_heard(postgresql_engine: Engine) -> None:
    """Ids that were passed over long ago are looked at each minute, for a day."""
    clock = Clock()
    following, _ = begun(postgresql_engine, clock)
    with uncommitted(postgresql_engine, 1, 3):
        put(postgresql_engine, 2, 4)
        assert seen(following) == [2, 4]
        clock.now += YOUNG_SECONDS * 60
        assert seen(following) == []
    assert seen(following) == []

    clock.now += 61
    assert seen(following) == [1, 3]

    put(postgresql_engine, 9)
    assert seen(following) == [9]
    clock.now += KEPT_SECONDS + 1
    assert seen(following) == []
    assert following._holes == []


@pytest.mark.postgresql
def test_none_is_lost_and_none_doubled_in_any_order_of_commits(postgresql_engine: Engine) -> None:
    """Whichever of the ids in flight commits next: over all looks each SMS is given once."""
    order = random.Random(7)
    following, _ = begun(postgresql_engine)
    given: list[int] = []
    flying: list[tuple[Any, Connection]] = []
    committed: set[int] = set()
    for number in range(1, 60):
        connection = postgresql_engine.execution_options().connect() if len(flying) < 4 else None
        if connection is not None and order.random() < 0.6:
            transaction = connection.begin()
            store(connection, number, "flies", TEN, OURS)
            flying.append((transaction, connection))
        else:
            if connection is not None:
                connection.close()
            put(postgresql_engine, number)
        if flying and order.random() < 0.5:
            transaction, connection = flying.pop(order.randrange(len(flying)))
            transaction.commit() if order.random() < 0.8 else transaction.rollback()
            connection.close()
        given += seen(following)
    for transaction, connection in flying:
        transaction.commit()
        connection.close()
    given += seen(following)
    with postgresql_engine.connect() as connection:
        committed = set(connection.execute(text("SELECT id FROM sms")).scalars())

    assert sorted(given) == sorted(committed)


def test_the_time_given_is_the_sms_own(archive_engine: Engine) -> None:
    """A row is that of the view, its times aware."""
    following, _ = begun(archive_engine)
    put(archive_engine, 1)

    [row] = following.look()

    assert row["received_at"] == datetime(2026, 5, 14, 10, 0, 1, tzinfo=UTC)
    assert (row["originator"], row["text"]) == (SHE, "hello")
