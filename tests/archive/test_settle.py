"""What one transaction does, and what else may be written in it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from psycopg import _queries  # its limits are nowhere else
from sqlalchemy import Connection, Engine, insert

from ingestor.archive import settle, tables
from ingestor.archive.engine import reading, writing
from ingestor.archive.insert_statements import array_of, arrived_on_postgresql
from ingestor.archive.inserts import insert_arrived, insert_new
from ingestor.archive.items import Item, Submission
from ingestor.archive.settle import NewSms
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable
from ingestor.intake.retry import retry
from ingestor.providers.contract import Readable
from tests.archive.reading import number_of, rows
from tests.archive.samples import NOW, PARSER, broken, item, sms
from tests.servers.postgresql import PostgresqlServer


def write(store: Store, *items: Item) -> list[str]:
    """Write `items` as a submission each; return their outcomes."""
    receipts = store.write([Submission(None, (one,)) for one in items], NOW)
    return [str(outcome) for receipt in receipts for outcome in receipt.outcomes]


@pytest.mark.parametrize("at", ["sms", "arrivals"])
def test_a_connection_that_breaks_between_two_inserts_loses_nothing(
    postgresql_engine: Engine, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The writer hears that the archive is away, and nothing of the batch is in it until the next try."""
    store = Store(postgresql_engine)
    write(store, item(1))

    def cut(name: str, insert: Callable[..., set[int] | None]) -> Callable[..., set[int] | None]:
        def then_cut(connection: Connection, *given: Any) -> set[int] | None:
            new = insert(connection, *given)
            if at == name or given[0] is getattr(tables, at):
                database = postgresql_engine.url.database
                postgresql_server.sql(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
                )
            return new

        return then_cut

    with monkeypatch.context() as patched:
        patched.setattr(settle, "insert_new", cut("rows", insert_new))
        patched.setattr(settle, "insert_arrived", cut("arrivals", insert_arrived))
        with pytest.raises(ArchiveUnavailable):
            write(store, item(2))
    assert number_of(postgresql_engine, "arrivals") == 1
    assert write(store, item(2)) == ["stored"]
    assert number_of(postgresql_engine, "inbound_sms") == 2


def test_an_id_that_is_taken_is_an_error_and_no_duplicate(
    postgresql_engine: Engine, postgresql_server: PostgresqlServer
) -> None:
    """After a restore that set a sequence back, no SMS passes for one that stands under its id."""
    store = Store(postgresql_engine)
    write(store, item(1), item(2))
    name = postgresql_engine.url.database or ""
    postgresql_server.sql("SELECT setval('sms_id_seq', 1)", name)
    assert write(store, item(3)) == ["stored"]
    texts = rows(postgresql_engine, "SELECT text FROM inbound_sms ORDER BY text")
    assert texts == [(f"text of {number} è €",) for number in (1, 2, 3)]


class Beside:
    """Writes a row of its own for each SMS that is stored, in the same transaction."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, connection: Connection, new: Sequence[NewSms]) -> None:
        """Note each SMS; its text must stand in the archive already."""
        self.calls += 1
        for one in new:
            assert one.row.content is not None
            found = connection.exec_driver_sql(
                f"SELECT text FROM sms_content WHERE sms_id = {one.sms_id}"
            ).scalar()
            assert found == one.row.content.text
            values = {"name": one.row.content.originator, "holder": one.row.content.text, "expires_at": NOW}
            connection.execute(insert(tables.leases), values)

    def noted(self, engine: Engine) -> list[str]:
        """Return what stands in the archive."""
        return [name for (name,) in rows(engine, "SELECT name FROM leases ORDER BY name")]


def test_what_belongs_to_a_stored_sms_stands_in_its_transaction(archive_engine: Engine) -> None:
    """Once for each SMS that is new, never for a duplicate or what cannot be read."""
    beside = Beside()
    store = Store(archive_engine, beside)
    assert write(store, item(1), item(1, copy=1), broken(2)) == ["stored", "duplicate", "quarantined"]
    assert write(store, item(1), item(3)) == ["duplicate", "stored"]
    assert beside.noted(archive_engine) == ["+393330000001", "+393330000003"]


def test_a_retry_that_becomes_stored_has_it_too(archive_engine: Engine) -> None:
    """The quarantine's SMS is one like all others."""
    beside = Beside()
    store = Store(archive_engine, beside)
    write(store, broken(1))
    assert beside.calls == 0
    [verdict] = retry(store, lambda _: [Readable(sms(1), PARSER)], None, NOW)
    assert str(verdict.outcome) == "stored"
    assert beside.noted(archive_engine) == ["+393330000001"]


