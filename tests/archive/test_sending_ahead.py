"""On PostgreSQL a batch that is expected to be all new is sent without waiting for each insert."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine

from ingestor.archive import postgresql_inserts
from ingestor.archive.entries import Item, Receipt, Submission
from ingestor.archive.postgresql_inserts import InsertsAhead
from ingestor.archive.store import Store
from ingestor.archive.targets import ARRIVALS, CONTENT, SMS, Row, Target
from ingestor.errors import ArchiveUnavailable
from ingestor.record import Channel
from tests.archive.reading import number_of, rows
from tests.archive.samples import NOW, broken, item
from tests.servers.postgresql import PostgresqlServer

Sent = list[str]


def write(store: Store, *items: Item) -> list[str]:
    """Return the outcomes of `items` in one transaction."""
    [receipt] = store.write([Submission(None, items)], NOW)
    assert isinstance(receipt, Receipt)
    return [str(outcome) for outcome in receipt.outcomes]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Return a list of the tables that something is sent to without waiting."""
    sent: Sent = []
    insert = InsertsAhead.insert

    def noting(self: InsertsAhead, target: Target, given: Sequence[Row]) -> None:
        sent.append(target.name)
        insert(self, target, given)

    monkeypatch.setattr(InsertsAhead, "insert", noting)
    return sent


def log_of(server: PostgresqlServer) -> str:
    """Return what the server has logged so far."""
    return (server.folder / "log").read_text(errors="replace")


def test_a_batch_of_new_items_is_sent_ahead(postgresql_engine: Engine, ahead: Sent) -> None:
    """All four tables get their rows without a look at what went in before."""
    store = Store(postgresql_engine)
    assert write(store, item(1), broken(2), item(3)) == ["stored", "quarantined", "stored"]
    assert ahead == ["sms", "arrivals", "sms_content", "payloads"]
    assert (number_of(postgresql_engine, "inbound_sms"), number_of(postgresql_engine, "quarantine")) == (2, 1)
    assert number_of(postgresql_engine, "payloads") == 3


def test_a_known_sms_is_found_without_an_error_in_the_log(
    postgresql_engine: Engine, postgresql_server: PostgresqlServer, ahead: Sent
) -> None:
    """The transaction is done again carefully; a database administrator reads nothing of it."""
    store = Store(postgresql_engine)
    write(store, item(1))
    before = log_of(postgresql_server)
    assert write(store, item(1, channel=Channel.MAILBOX), item(2)) == ["duplicate", "stored"]
    assert log_of(postgresql_server).count("ERROR") == before.count("ERROR")
    assert rows(postgresql_engine, "SELECT arrivals FROM inbound_sms ORDER BY id") == [(2,), (1,)]
    assert ahead == ["sms", "arrivals", "sms_content", "payloads", "sms"]


def test_ids_are_not_drawn_twice_for_one_batch(postgresql_engine: Engine, ahead: Sent) -> None:
    """An import that meets a duplicate in its first batch begins with number 1 all the same."""
    assert write(Store(postgresql_engine), item(1), item(2), item(2, copy=1)) == [
        "stored", "stored", "duplicate",
    ]  # fmt: skip
    assert ahead
    assert rows(postgresql_engine, "SELECT id FROM inbound_sms ORDER BY id") == [(1,), (2,)]
    assert rows(postgresql_engine, "SELECT id FROM arrivals ORDER BY id") == [(1,), (2,), (3,)]


def test_after_a_known_item_the_next_few_batches_are_looked_at(
    postgresql_engine: Engine, ahead: Sent
) -> None:
    """Who brings an SMS again and again must not have each batch written twice."""
    store = Store(postgresql_engine)
    write(store, item(1))
    for number in range(2, 12):
        write(store, item(number))
    write(store, item(1, copy=1))
    ahead.clear()
    for number in range(12, 20):
        assert write(store, item(number)) == ["stored"]
    assert not ahead
    write(store, item(20))
    assert ahead


@pytest.mark.parametrize(("known", "again"), [(item(1), "duplicate"), (broken(1), "quarantined")])
def test_a_mail_that_came_before_leaves_nothing_half_written(
    postgresql_engine: Engine, known: Item, again: str, ahead: Sent
) -> None:
    """Whatever of a batch was sent before the mistake was seen, is taken back."""
    write(Store(postgresql_engine), known)
    assert write(Store(postgresql_engine), item(2), known, item(3)) == ["stored", again, "stored"]
    assert number_of(postgresql_engine, "arrivals") == 3
    assert number_of(postgresql_engine, "payloads") == 3
    assert number_of(postgresql_engine, "sms_content") == number_of(postgresql_engine, "sms")
    assert len(ahead) > 4


@pytest.mark.parametrize("at", [SMS, ARRIVALS, CONTENT])
def test_a_connection_that_breaks_between_two_inserts_loses_nothing(
    postgresql_engine: Engine,
    postgresql_server: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
    at: Target,
) -> None:
    """The writer hears that the archive is away, and nothing of the batch is in it until the next try."""
    store = Store(postgresql_engine)
    write(store, item(1))
    insert = InsertsAhead.insert

    def cut(self: InsertsAhead, target: Target, given: Sequence[Row]) -> None:
        insert(self, target, given)
        if target is at:
            name = postgresql_engine.url.database
            postgresql_server.sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )

    monkeypatch.setattr(InsertsAhead, "insert", cut)
    with pytest.raises(ArchiveUnavailable):
        write(store, item(2))
    monkeypatch.setattr(InsertsAhead, "insert", insert)
    assert number_of(postgresql_engine, "arrivals") == 1
    assert write(store, item(2)) == ["stored"]
    assert number_of(postgresql_engine, "inbound_sms") == 2


@pytest.mark.parametrize("all_new", [True, False])
def test_an_id_that_is_taken_is_an_error_and_no_duplicate(
    postgresql_engine: Engine, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch,
    all_new: bool,
) -> None:  # fmt: skip
    """After a restore that set a sequence back, no SMS passes for one that stands under its id."""
    monkeypatch.setattr(InsertsAhead, "possible", lambda: all_new)
    store = Store(postgresql_engine)
    write(store, item(1), item(2))
    name = postgresql_engine.url.database or ""
    postgresql_server.sql("SELECT setval('sms_id_seq', 1)", name)
    assert write(store, item(3)) == ["stored"]
    assert rows(postgresql_engine, "SELECT text FROM inbound_sms ORDER BY text") == [
        (f"text of {number} è €",) for number in (1, 2, 3)
    ]


def test_an_old_driver_is_asked_after_each_insert(
    postgresql_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pipeline in its libpq everything is written all the same."""
    monkeypatch.setattr(postgresql_inserts.InsertsAhead, "possible", lambda: False)
    assert write(Store(postgresql_engine), item(1), item(1, copy=1)) == ["stored", "duplicate"]
    assert number_of(postgresql_engine, "arrivals") == 2
