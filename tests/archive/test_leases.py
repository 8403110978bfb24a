"""Leases: one holder at a time, by the database's clock."""

import threading

from sqlalchemy import Engine, text

from ingestor.archive.engine import reading, writing
from ingestor.archive.mailbox_state import release_lease, take_lease
from tests.waiting import until


def expire(engine: Engine, when: str = "2020-01-01T00:00:00.000Z") -> None:
    """Let every lease run out `when`: it did, some time ago."""
    with writing(engine) as connection:
        connection.execute(text(f"UPDATE leases SET expires_at = '{when}'"))


def test_a_lease_is_its_holders_until_it_runs_out(archive_engine: Engine) -> None:
    """The holder renews it as often as it likes; another takes it after its end, or when it is given back."""
    assert take_lease(archive_engine, "mailbox main", "a", 60)
    assert take_lease(archive_engine, "mailbox main", "a", 60)
    assert not take_lease(archive_engine, "mailbox main", "b", 60)
    assert take_lease(archive_engine, "mailbox other", "b", 60)

    expire(archive_engine)
    assert take_lease(archive_engine, "mailbox main", "b", 60)
    assert not take_lease(archive_engine, "mailbox main", "a", 60)

    release_lease(archive_engine, "mailbox main", "a")
    assert not take_lease(archive_engine, "mailbox main", "a", 60)
    release_lease(archive_engine, "mailbox main", "b")
    assert take_lease(archive_engine, "mailbox main", "a", 60)


def test_a_lease_of_before_the_clock_was_set_back_is_nobodys(archive_engine: Engine) -> None:
    """Its holder died, and by the database's clock it runs out in a thousand years."""
    take_lease(archive_engine, "mailbox main", "a", 60)
    expire(archive_engine, "3026-01-01T00:00:00.000Z")

    assert take_lease(archive_engine, "mailbox main", "b", 60)
    assert not take_lease(archive_engine, "mailbox main", "a", 60)


def test_who_waits_for_a_renewal_does_not_get_it(postgresql_engine: Engine) -> None:
    """What it has computed is older than the renewal, and that was taken for one of a wrong clock."""
    take_lease(postgresql_engine, "mailbox main", "a", 60)
    renewal = text("UPDATE leases SET expires_at = clock_timestamp() + interval '60 s'")
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    got: list[bool] = []
    other = threading.Thread(
        target=lambda: got.append(take_lease(postgresql_engine, "mailbox main", "b", 60))
    )

    def waits() -> bool:
        with reading(postgresql_engine) as another:
            return another.execute(waiting).scalar() == 1

    with writing(postgresql_engine) as connection:
        connection.execute(renewal)
        other.start()
        until(waits, "it waits")
        connection.execute(renewal)
    other.join()
    assert got == [False]


def test_of_many_at_once_one_gets_it(archive_engine: Engine) -> None:
    """It is one statement: nothing comes in between."""
    take_lease(archive_engine, "mailbox main", "before", 60)
    expire(archive_engine)
    got: list[int] = []
    start = threading.Barrier(4)

    def take(number: int) -> None:
        start.wait()
        if take_lease(archive_engine, "mailbox main", str(number), 60):
            got.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
