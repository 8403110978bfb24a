"""Finding words in texts: each stands once more without case and accents, under an index of trigrams.

It is no part of storing: the daemon, an import and `ingestor db index` bring it up in steps. The texts that
it lacks yet are read one by one, and so are all where it is switched off.
"""

import contextlib
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Subquery,
    Text,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
)  # fmt: skip
from sqlalchemy.exc import DBAPIError

from ingestor.archive import tables
from ingestor.archive.engine import reading, writing
from ingestor.archive.faults import as_sqlalchemy, refused
from ingestor.archive.tables import Big
from ingestor.archive.triggers import ERASURES_LOCK, fts5, keep_storing_out
from ingestor.errors import ArchiveUnavailable
from ingestor.logs import get_logger

STEP: Final = 4000
"""Texts a transaction: 40 ms of it on SQLite."""
FEW: Final = 1000
"""So many texts are read in a few milliseconds: they are worth no transaction of their own."""
_GAP_SECONDS = 0.02  # for the writer of a daemon
_PAGES_A_MERGE = 64  # 6 to 20 ms
_PARTS = 8
"""Of a size at least are merged: 4, as FTS5 has it, take three times the transactions of an erasure."""
_CONFIGURE = "INSERT INTO sms_words_index (sms_words_index, rank) VALUES (?, ?)"
_MERGES_BY_ITSELF = "SELECT coalesce((SELECT v FROM sms_words_index_config WHERE k = 'automerge'), 4)"
_INDEX = "ix_sms_words_trigrams"
_LIKE = re.compile(r"[\\%_]")
_TRIGRAM = 3
_MOST_TRIGRAMS = 32
_INSERT = {
    "sqlite": "INSERT INTO sms_words (sms_id, words) VALUES (?, ?)",
    "postgresql": "INSERT INTO sms_words (sms_id, words)"
    " SELECT * FROM unnest(%s::bigint[], %s::text[]) ON CONFLICT DO NOTHING",
}

LACKS: Final = {
    "sqlite": "this SQLite has no FTS5 with trigrams",
    "postgresql": "let a superuser run `CREATE EXTENSION pg_trgm` in this database, then the owner of the "
    "tables `ingestor db upgrade`",
}
"""What to do where there is no index of trigrams."""
_INSERT_INDEX = "INSERT INTO sms_words_index (rowid, words) VALUES (?, ?)"

log = get_logger(__name__)


def folded(written: str) -> str:
    """Return `written` as it is compared: no case, no accents, whatever alphabet."""
    if written.isascii():
        return written.lower()
    apart = unicodedata.normalize("NFD", written.casefold())
    return unicodedata.normalize("NFC", "".join(one for one in apart if not unicodedata.combining(one)))


def covered(connection: Connection) -> int:
    """Return the SMS up to which every text stands in `sms_words`, 0 where this role may not read it."""
    if connection.dialect.name == "postgresql":
        allowed = "SELECT has_table_privilege(to_regclass('sms_words'), 'SELECT')"
        if not connection.exec_driver_sql(allowed).scalar():
            return 0
    return int(connection.execute(select(func.max(tables.sms_words.c.sms_id))).scalar() or 0)


def having(connection: Connection, wanted: str, newest: Subquery | None = None) -> Select[tuple[int]]:
    """Return what selects the SMS up to `covered` whose text has `wanted`, which is `folded`.

    With `newest`, a few thousand of the column `id`, only these are looked at, one by one: that finds a
    common word sooner than the index, which gives all that have it.
    """
    words = tables.sms_words.c
    if connection.dialect.name == "postgresql":
        plain = _LIKE.sub(r"\\\g<0>", wanted)
        has: ColumnElement[bool] = words.words.like(f"%{plain}%")
    else:
        has = func.instr(words.words, wanted) > 0
    if newest is not None:
        return select(words.sms_id).join(newest, newest.c.id == words.sms_id).where(has)
    trigrams = [wanted[at : at + _TRIGRAM] for at in range(len(wanted) - _TRIGRAM + 1)][:_MOST_TRIGRAMS]
    if connection.dialect.name == "sqlite" and trigrams and indexed(connection):
        wish = " AND ".join('"' + one.replace('"', '""') + '"' for one in trigrams)
        index = table("sms_words_index", column("rowid", Big), column("words"))
        matches = literal_column("sms_words_index").op("MATCH")(wish)
        return select(index.c.rowid).where(matches, func.instr(index.c.words, wanted) > 0)
    return select(words.sms_id).where(has)


def indexed(connection: Connection) -> bool:
    """Say whether the texts in `sms_words` have their index: it lacks where the server cannot make it."""
    if connection.dialect.name == "sqlite":
        found = "SELECT count(*) FROM sqlite_schema WHERE name = 'sms_words_index'"
        return fts5() and bool(connection.exec_driver_sql(found).scalar())
    return bool(connection.exec_driver_sql(f"SELECT to_regclass('{_INDEX}') IS NOT NULL").scalar())


def number_of_texts(connection: Connection) -> int:
    """Return how many texts are taken in."""
    return int(connection.execute(select(func.count()).select_from(tables.sms_words)).scalar_one())