def test_a_refused_item_takes_no_others_with_it(archive_engine: Engine) -> None:
    """Where the batch is replayed item by item each SMS that stays has its row, once."""
    beside = Beside()
    store = Store(archive_engine, beside)
    odd = item(2)._replace(reading=Readable(sms(2, segments=2**40), PARSER))
    lone = item(5)._replace(reading=Readable(sms(5, keyword="\ud800"), PARSER))
    outcomes = write(store, item(1), odd, lone, item(3))
    assert outcomes == ["stored", "quarantined", "quarantined", "stored"]
    assert beside.noted(archive_engine) == ["+393330000001", "+393330000003"]


def test_an_item_whose_own_row_is_refused_is_quarantined(archive_engine: Engine) -> None:
    """What must stand beside an SMS and cannot: then the SMS waits, and its neighbours do not."""
    with writing(archive_engine) as connection:
        values = {"name": "+393330000002", "holder": "x", "expires_at": NOW}
        connection.execute(insert(tables.leases), values)
    store = Store(archive_engine, Beside())
    store.write([Submission(None, (item(1),))], NOW)
    assert write(store, item(2), item(3)) == ["quarantined", "stored"]
    assert number_of(archive_engine, "inbound_sms") == 2


def test_a_transaction_that_is_done_again_asks_again(
    archive_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first try nothing stays, of the second everything does."""
    beside = Beside()

    def fail_once(connection: Connection, new: Sequence[NewSms]) -> None:
        beside(connection, new)
        if beside.calls == 1:
            raise ArchiveUnavailable("away")

    store = Store(archive_engine, fail_once)
    with pytest.raises(ArchiveUnavailable):
        write(store, item(1))
    assert beside.noted(archive_engine) == []
    assert write(store, item(1)) == ["stored"]
    assert len(beside.noted(archive_engine)) == 1


def test_the_driver_keeps_what_it_makes_of_the_longest_statement() -> None:
    """psycopg reads one anew each time where it is longer, or has more parameters: 0.5 ms a commit."""
    statement = arrived_on_postgresql()
    assert len(statement) <= _queries.MAX_CACHED_STATEMENT_LENGTH
    assert statement.count("%(") <= _queries.MAX_CACHED_STATEMENT_PARAMS


@pytest.mark.parametrize("number", [1, 50, 51, 501])
def test_as_many_as_there_are_are_known_again(archive_engine: Engine, number: int) -> None:
    """Keys are asked for in steps, the last of which is filled up: nobody is missed, nobody counted twice."""
    store = Store(archive_engine)
    items = [item(one) for one in range(number)]
    assert write(store, *items) == ["stored"] * number
    assert write(store, *items, item(number)) == ["duplicate"] * number + ["stored"]


def test_bytes_of_any_kind_and_length_reach_postgresql(postgresql_engine: Engine) -> None:
    """They travel in the server's binary form, with NULL and nothing at all among them."""
    column = (b"", None, b'\0\\"{},\xff', b"x" * 70000, b"last")
    with writing(postgresql_engine) as connection:
        driver: Any = connection.connection.dbapi_connection
        found = driver.execute("SELECT * FROM unnest(%(given)s::BYTEA[])", {"given": array_of(column)})
        assert tuple(value for (value,) in found) == column


def test_a_new_archive_is_not_read_whole_for_each_batch(postgresql_engine: Engine) -> None:
    """Rows are found by their keys before PostgreSQL has any statistics: a first import would crawl."""
    store = Store(postgresql_engine)
    write(store, *map(item, range(2000)))
    whole = "SELECT relname, coalesce(seq_scan, 0) FROM pg_stat_user_tables"

    def scans() -> dict[str, int]:
        postgresql_engine.dispose()  # a connection tells its counts at its end
        with reading(postgresql_engine) as connection:
            return {
                name: count
                for name, count in connection.exec_driver_sql(whole).all()
                if name in ("sms", "arrivals", "retries", "payloads")
            }

    before = scans()
    assert write(store, *map(item, range(1000, 3000))) == ["duplicate"] * 1000 + ["stored"] * 1000
    assert scans() == before
