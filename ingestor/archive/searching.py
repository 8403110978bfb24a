"""Searching SMS: by numbers, times and words, newest first."""

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Select, bindparam, select

from ingestor.archive import words
from ingestor.archive.columns import for_ids
from ingestor.archive.engine import reading
from ingestor.archive.tables import WholeSecond
from ingestor.archive.views import inbound_sms
from ingestor.numbers import whole_number

Row = Mapping[str, Any]

NEWEST_FIRST: Final = (inbound_sms.c.received_at.desc(), inbound_sms.c.id.desc())
_LOOKED_AT_FIRST = 5000
_LAST_LETTER_WITH_A_CASE = 0x1E943  # of Adlam; beyond it Unicode has none


class Filters(NamedTuple):
    """What to look for; None looks for everything.

    `originator`, `destination` and `text` are found anywhere in the column, in any case; accents of the text
    do not count, and a whole number (`numbers.whole_number`) is found as that alone, by an index. `since`
    (included) and `until` (excluded) are aware, taken to the whole second, and compared with `received_at`.
    """

    originator: str | None = None
    destination: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    provider: str | None = None
    limit: int | None = None


def search(engine: Engine, filters: Filters) -> list[Row]:
    """Return rows of `inbound_sms`, newest first; times are aware UTC."""
    with reading(engine) as connection:
        if not filters.text:
            query = filtered(filters).limit(filters.limit).order_by(*NEWEST_FIRST)
            return [dict(row) for row in connection.execute(query).mappings()]
        return _with_ids(connection, _having_words(connection, filters))[: filters.limit]


def _having_words(connection: Connection, filters: Filters) -> set[int]:
    """Return the SMS whose text has what is looked for, at least the newest `filters.limit` of them."""
    id_, limit = inbound_sms.c.id, filters.limit
    wanted = words.folded(filters.text or "")
    covered = words.covered(connection)
    found: set[int] = set()
    # What the index lacks, and everything where there is none: from the newest on until there are enough.
    rest = filtered(filters, id_, inbound_sms.c.text).where(id_ > covered, inbound_sms.c.text.is_not(None))
    with closing(stream(connection, rest.order_by(*NEWEST_FIRST))) as rows:
        for row in rows:
            if wanted in words.folded(row["text"]):
                found.add(row["id"])
                if len(found) == limit:
                    break
    if not covered:
        return found
    asked = filtered(filters, id_).where(id_ <= covered).order_by(*NEWEST_FIRST).limit(limit)
    if limit:
        newest = filtered(filters._replace(originator=None, destination=None), id_).order_by(*NEWEST_FIRST)
        some = words.having(connection, wanted, newest.limit(_LOOKED_AT_FIRST).subquery())
        few = set(connection.execute(asked.where(id_.in_(some))).scalars())
        if len(few) == limit:
            return found | few
    return found | set(connection.execute(asked.where(id_.in_(words.having(connection, wanted)))).scalars())


def _with_ids(connection: Connection, ids: Iterable[int]) -> list[Row]:
    found = for_ids(connection, select(inbound_sms), inbound_sms.c.id, list(ids))
    rows = [dict(row._mapping) for row in found]
    return sorted(rows, key=lambda row: (row["received_at"], row["id"]), reverse=True)


def filtered(filters: Filters, *wanted_columns: ColumnElement[Any]) -> Select[Any]:
    """Return the SELECT over `inbound_sms` for `filters` but their text, without an order or a limit."""
    columns = inbound_sms.c
    conditions: list[ColumnElement[bool]] = []
    for column, wanted in (
        (columns.originator, filters.originator), (columns.destination, filters.destination),
    ):  # fmt: skip
        if wanted:
            whole = whole_number(wanted)
            conditions += [column == whole] if whole else _found_in(column, wanted)
    if filters.since is not None:
        conditions.append(columns.received_at >= bindparam(None, filters.since, WholeSecond))
    if filters.until is not None:
        conditions.append(columns.received_at < bindparam(None, filters.until, WholeSecond))
    if filters.provider is not None:
        conditions.append(columns.provider == filters.provider)
    return select(*wanted_columns or [inbound_sms]).where(*conditions)


def _found_in(column: ColumnElement[str], wanted: str) -> list[ColumnElement[bool]]:
    """Return what finds `wanted` anywhere in `column`, in any case.

    SQLite knows the case of ASCII letters only, and so does a PostgreSQL of the locale C: for other letters
    each is asked for in all its cases, where the longest piece of ASCII has been found.
    """
    if wanted.isascii():
        return [column.icontains(wanted, autoescape=True)]
    longest = max(re.findall(r"[\0-\x7f]*", wanted), key=len)
    pattern = "".join(map(_in_any_case, wanted))
    found = column.regexp_match(pattern)
    return [column.icontains(longest, autoescape=True), found] if longest else [found]


def _in_any_case(letter: str) -> str:
    """Return a regular expression for `letter`, as Python and PostgreSQL both read it."""
    cases = _cases().get(letter.casefold(), "")
    if len(cases) > 1:
        return f"[{cases}]"
    return letter if letter.isalnum() or not letter.isascii() else f"\\{letter}"


@lru_cache(maxsize=1)
def _cases() -> dict[str, str]:
    """Return every letter by its case-folded form, the two small sigmas with the capital one."""
    cases: dict[str, str] = {}
    for letter in map(chr, range(_LAST_LETTER_WITH_A_CASE + 1)):
        folded = letter.casefold()
        if folded != letter or folded in cases or letter.upper() != letter:
            cases[folded] = cases.get(folded, "") + letter
    return cases


def stream(connection: Connection, query: Select[Any]) -> Generator[Row]:
    """Give the rows of `query` without ever holding all of them."""
    with connection.execute(query, execution_options={"yield_per": 1000}) as result:
        for row in result.mappings():
            yield dict(row)