def make_index(connection: Connection) -> None:
    """Make PostgreSQL's index where it can be, else say so in the log; SQLite's is made with the triggers."""
    if connection.dialect.name != "postgresql" or indexed(connection):
        return
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            connection.exec_driver_sql(f"CREATE INDEX {_INDEX} ON sms_words USING gin (words gin_trgm_ops)")
    except DBAPIError as error:
        log.warning(
            "words are found without an index, by reading all texts", why=refused(error),
            needs=LACKS["postgresql"],
        )  # fmt: skip


def drop_index(connection: Connection) -> None:
    """Drop PostgreSQL's index, where many texts are to be written before it is made."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {_INDEX}")


def bring_up(
    engine: Engine, stop: Callable[[], bool] = lambda: False, *, least: int = 1, most: int | None = None
) -> Iterator[tuple[int, int]]:
    """Take in the texts that are missing, in steps; give after each which SMS of which it has come to.

    Nothing is begun for fewer than `least`, nor after `most`. It may be killed, and done by several at once.
    """
    with reading(engine) as connection:
        began = covered(connection)
    last = _safely_last(engine)
    if last - began < least:
        return
    until = last if most is None else min(last, began + most)
    while not stop() and (reached := _step(engine, until)) is not None:
        yield reached, until
        time.sleep(_GAP_SECONDS)
        merge(engine, stop)


def keep_up(engine: Engine, stop: Callable[[], bool]) -> None:
    """Take in what is new, once it is more than a `FEW`; while the archive is away it waits."""
    with contextlib.suppress(ArchiveUnavailable):
        for _ in bring_up(engine, stop, least=FEW):
            pass


def _safely_last(engine: Engine) -> int:
    """Return the highest id of an SMS: no lower one is still to be committed."""
    with writing(engine) as connection:
        keep_storing_out(connection)
        return int(connection.execute(select(func.max(tables.sms.c.id))).scalar() or 0)


def _step(engine: Engine, until: int) -> int | None:
    """Take in the next texts up to the SMS `until`; return which was the last, None where none is left."""
    content = tables.sms_content.c
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":  # what is erased meanwhile must not come back
            connection.execute(select(cast(func.pg_advisory_xact_lock_shared(ERASURES_LOCK), Text)))
        found = connection.execute(
            select(content.sms_id, content.text)
            .where(content.sms_id > covered(connection), content.sms_id <= until)
            .order_by(content.sms_id)
            .limit(STEP)
        ).all()
        if not found:
            return None
        rows: Any = [(number, folded(written)) for number, written in found]
        if connection.dialect.name == "postgresql":
            rows = tuple(list(one) for one in zip(*rows, strict=True))
        connection.exec_driver_sql(_INSERT[connection.dialect.name], rows)
        if connection.dialect.name == "sqlite" and indexed(connection):
            connection.exec_driver_sql(_INSERT_INDEX, rows)
    return int(found[-1].sms_id)


def forget_erased(engine: Engine) -> None:
    """Leave nothing of what was erased in an index of SQLite: it is written anew.

    Where rows of an index move from page to page a copy of many stays behind, of one in a hundred; and a
    text that goes is marked in the index of trigrams until its parts are merged.
    """
    with writing(engine) as connection:
        connection.exec_driver_sql("REINDEX ix_sms_content_originator")
    merge(engine, whole=True)


def merge(
    engine: Engine, stop: Callable[[], bool] = lambda: False, *, whole: bool = False,
    gap: float = _GAP_SECONDS,
) -> None:  # fmt: skip
    """Merge the parts of SQLite's index of trigrams where there are many, or all if `whole`; in small steps.

    Each transaction that writes into it leaves a part. FTS5 would merge them in the midst of any of those,
    hundreds of pages at once: a batch of an erasure took 250 ms instead of 15, and each POST waited for it.
    """
    pages = -_PAGES_A_MERGE if whole else _PAGES_A_MERGE  # the sign begins a merge of everything
    while engine.dialect.name == "sqlite" and not stop() and _merge_step(engine, pages):
        pages = _PAGES_A_MERGE
        time.sleep(gap)


class Shrinking:
    """Keeps SQLite's index in order while texts go.

    All of it is merged each time half of them are gone: a step is as large as what it writes, and where
    nearly everything is gone the last one read the whole index of a million, for a second.
    """

    def __init__(self, engine: Engine, stop: Callable[[], bool], gap: float) -> None:
        self._engine, self._stop, self._gap = engine, stop, gap
        self._left = 0
        if engine.dialect.name == "sqlite":
            with reading(engine) as connection:
                self._left = number_of_texts(connection)
        self._half = self._left // 2

    def took(self, texts: int) -> None:
        """Merge what is to be merged after so many went."""
        self._left -= texts
        whole = FEW < self._left <= self._half
        if whole:
            self._half = self._left // 2
        merge(self._engine, self._stop, whole=whole, gap=self._gap)


def _merge_step(engine: Engine, pages: int) -> bool:
    with writing(engine) as connection, as_sqlalchemy(connection) as driver:
        if not indexed(connection):
            return False
        if connection.exec_driver_sql(_MERGES_BY_ITSELF).scalar():
            driver.execute(_CONFIGURE, ("automerge", 0))
            driver.execute(_CONFIGURE, ("usermerge", _PARTS))
        before = driver.total_changes
        driver.execute(_CONFIGURE, ("merge", pages))
        return bool(driver.total_changes - before > 1)
