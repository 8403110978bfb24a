"""An archive that is copied into another database is the same archive there, row by row, and goes on."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from ingestor.archive import tables, transfer, triggers, words
from ingestor.archive.engine import open_engine, reading, writing
from ingestor.archive.intact import differences
from ingestor.archive.items import Submission
from ingestor.archive.migrate import current, head
from ingestor.archive.runs import begin_run, end_run
from ingestor.archive.store import Store
from ingestor.archive.transfer import copy_archive
from ingestor.errors import ConfigurationError, IngestorError, UpgradeFailed
from ingestor.replies.opt_outs import Event, read_secret, write_events
from tests.archive.samples import NOW, broken, item


def tell(_done: int, _of: int) -> None:
    """Show nothing."""


@pytest.fixture
def source(archive_engine: Engine) -> Engine:
    """An archive with rows in every table that can hold one of made-up values."""
    run = begin_run(archive_engine, "import", {"paths": ["è"]}, NOW)
    items = (*(item(number) for number in range(1, 40)), item(2, copy=1), broken(50), broken(51))
    Store(archive_engine).write([Submission(run, items, ignored=3)], NOW)
    end_run(archive_engine, run, NOW)
    with writing(archive_engine) as connection:
        for table in tables.metadata.sorted_tables:
            if connection.execute(select(func.count()).select_from(table)).scalar():
                continue
            try:
                with connection.begin_nested():
                    connection.execute(
                        insert(table).values({one.name: made_up(one) for one in table.columns})
                    )
            except (IntegrityError, DBAPIError):
                continue  # a rule of its own: its rows come of the program
    return archive_engine


def made_up(column: Any) -> Any:
    """Return a value for a column, of its type."""
    if isinstance(column.type, tables.Instant):
        return NOW
    if "BLOB" in str(column.type) or "BINARY" in str(column.type):
        return bytes(range(32))
    return 1 if "INT" in str(column.type).upper() or "BOOL" in str(column.type).upper() else "α 'x'"


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database without anything in it."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('target')}/copy.db"
    else:
        url = request.getfixturevalue("postgresql_url")
    engine = open_engine(url)
    yield engine
    engine.dispose()


def rows(engine: Engine) -> dict[str, list[Any]]:
    """Return all rows of all tables, read by SQLAlchemy's types and not as the copy reads them."""
    with reading(engine) as connection:
        found = {}
        for table in tables.metadata.sorted_tables:
            key = list(table.primary_key.columns)
            read = [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)
                    for row in connection.execute(select(table)).all()]  # fmt: skip
            places = [list(table.columns).index(one) for one in key]
            found[table.name] = sorted(read, key=lambda row, places=places: [row[n] for n in places])  # type: ignore[misc]
    return found


def test_every_table_is_the_same_with_ids_key_and_guards(source: Engine, target: Engine) -> None:
    """All tables that there are, read independently, are equal; the copy goes on with ids that are free."""
    copied = copy_archive(source, target, tell)

    assert rows(target) == rows(source)
    assert copied.rows - copied.written in {0, 1, 2}  # a fresh schema may hold what the source does
    assert current(target) == head()
    assert differences(target) == []
    run = begin_run(target, "import", {}, NOW)
    Store(target).write([Submission(run, (item(3), item(100)))], NOW)  # the first is known by the same key
    with reading(target) as connection:
        assert connection.execute(select(func.count()).select_from(tables.sms)).scalar() == 40


def test_words_get_their_index_when_all_are_there(source: Engine, postgresql_url: str) -> None:
    """PostgreSQL makes it once, at the end: kept row by row it takes most of the copy's time."""
    target, seen = open_engine(postgresql_url), set()

    def look(_done: int, _of: int) -> None:
        with reading(target) as connection:
            seen.add(words.indexed(connection))

    try:
        copy_archive(source, target, look)
        with reading(target) as connection:
            assert words.indexed(connection)
        assert seen == {False}
        copy_archive(source, target, look)
        assert seen == {False, True}, "what stands is kept"
    finally:
        target.dispose()


def test_a_later_call_brings_only_what_is_new(source: Engine, target: Engine) -> None:
    """What came, changed and went since is brought over; a copy that is in use itself is left alone."""
    copy_archive(source, target, tell)
    run = begin_run(source, "import", {}, NOW)
    Store(source).write([Submission(run, (item(200),))], NOW)
    with writing(source) as connection:
        connection.execute(tables.sources.delete())

    again = copy_archive(source, target, tell)

    assert again.written < 10
    assert rows(target) == rows(source)
    Store(target).write([Submission(begin_run(target, "import", {}, NOW), (item(300),))], NOW)
    with pytest.raises(ConfigurationError, match="it is in use"):
        copy_archive(source, target, tell)
    assert current(target) == head()


def test_what_was_stopped_goes_on_and_is_no_archive_until_then(
    source: Engine, target: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any part, the copy cannot be opened, and the next call makes it whole."""
    monkeypatch.setattr(transfer, "_ROWS", 7)

    for stop in (1, 3, 9, 20, 30):
        seen = 0

        def until_stop(_done: int, _of: int, stop: int = stop) -> None:
            nonlocal seen
            seen += 1
            if seen == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copy_archive(source, target, until_stop)
        with pytest.raises(UpgradeFailed, match="not whole yet"):
            transfer.refuse_unusable(target)
    copy_archive(source, target, tell)

    assert rows(target) == rows(source)
    assert differences(target) == []


def test_another_archive_is_never_overwritten(source: Engine, target: Engine) -> None:
    """A database that holds an archive of another key is refused, untouched."""
    transfer.upgrade(target)
    run = begin_run(target, "import", {}, NOW)
    Store(target).write([Submission(run, (item(7),))], NOW)
    before = rows(target)

    with pytest.raises(ConfigurationError, match="another archive"):
        copy_archive(source, target, tell)

    assert rows(target) == before


def test_a_row_that_differs_is_found(source: Engine, target: Engine) -> None:
    """Whatever was changed in the copy is named, and the copy does not count as whole."""
    copy_archive(source, target, tell)
    with writing(target) as connection:
        triggers.drop(connection)
        connection.execute(text("UPDATE sms SET destination = 'forged' WHERE id = 5"))

    with pytest.raises(IngestorError, match=r"differs in 1 rows of sms, the first with the key 5"):
        copy_archive(source, target, tell)
    with pytest.raises(UpgradeFailed):
        transfer.refuse_unusable(target)


@pytest.mark.parametrize("at", [NOW, NOW.replace(microsecond=0)])
def test_an_opt_out_is_the_same_event_in_the_copy(source: Engine, target: Engine, at: datetime) -> None:
    """Its time is written as the copy's own program writes it: given again it is known."""
    event = Event("+393351234567", "*", "add", at)
    with writing(source) as connection:
        assert write_events(connection, read_secret(connection), [event], NOW) == 1

    copy_archive(source, target, tell)

    with writing(target) as connection:
        assert write_events(connection, read_secret(connection), [event], NOW) == 0


def test_an_archive_is_not_copied_onto_itself(archive_engine: Engine) -> None:
    """By whatever URL: killed half-way it would be a copy that is not whole, without its triggers."""
    Store(archive_engine).write([Submission(None, (item(1),))], NOW)
    again = open_engine(
        archive_engine.url.render_as_string(hide_password=False).replace("app@127.0.0.1", "app@localhost")
    )
    with pytest.raises(ConfigurationError, match="the archive itself"):
        copy_archive(archive_engine, again, tell)
    again.dispose()
    assert differences(archive_engine) == []
