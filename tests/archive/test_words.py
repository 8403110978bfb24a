"""Words in the texts: found whatever their case and accents, with the index, without it and beside it."""

import random
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine

from ingestor.archive import erasure, migrate, tables, words
from ingestor.archive.engine import reading, writing
from ingestor.archive.erasure import leave_no_bytes
from ingestor.archive.inserts import reserve
from ingestor.archive.items import Submission
from ingestor.archive.searching import Filters, search
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from tests.archive.erasing import HER, all_bytes, applied, erased, hers, planned
from tests.archive.reading import number_of, one, opened, rows
from tests.archive.samples import NOW, PARSER, item, sms
from tests.sample_texts import draw_text
from tests.servers.postgresql import PostgresqlServer

TEXTS = (
    "Perché non è arrivato?", "PERCHE NO", "rif 73481902", "100% sicuro_", "a\\b 'c' \"d\" [e] f*g?",
    "谢谢 73", "Привет", "e\u0301 decomposto", "Straße", "", "ok",
)  # fmt: skip


def fill(engine: Engine, *texts: str) -> None:
    """Store an SMS with each text; they have the ids from 1 on in an empty archive."""
    items = [item(n, reading=Readable(sms(n, text=text), PARSER)) for n, text in enumerate(texts, 1)]
    Store(engine).write([Submission(None, tuple(items))], NOW)


def brought_up(engine: Engine, **options: Any) -> list[tuple[int, int]]:
    """Take in what is missing; return each step."""
    return list(words.bring_up(engine, **options))


def found(engine: Engine, wanted: str, **filters: Any) -> list[int]:
    """Return the ids that a search finds, in its order."""
    return [row["id"] for row in search(engine, Filters(text=wanted, **filters))]


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("PERCHÉ", "perche"), ("e\u0301", "e"), ("Ångström", "angstrom"), ("ΚΑΛΗΜΈΡΑΣ", "καλημερασ"),
        ("Ёлка", "елка"), ("Straße", "strasse"), ("İ", "i"), ("한국어", "한국어"), ("中文", "中文"),
    ],
)  # fmt: skip
def test_what_is_compared_has_no_case_and_no_accents(written: str, plain: str) -> None:
    """Whatever alphabet it is of, and however its accents are encoded."""
    assert words.folded(written) == plain == words.folded(plain)


@pytest.mark.parametrize("taken_in", [0, 5, len(TEXTS)], ids=["none", "some", "all"])
def test_a_word_is_found_wherever_it_stands(archive_engine: Engine, taken_in: int) -> None:
    """Newest first, by any part, in any case, with or without accents; the index may lack all or some."""
    fill(archive_engine, *TEXTS)
    if taken_in:
        brought_up(archive_engine, most=taken_in)
    assert number_of(archive_engine, "sms_words") == taken_in
    expected = {
        "perche": [2, 1], "PERCHÉ": [2, 1], "481902": [3], "73": [6, 3], "100%": [4], "%": [4], "o_": [4],
        "\\b": [5], "'c'": [5], '"d"': [5], "[e] f*g?": [5], "谢谢": [6], "谢谢 7": [6], "ПРИВЕТ": [7],
        "é decomp": [8], "strasse": [9], "x": [], "perche x": [],
    }  # fmt: skip
    assert {wanted: found(archive_engine, wanted) for wanted in expected} == expected
    assert found(archive_engine, "e", limit=2) == [9, 8]
    assert found(archive_engine, "e", limit=2, until=sms(6).received_at) == [5, 2]
    assert found(archive_engine, "e", originator="+393330000002") == [2]


