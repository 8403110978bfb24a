"""Erasing in an older copy of an archive, before it takes the archive's place, what the archive has erased.

Ids do not tell what is the same: a copy that was in use has given them out anew. Fingerprints and the other
unique keys do. Of what came after the copy was made and was erased the permanent rows are taken over, so that
the mail, which may still lie in its mailbox, does not bring its content back, and its opt-out stays.
"""

# ruff: noqa: S608 - the statements are put together from the names in here

import itertools
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ingestor.archive.engine import open_engine, plain_reader
from ingestor.archive.migrate import current, head, upgrade


@dataclass(frozen=True, slots=True)
class Again:
    """How many SMS, and contents of other kinds, were erased again.

    `later` counts SMS that came after the copy, whose rows without content were taken over. `unknown` says
    why nobody can tell what there is to erase; `done`: the copy has today's schema for it.
    """

    sms: int = 0
    others: int = 0
    later: int = 0
    unknown: str | None = None
    done: bool = False


_SMS = "(SELECT old_id FROM same WHERE kind = 'sms' AND new_id = new.sms_id)"
_ERASED = "SELECT row_id FROM present.erased WHERE kind = '{}'"
# By kind: the table, and what says that its row `old` of the copy is the row `new` of the archive.
_SAME: Final = {
    "sms": ("sms", "old.fingerprint = new.fingerprint"),
    "arrival": (
        "arrivals",
        """old.content_key = new.content_key AND old.number = new.number AND old.channel = new.channel
        AND old.place = new.place""",
    ),
    "consent": (
        "consents",
        f"""old.number_hmac = new.number_hmac AND old.kind = new.kind AND old.scope = new.scope
        AND old.at = new.at AND old.sms_id IS {_SMS}""",
    ),
    "answer": ("answers", "old.message_id = new.message_id"),
    "report": ("delivery_reports", "old.post = new.post AND old.number = new.number"),
    "hold": ("holds", "old.noted_at = new.noted_at AND old.number_key IS new.number_key"),
}
# Which rows are looked for beside those that were erased: the SMS of others, and what opts out by an SMS that
# is taken over.
_BESIDE: Final = {
    "sms": f" UNION SELECT sms_id FROM present.arrivals WHERE id IN ({_ERASED.format('arrival')})"
    f" UNION SELECT sms_id FROM present.consents WHERE id IN ({_ERASED.format('consent')})",
    "consent": " UNION SELECT id FROM present.consents WHERE sms_id IN"
    " (SELECT new_id FROM same WHERE kind = 'sms' AND taken)",
}
_LINKED = {"sms_id": _SMS, "run_id": "NULL"}  # the run is none of the copy's


def erase_again(copy: Path, present: Path) -> Again:
    """Erase in the archive at `copy` what that at `present` has erased, and leave no byte of it there.

    `copy` gets today's schema where there is anything to erase. Raises IngestorError where it cannot.
    """
    try:
        if not (_is_same(copy, present) and _has_erased(present)):
            return Again()
    except sqlite3.Error as error:
        return Again(unknown=str(error))
    engine = open_engine(f"sqlite:///{copy}")
    try:
        if current(engine) != head():
            upgrade(engine, copy=False)
        with engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            driver.execute("ATTACH DATABASE ? AS present", (f"{present.absolute().as_uri()}?mode=ro",))
            driver.execute("BEGIN IMMEDIATE")
            done = _Erasing(driver).do()
            driver.execute("COMMIT")
            driver.execute("DETACH DATABASE present")
    finally:
        engine.dispose()
    with closing(sqlite3.connect(copy)) as plain:
        plain.execute("PRAGMA journal_mode = DELETE")
        plain.execute("VACUUM")
    return done


def _is_same(copy: Path, present: Path) -> bool:
    """Say whether both are of one archive: they have its key."""
    keys = []
    for path in (copy, present):
        with closing(plain_reader(path)) as reader:
            keys.append(reader.execute("SELECT secret FROM archive_key").fetchone())
    return bool(keys[0] == keys[1])


def _has_erased(present: Path) -> bool:
    with closing(plain_reader(present)) as reader:
        known = reader.execute("SELECT 1 FROM sqlite_schema WHERE name = 'erased'").fetchone()
        return known is not None and reader.execute("SELECT 1 FROM erased").fetchone() is not None


