"""Questions that stay fast in a large archive: each goes by an index, on both databases."""

import re
from typing import Any

import pytest
from sqlalchemy import Engine, event

from ingestor.archive import queries, searching
from ingestor.archive.engine import reading
from ingestor.archive.items import Submission
from ingestor.archive.searching import Filters
from ingestor.archive.store import Store
from ingestor.numbers import whole_number
from ingestor.providers.contract import Readable
from tests import readme
from tests.archive.samples import NOW, PARSER, broken, item, sms

LARGE = ("sms", "sms_content", "arrivals", "arrival_content", "payloads", "sms_numbers")
ALIASES = {
    "a": "arrivals",
    "whole": "arrivals",
    "first": "arrivals",
    "content": "sms_content",
    "p": "payloads",
}
STATEMENTS = [
    statement.strip() for statement in ";".join(readme.blocks("sql")).split(";") if statement.strip()
]


def plan(engine: Engine, statement: str, values: Any = ()) -> list[str]:
    """Return the lines of the plan by which `statement` is answered."""
    with reading(engine) as connection:
        if engine.dialect.name == "sqlite":
            return [
                str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            ]
        # A few rows it would rather read all of; no index would help what still does.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        statement = statement if values else statement.replace("%", "%%")
        return [str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {statement}", values)]


def read_whole(engine: Engine, statement: str, values: Any = ()) -> list[str]:
    """Return the lines of a plan that read a large table, or an index of it, from end to end."""
    lines = plan(engine, statement, values)
    if engine.dialect.name == "sqlite":
        # The views of what was sent call tables of their own so.
        aliases = {} if re.search("answers_sent|conversations", statement) else ALIASES
        scans = [(line, re.match(r"SCAN (\w+)", line)) for line in lines]
        return [
            line for line, found in scans
            if found and aliases.get(found[1], found[1]) in LARGE and "ix_arrivals_quarantined" not in line
        ]  # fmt: skip
    return [line for line in lines if re.search(rf"Seq Scan on ({'|'.join(LARGE)})\b", line)]


def asked(engine: Engine, ask: Any) -> list[tuple[str, Any]]:
    """Return the statements that `ask` sends to the database."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            sent.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert sent
    return sent


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda one: one[:60])
def test_no_query_of_the_documents_reads_a_large_table_whole(archive_engine: Engine, statement: str) -> None:
    """Each takes what it needs by an index; the newest end where enough were found."""
    whole = read_whole(archive_engine, statement)
    assert all("LIMIT" in statement and "ix_sms_received_at" in line for line in whole)


@pytest.mark.parametrize(
    "condition",
    [
        "id = 1", "originator = '+393330000001'", "destination = '+393330000001'",
        "received_at >= '2026-01-01' AND received_at < '2026-01-02'", "date_time LIKE '20260101%'",
    ],
)  # fmt: skip
def test_what_the_auditor_asks_of_the_view_goes_by_an_index(archive_engine: Engine, condition: str) -> None:
    """The id, either number and a day, by the view alone."""
    condition = condition.replace("LIKE '20260101%'", ">= '20260101' AND date_time < '20260102'")
    assert read_whole(archive_engine, f"SELECT * FROM inbound_sms WHERE {condition}") == []


def test_the_commands_read_no_large_table_whole(archive_engine: Engine) -> None:
    """`search` by a whole number and by a day, and `show` of an SMS with its arrivals and their bytes."""
    Store(archive_engine).write([Submission(None, (item(1), broken(2), item(1, copy=1)))], NOW)
    day = {"since": NOW, "until": NOW}
    for ask in (
        lambda: searching.search(archive_engine, Filters(originator="+39 333 0000001", limit=51)),
        lambda: searching.search(archive_engine, Filters(destination="00393331234333", limit=51)),
        lambda: searching.search(archive_engine, Filters(**day, limit=51)),
        lambda: queries.show(archive_engine, 1),
        lambda: queries.raw_of_arrival(archive_engine, 1),
    ):
        for statement, values in asked(archive_engine, ask):
            assert read_whole(archive_engine, statement, values) == [], statement


def test_a_whole_number_finds_itself_alone(archive_engine: Engine) -> None:
    """However it is written; a part finds every number that has it."""
    longer = sms(2, originator="+3933300000012", originator_raw="3933300000012")
    Store(archive_engine).write(
        [Submission(None, (item(1), item(2, reading=Readable(longer, PARSER))))], NOW
    )  # fmt: skip

    def found(originator: str) -> list[int]:
        return [row["id"] for row in searching.search(archive_engine, Filters(originator=originator))]

    for written in ("+393330000001", "00393330000001", "393330000001", "+39 333 0000001"):
        assert found(written) == [1]
    assert found("3330000001") == found("+39333") == [2, 1]
    assert found("+393330000009") == []


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("+4512345678", "+4512345678"), ("0045 12345678", "+4512345678"), ("393330000001", "+393330000001"),
        ("+451234567", None), ("3330000001", None), ("48333", None), ("Agile", None), ("", None),
    ],
)  # fmt: skip
def test_what_is_a_whole_number(written: str, whole: str | None) -> None:
    """What may be a part of one is none."""
    assert whole_number(written) == whole