def test_the_index_finds_what_reading_finds(archive_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """For made-up texts and parts of them; also where only the newest few are looked at first."""
    draw = random.Random(7)
    texts = [draw_text(draw, charset="utf-8") for _ in range(400)]
    fill(archive_engine, *texts)
    asked = []
    for text in draw.sample(texts, 40):
        start = draw.randrange(max(len(text) - 3, 1))
        asked.append((text[start : start + draw.randint(1, 12)].swapcase(), draw.choice([None, 1, 5, 51])))
    read = [found(archive_engine, wanted, limit=limit) for wanted, limit in asked if wanted]
    brought_up(archive_engine)
    monkeypatch.setattr("ingestor.archive.searching._LOOKED_AT_FIRST", 30)
    assert [found(archive_engine, wanted, limit=limit) for wanted, limit in asked if wanted] == read
    assert sum(map(len, read)) > 100


def test_words_are_found_by_the_index_of_trigrams(archive_engine: Engine) -> None:
    """Neither database reads the texts for a word of three letters."""
    fill(archive_engine, *TEXTS)
    brought_up(archive_engine)
    with reading(archive_engine) as connection:
        statement = words.having(connection, "perche").compile(
            archive_engine, compile_kwargs={"literal_binds": True}
        )
        if archive_engine.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
            assert "sms_words_index VIRTUAL TABLE INDEX" in str(plan)
        else:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            assert "ix_sms_words_trigrams" in str(connection.exec_driver_sql(f"EXPLAIN {statement}").all())


def test_it_is_brought_up_in_steps_and_goes_on_where_it_was_ended(
    archive_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is a transaction; few new texts are left to be read one by one."""
    monkeypatch.setattr(words, "STEP", 4)
    fill(archive_engine, *TEXTS)
    steps = words.bring_up(archive_engine)
    assert next(steps) == (4, len(TEXTS))
    with closing(steps):
        assert found(archive_engine, "o") == [11, 8, 4, 2, 1]
    words.keep_up(archive_engine, lambda: False)  # so few are not worth it
    assert number_of(archive_engine, "sms_words") == 4
    assert brought_up(archive_engine, stop=lambda: True) == []
    assert brought_up(archive_engine) == [(8, 11), (11, 11)]
    assert brought_up(archive_engine) == []
    monkeypatch.setattr(words, "FEW", 1)
    fill(archive_engine, *TEXTS, "late")
    words.keep_up(archive_engine, lambda: False)
    assert rows(archive_engine, "SELECT max(sms_id) FROM sms_words") == [
        (one(archive_engine, "SELECT max(id) FROM sms"),)
    ]


def test_two_at_once_take_each_text_in_once(archive_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon and a command, or two daemons."""
    monkeypatch.setattr(words, "STEP", 3)
    fill(archive_engine, *(f"text {n}" for n in range(60)))
    threads = [threading.Thread(target=brought_up, args=(archive_engine,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number_of(archive_engine, "sms_words") == 60
    assert found(archive_engine, "text 5") == [60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 6]


def test_a_lower_id_that_is_committed_later_is_not_missed(postgresql_engine: Engine) -> None:
    """Ids are drawn before they are committed: the index goes no further than what nobody draws below."""
    fill(postgresql_engine, "first")
    with postgresql_engine.connect() as held, held.begin():
        reserve(held, sms=1)  # somebody is about to store an SMS with this id
        fill(postgresql_engine, "first", "second")
        taking = threading.Thread(target=brought_up, args=(postgresql_engine,))
        taking.start()
        taking.join(0.5)
        assert taking.is_alive(), "it did not wait for the lower id"
    taking.join(20)
    assert not taking.is_alive()
    assert number_of(postgresql_engine, "sms_words") == 2


def of_index(engine: Engine) -> Iterator[int]:
    """Give the id of each SMS that a trigram of the index still names."""
    with writing(engine) as connection:
        connection.exec_driver_sql(
            "CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, sms_words_index, instance)"
        )
        yield from connection.exec_driver_sql("SELECT DISTINCT doc FROM terms").scalars()


def test_what_is_erased_is_found_no_more(archive_engine: Engine) -> None:
    """Neither by its words nor in the index; and a text that was on its way into it does not come back."""
    hers_ = [item(n, reading=Readable(hers(n), PARSER)) for n in range(1, 41)]
    his = [item(n, reading=Readable(sms(n, text=f"his {n}"), PARSER)) for n in range(41, 81)]
    Store(archive_engine).write([Submission(None, (*hers_, *his))], NOW)
    brought_up(archive_engine, most=60)
    assert len(found(archive_engine, "kennwort")) == 40
    erased(archive_engine, numbers=[HER])
    leave_no_bytes(archive_engine)
    if archive_engine.dialect.name == "sqlite":
        assert parts(archive_engine) == 1, "an older part may still name what was erased"
    brought_up(archive_engine)
    assert found(archive_engine, "kennwort") == []
    assert number_of(archive_engine, "sms_words") == len(found(archive_engine, "his")) == 40
    if archive_engine.dialect.name == "sqlite":
        assert set(of_index(archive_engine)) == set(range(41, 81))


def parts(engine: Engine) -> int:
    return one(engine, "SELECT count(DISTINCT segid) FROM sms_words_index_idx")


def test_the_index_is_merged_between_two_batches(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of an erasure adds one part to the index, however many SMS it takes, and FTS5 merges none in
    it: that is done after it, in a transaction of its own."""
    Store(sqlite_engine).write(
        [Submission(None, tuple(item(n, reading=Readable(hers(n), PARSER)) for n in range(1, 61)))], NOW
    )
    brought_up(sqlite_engine)
    merge_step = words._merge_step
    seen: list[tuple[int, int, bool]] = []

    def step(engine: Engine, pages: int) -> bool:
        before = parts(engine)
        more = merge_step(engine, pages)
        seen.append((before, parts(engine), more))
        return more

    monkeypatch.setattr(words, "_merge_step", step)
    monkeypatch.setattr(erasure, "BATCH", 3)
    applied(sqlite_engine, planned(sqlite_engine, numbers=[HER]))
    for (_, left, more), (before, _, _) in pairwise(seen):
        assert before == (left if more else left + 1)
    assert max(left for _, left, more in seen if not more) == words._PARTS - 1
    assert one(sqlite_engine, "SELECT v FROM sms_words_index_config WHERE k = 'automerge'") == 0


def test_the_index_is_merged_as_a_whole_each_time_half_of_it_is_gone(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nearly everything is erased the index shrinks with it, in steps: the last one finds little."""
    Store(sqlite_engine).write(
        [Submission(None, tuple(item(n, reading=Readable(hers(n), PARSER)) for n in range(1, 65)))], NOW
    )
    brought_up(sqlite_engine)
    merge_step, left = words._merge_step, []

    def step(engine: Engine, pages: int) -> bool:
        more = merge_step(engine, pages)
        if pages < 0:
            assert parts(engine) == 1
            left.append(number_of(engine, "sms_words"))
        return more

    monkeypatch.setattr(words, "_merge_step", step)
    monkeypatch.setattr(words, "FEW", 4)
    monkeypatch.setattr(erasure, "BATCH", 2)
    applied(sqlite_engine, planned(sqlite_engine, numbers=[HER]))
    assert left == [32, 16, 8]


def test_no_index_keeps_a_number_that_was_erased(sqlite_engine: Engine) -> None:
    """Rows of an index move from page to page, and leave copies behind: of thousands of numbers none is
    left, those of others are."""
    draw = random.Random(3)
    numbers = dict(enumerate((f"+3934{draw.randrange(10**8):08}" for _ in range(20_000)), 1))
    fill(sqlite_engine, "a pattern for the others")
    with writing(sqlite_engine) as connection:
        for table, changed in (
            ("sms", {"id": "?", "fingerprint": "randomblob(38)"}),
            ("sms_content", {"sms_id": "?", "originator": "?", "originator_raw": "''"}),
        ):
            columns = ", ".join(
                changed.get(name, name)
                for name in tables.metadata.tables[table].columns.keys()  # noqa: SIM118 - in the order of the table
            )
            rows_ = [(n, numbers[n])[: columns.count("?")] for n in numbers if n > 1]
            connection.exec_driver_sql(f"INSERT INTO {table} SELECT {columns} FROM {table} LIMIT 1", rows_)
    gone = draw.sample(range(2, 20_001), 4000)
    with writing(sqlite_engine) as connection:
        connection.exec_driver_sql("INSERT INTO erasures VALUES (1, 'x', 1, 'x', 0, 0, 0, 0, '')")
        named = [(n,) for n in gone]
        connection.exec_driver_sql("INSERT INTO erased VALUES ('sms', ?, 1)", named)
    leave_no_bytes(sqlite_engine)
    left = {found.decode() for found in re.findall(rb"\+3934[0-9]{8}", all_bytes(sqlite_engine))}
    assert left == {numbers[n] for n in set(range(2, 20_001)) - set(gone)}


def test_a_role_that_may_make_no_extension_reads_the_texts(
    postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    """The upgrade says who is to do what, and ends well; when it was done the next one makes the index."""
    database = postgresql_url.rpartition("/")[2]
    postgresql_server.sql(
        "DROP OWNED BY modest; DROP ROLE modest" if one_role(postgresql_server) else "SELECT 1"
    )
    postgresql_server.sql("CREATE ROLE modest LOGIN")
    postgresql_server.sql("GRANT ALL ON SCHEMA public TO modest", database)
    with opened(postgresql_url.replace("app@", "modest@")) as engine:
        with structlog.testing.capture_logs() as logged:
            migrate.upgrade(engine)
        assert [line["needs"] for line in logged if "without an index" in line["event"]] == [
            words.LACKS["postgresql"]
        ]
        fill(engine, *TEXTS)
        brought_up(engine)
        with reading(engine) as connection:
            assert not words.indexed(connection)
        assert found(engine, "perche") == [2, 1]
        postgresql_server.sql("CREATE EXTENSION pg_trgm", database)
        migrate.upgrade(engine)
        with reading(engine) as connection:
            assert words.indexed(connection)
        assert found(engine, "perche") == [2, 1]


def one_role(server: PostgresqlServer) -> bool:
    return server.sql("SELECT 1 FROM pg_roles WHERE rolname = 'modest'").strip() == "1"


def test_a_role_that_may_not_read_the_words_reads_the_view(
    postgresql_server: PostgresqlServer, postgresql_engine: Engine
) -> None:
    """An auditor who sees the view alone finds the same."""
    fill(postgresql_engine, *TEXTS)
    brought_up(postgresql_engine)
    postgresql_server.sql("DROP ROLE IF EXISTS glimpse")
    postgresql_server.sql("CREATE ROLE glimpse LOGIN")
    with writing(postgresql_engine) as connection:
        connection.exec_driver_sql("GRANT SELECT ON inbound_sms TO glimpse")
    url = postgresql_engine.url.render_as_string(hide_password=False).replace("app@", "glimpse@")
    with opened(url, read_only=True) as engine:
        assert found(engine, "perche") == [2, 1]
    with writing(postgresql_engine) as connection:
        connection.exec_driver_sql("REVOKE ALL ON inbound_sms FROM glimpse")