class _Erasing:
    """The transaction in which the copy (`main`) erases what `present` has."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._run = driver.execute
        self._run(
            "CREATE TEMP TABLE same (kind TEXT, new_id INTEGER, old_id INTEGER, taken INTEGER DEFAULT 0,"
            " PRIMARY KEY (kind, new_id))"
        )

    def do(self) -> Again:
        """Return what was done."""
        for kind, (table, same) in _SAME.items():
            wanted = _ERASED.format(kind) + _BESIDE.get(kind, "")
            self._run(
                f"INSERT INTO same (kind, new_id, old_id) SELECT '{kind}', new.id, min(old.id)"
                f" FROM present.{table} AS new JOIN main.{table} AS old ON {same}"
                f" WHERE new.id IN ({wanted}) GROUP BY new.id"
            )
            if kind == "sms":
                self._take_over("sms", table, f"id IN ({_ERASED.format('sms')})", {})
            elif kind in ("arrival", "consent"):
                linked = f"(sms_id IS NULL OR {_SMS} IS NOT NULL)"
                self._take_over(kind, table, f"id IN ({wanted}) AND {linked}", _LINKED)
        self._take_contents_and_verdicts()
        self._take_ledger()
        counted = dict(self._run(
            "SELECT e.kind, count(*) FROM present.erased AS e JOIN same ON same.kind = e.kind"
            " AND new_id = e.row_id WHERE NOT taken AND NOT EXISTS (SELECT 1 FROM main.erased AS done"
            " WHERE done.kind = e.kind AND done.row_id = old_id) GROUP BY e.kind"
        ).fetchall())  # fmt: skip
        self._erase()
        [later] = self._run("SELECT count(*) FROM same WHERE kind = 'sms' AND taken").fetchone()
        sms, _ = counted.pop("sms", 0), counted.pop("arrival", 0)
        return Again(sms, sum(counted.values()), later, done=True)

    def _take_over(self, kind: str, table: str, wanted: str, instead: Mapping[str, str]) -> None:
        """Take rows of the archive over that the copy lacks, under their ids where these are free."""
        missing = [
            number for (number,) in self._run(
                f"SELECT id FROM present.{table} AS new WHERE {wanted}"
                f" AND id NOT IN (SELECT new_id FROM same WHERE kind = '{kind}') ORDER BY id"
            )
        ]  # fmt: skip
        [top] = self._run(f"SELECT coalesce(max(id), 0) FROM main.{table}").fetchone()
        free = missing[:1] > [top]
        for new_id, old_id in zip(missing, missing if free else itertools.count(top + 1), strict=False):
            self._run("INSERT INTO same VALUES (?, ?, ?, 1)", (kind, new_id, old_id))
        self._insert(
            table, {"id": "same.old_id", **instead},
            f"JOIN same ON same.kind = '{kind}' AND same.taken AND same.new_id = new.id",
        )  # fmt: skip

    def _insert(self, table: str, instead: Mapping[str, str], where: str) -> None:
        """Insert rows of the archive into the copy, some columns with another value."""
        theirs = {name for _, name, *_ in self._run(f"PRAGMA present.table_info({table})")}
        names = [name for _, name, *_ in self._run(f"PRAGMA main.table_info({table})") if name in theirs]
        values = ", ".join(instead.get(name, f"new.{name}") for name in names)
        into = f"INSERT INTO main.{table} ({', '.join(names)})"
        self._run(f"{into} SELECT {values} FROM present.{table} AS new {where}")

    def _take_contents_and_verdicts(self) -> None:
        """Take over what an opt-out that came later says still, and the verdicts on what was erased."""
        self._insert(
            "consent_content", {"consent_id": "same.old_id"},
            "JOIN same ON same.kind = 'consent' AND same.taken AND same.new_id = new.consent_id",
        )  # fmt: skip
        [top] = self._run("SELECT coalesce(max(id), 0) FROM main.retries").fetchone()
        self._insert(
            "retries",
            {"id": f"{top} + row_number() OVER (ORDER BY new.id)", "arrival_id": "same.old_id", **_LINKED},
            "JOIN same ON same.kind = 'arrival' AND same.new_id = new.arrival_id"
            f" WHERE (new.sms_id IS NULL OR {_SMS} IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM main.retries"
            " AS old WHERE old.arrival_id = same.old_id AND old.retried_at = new.retried_at"
            " AND old.outcome = new.outcome)",
        )

    def _take_ledger(self) -> None:
        known = "SELECT 1 FROM main.erasures AS old WHERE old.plan_id = new.plan_id AND old.batch = new.batch"
        self._insert("erasures", {"id": "NULL"}, f"WHERE NOT EXISTS ({known}) ORDER BY new.id")

    def _erase(self) -> None:
        """Name what was erased, and what else of the copy came in the same bytes: its content goes."""
        self._run(
            "INSERT INTO main.erased (kind, row_id, erasure_id) SELECT e.kind, same.old_id, old.id"
            " FROM present.erased AS e JOIN same ON same.kind = e.kind AND same.new_id = e.row_id"
            " JOIN present.erasures AS new ON new.id = e.erasure_id"
            " JOIN main.erasures AS old ON old.plan_id = new.plan_id AND old.batch = new.batch"
        )
        for these in (
            "JOIN main.arrivals AS a ON e.kind = 'sms' AND a.sms_id = e.row_id",
            """JOIN main.arrivals AS b ON e.kind = 'arrival' AND b.id = e.row_id
            JOIN main.arrivals AS a ON a.content_key = b.content_key""",
        ):
            self._run(
                "INSERT INTO main.erased (kind, row_id, erasure_id)"
                f" SELECT 'arrival', a.id, min(e.erasure_id) FROM main.erased AS e {these}"
                " JOIN main.arrival_content AS c ON c.arrival_id = a.id GROUP BY a.id"
            )
