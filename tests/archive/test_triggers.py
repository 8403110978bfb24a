"""Append-only, proven by trying: nothing changes a row that was committed."""

import pytest
from sqlalchemy import Engine, insert
from sqlalchemy.exc import DBAPIError

from ingestor.archive import holds, words
from ingestor.archive.engine import writing
from ingestor.archive.items import SenderCheck, Submission
from ingestor.archive.store import Store
from ingestor.archive.tables import ERASABLE, PERMANENT, dictionaries, erased, erasures, metadata
from ingestor.replies.opt_outs import Event, read_secret, write_events
from tests.archive.reading import rows
from tests.archive.samples import NOW, broken, item
from tests.replies.rows import add_rows_of_replies

TABLES = PERMANENT + ERASABLE


def fill(engine: Engine) -> Engine:
    """Put a row into every append-only table."""
    store = Store(engine)
    store.write(
        [Submission(None, (item(1, sender_check=SenderCheck("dkim", "pass")), item(2), broken(3)))], NOW
    )
    store.write([Submission(None, (item(3),))], NOW)
    with writing(engine) as connection:
        connection.execute(insert(dictionaries).values(id=1, bytes=b"dictionary", created_at=NOW))
        write_events(connection, read_secret(connection), [Event("+393351234567", "*", "add", NOW)], NOW)
    assert list(words.bring_up(engine))
    add_rows_of_replies(engine)
    holds.add(engine, {"sms_id": 1}, None, "a lawsuit", NOW)
    with writing(engine) as connection:
        counts = {"sms": 1, "arrivals": 0, "payloads": 0, "others": 0}
        done = insert(erasures).values(plan_id="p", batch=0, basis="b", erased_at=NOW, **counts)
        connection.execute(done)
        connection.execute(insert(erased).values(kind="sms", row_id=2, erasure_id=1))
    return engine


def _contents(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(rows(engine, f"SELECT * FROM {table}"), key=str) for table in TABLES}


def _refused(engine: Engine, statement: str) -> None:
    with pytest.raises(DBAPIError, match="is append-only"), writing(engine) as connection:
        connection.exec_driver_sql(statement)


def test_a_committed_row_can_neither_be_changed_nor_removed(archive_engine: Engine) -> None:
    """UPDATE and DELETE are refused on every append-only table, in words."""
    before = _contents(fill(archive_engine))
    for table in TABLES:
        assert before[table]
        column = list(metadata.tables[table].columns)[-1].name
        _refused(archive_engine, f"UPDATE {table} SET {column} = {column}")
        _refused(archive_engine, f"DELETE FROM {table}")
    assert _contents(archive_engine) == before


def test_truncate_is_refused_on_postgresql(postgresql_engine: Engine) -> None:
    """TRUNCATE, which no row trigger sees, is refused on every append-only table."""
    before = _contents(fill(postgresql_engine))
    for table in TABLES:
        _refused(postgresql_engine, f"TRUNCATE {table} CASCADE")
    assert _contents(postgresql_engine) == before


def test_replace_changes_nothing_on_sqlite(sqlite_engine: Engine) -> None:
    """INSERT OR REPLACE, which no UPDATE or DELETE trigger sees, leaves the row that stands there.

    Neither by its id, nor by its other key under a new id.
    """
    before = _contents(fill(sqlite_engine))
    forged = {"compressed": "zeroblob(3)", "bytes": "zeroblob(3)", "text": "'forged'", "reason": "'forged'"}
    forged |= {"ingested_at": "'forged'", "retried_at": "'forged'"}
    for table in TABLES:
        names = [column.name for column in metadata.tables[table].columns]
        for other_id in (False, table in ("sms", "arrivals", "retries")):
            values = ["id + 1000" if name == "id" and other_id else forged.get(name, name) for name in names]
            with writing(sqlite_engine) as connection:
                connection.exec_driver_sql(
                    f"INSERT OR REPLACE INTO {table} SELECT {', '.join(values)} FROM {table} WHERE true"
                )
            assert _contents(sqlite_engine) == before, table


def test_the_ignoring_trigger_leaves_conflict_clauses_right(archive_engine: Engine) -> None:
    """ON CONFLICT DO NOTHING and RETURNING behave as without triggers: no row comes back for a known key."""
    with writing(fill(archive_engine)) as connection:
        again = connection.exec_driver_sql(
            "INSERT INTO sms SELECT id + 100, fingerprint, fingerprint_version, provider, originator_kind,"
            " destination, date_time, received_at, time_quality, provider_message_id, segments, ingested_at"
            " FROM sms WHERE true ON CONFLICT DO NOTHING RETURNING id"
        )
        assert again.all() == []


def test_the_guards_of_an_archive_that_is_current_stay_word_for_word(sqlite_engine: Engine) -> None:
    """They follow from the keys of tables; `check` compares their text."""
    guards = {
        "answers": ("id", "sms_id rule", "message_id", "resend_of"),
        "arrivals": ("id", "content_key number channel place"),
    }
    for table, keys in guards.items():
        text = rows(sqlite_engine, f"SELECT sql FROM sqlite_schema WHERE name = '{table}_no_replace'")[0][0]
        same = (" AND ".join(f"{name} = NEW.{name}" for name in key.split()) for key in keys)
        known = " ".join(f"SELECT RAISE(IGNORE) FROM {table} WHERE {key};" for key in same)
        assert text == f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} BEGIN {known} END"
