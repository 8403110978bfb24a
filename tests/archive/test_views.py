"""The views that scripts and auditors depend on."""

import pytest
from sqlalchemy import Engine, insert, inspect

from ingestor.archive import tables
from ingestor.archive.engine import reading, writing
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.archive.views import inbound_sms, quarantine
from ingestor.record import Channel
from tests.archive.reading import one, opened, rows
from tests.archive.samples import NOW, broken, item

INBOUND_SMS = (
    "id, provider, channel, originator, originator_kind, destination, date_time, received_at, time_quality,"
    " text, keyword, clean_text, provider_message_id, segments, arrivals, sender_verified, ingested_at,"
    " erased_at, erasure_basis"
)
QUARANTINE = "id, arrived_at, channel, source, reason, subject, size, retries"
RUNS = "id, command, started_at, ended_at, read, stored, duplicate, ignored, quarantined, failed"


def test_views_have_exactly_the_columns_of_the_contract(archive_engine: Engine) -> None:
    """Names and order are what users were promised."""
    for view, columns in ((inbound_sms, INBOUND_SMS), (quarantine, QUARANTINE)):
        found = [column["name"] for column in inspect(archive_engine).get_columns(view.name)]
        assert found == columns.split(", ")
        assert [column.name for column in view.columns] == found


def test_runs_has_the_columns_of_the_contract(archive_engine: Engine) -> None:
    """The table `runs` may have more columns, never fewer."""
    found = {column["name"] for column in inspect(archive_engine).get_columns("runs")}
    assert found >= set(RUNS.split(", "))


def test_the_first_arrival_gives_the_channel_even_when_it_was_read_last(archive_engine: Engine) -> None:
    """A mail that was quarantined first and read after a POST of the same SMS still came first."""
    store = Store(archive_engine)
    store.write([Submission(None, (broken(1, channel=Channel.MAILBOX),))], NOW)
    store.write([Submission(None, (item(1, channel=Channel.WEBHOOK, content_key=b"u" * 16),))], NOW)
    assert rows(archive_engine, "SELECT channel, arrivals FROM inbound_sms") == [("webhook", 1)]
    store.write([Submission(None, (item(1, channel=Channel.MAILBOX),))], NOW)
    assert rows(archive_engine, "SELECT channel, arrivals FROM inbound_sms") == [("mailbox", 2)]


@pytest.mark.parametrize(
    ("given", "shown"),
    [((None, None), None), ((None, False), False), ((False, True), True), ((True, None), True)],
)
def test_a_sender_is_verified_once_any_arrival_was(
    archive_engine: Engine, given: tuple[bool | None, bool | None], shown: bool | None
) -> None:
    """NULL where nobody looked, true where one arrival was proven, false where none was."""
    items = tuple(item(1, copy=n, sender_verified=value) for n, value in enumerate(given))
    Store(archive_engine).write([Submission(None, items)], NOW)
    value = one(archive_engine, "SELECT sender_verified FROM inbound_sms")
    assert (value if value is None else bool(value)) is shown


def test_the_quarantine_says_why_and_how_large(archive_engine: Engine) -> None:
    """Reason, subject and size are there without looking at the raw bytes."""
    Store(archive_engine).write([Submission(None, (broken(1, raw=b"12345"),))], NOW)
    found = rows(archive_engine, "SELECT id, channel, source, reason, subject, size, retries FROM quarantine")
    assert found == [
        (1, "import", "old.mbox", "the label To is missing", "Agile Telecom -- SMS received", 5, 0)
    ]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM inbound_sms WHERE id = 5",
        "SELECT * FROM inbound_sms ORDER BY id DESC LIMIT 50",
        "SELECT * FROM inbound_sms ORDER BY received_at DESC LIMIT 50",
    ],
)
def test_pages_and_single_rows_read_no_whole_table(archive_engine: Engine, query: str) -> None:
    """The plan of what auditors ask most goes by indices, never over all rows."""
    store = Store(archive_engine)
    store.write([Submission(None, tuple(item(n) for n in range(3000)))], NOW)
    with reading(archive_engine) as connection:
        if archive_engine.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
            text = "\n".join(str(row[-1]) for row in plan)
            assert "TEMP B-TREE" not in text
            assert not [
                line for line in text.splitlines() if line in ("SCAN arrivals", "SCAN content", "SCAN a")
            ]
        else:
            connection.exec_driver_sql("ANALYZE sms")
            connection.exec_driver_sql("ANALYZE sms_content")
            connection.exec_driver_sql("ANALYZE arrivals")
            connection.exec_driver_sql("ANALYZE retries")
            plan = connection.exec_driver_sql(f"EXPLAIN {query}").all()
            text = "\n".join(row[0] for row in plan)
            assert "Seq Scan on sms" not in text
            assert "Seq Scan on arrivals" not in text


def test_a_count_leaves_the_evidence_alone(archive_engine: Engine) -> None:
    """Counting SMS does not look at any arrival, however many there are."""
    with reading(archive_engine) as connection:
        explain = "EXPLAIN QUERY PLAN" if archive_engine.dialect.name == "sqlite" else "EXPLAIN"
        plan = connection.exec_driver_sql(f"{explain} SELECT count(*) FROM inbound_sms").all()
    assert "arrivals" not in "\n".join(str(row[-1]) for row in plan)


def test_a_later_arrival_over_an_older_connection_changes_no_channel(archive_engine: Engine) -> None:
    """A daemon that has been connected for long may be the second to bring an SMS: its channel stays."""
    daemon = Store(archive_engine)
    daemon.write([Submission(None, (item(1),))], NOW)
    with opened(archive_engine.url.render_as_string(hide_password=False)) as another:
        Store(another).write([Submission(None, (item(2, channel=Channel.IMPORT),))], NOW)
    before = rows(archive_engine, "SELECT channel FROM inbound_sms ORDER BY id")
    daemon.write([Submission(None, (item(2, channel=Channel.MAILBOX),))], NOW)
    assert rows(archive_engine, "SELECT channel FROM inbound_sms ORDER BY id") == before
    assert one(archive_engine, "SELECT max(id) FROM arrivals WHERE outcome = 'duplicate'") == one(
        archive_engine, "SELECT max(id) FROM arrivals"
    )


def test_what_was_read_left_the_quarantine_whichever_verdict_has_the_higher_number(
    archive_engine: Engine,
) -> None:
    """Two processes judge one mail at once: the one that read it is right, whatever its number."""
    store = Store(archive_engine)
    store.write([Submission(None, (broken(1),))], NOW)
    store.write([Submission(None, (item(1),))], NOW)
    with writing(archive_engine) as connection:
        connection.execute(
            insert(tables.retries).values(
                id=1000, arrival_id=1, outcome="quarantined", reason="not read here", retried_at=NOW
            )
        )
    assert rows(archive_engine, "SELECT id FROM quarantine") == []
