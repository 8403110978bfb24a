"""What an archive has erased, held and heard since an older copy of it was made, done in that copy too.

It is done before the copy takes the archive's place. Ids do not tell what is the same: a copy that was in use
has given them out anew. Fingerprints and the other unique keys do. Of what came after the copy was made and
was erased the permanent rows are taken over, so that the mail, which may still lie in its mailbox, does not
bring its content back. Every opt-out is taken over, also one whose SMS the copy lacks: nobody who is out may
be written to because that SMS was a POST, or lies in its mailbox no more.
"""

# ruff: noqa: S608 - the statements are put together from the names in here

import itertools
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ingestor.archive.engine import opened
from ingestor.archive.migrate import current, head, upgrade
from ingestor.archive.open_file import plain_reader


@dataclass(frozen=True, slots=True)
class Again:
    """How many SMS, and contents of other kinds, were erased again.

    `later` counts SMS that came after the copy, whose rows without content were taken over; `opt_outs` and
    `holds` the events that were, `unheld` the holds on what the copy lacks. `unknown` says why nobody can
    tell what there is to do; `done`: the copy has today's schema for it.
    """

    sms: int = 0
    others: int = 0
    later: int = 0
    opt_outs: int = 0
    holds: int = 0
    unheld: int = 0
    unknown: str | None = None
    done: bool = False


_SMS = "(SELECT old_id FROM same WHERE kind = 'sms' AND new_id = new.sms_id)"
_ARRIVAL = "(SELECT old_id FROM same WHERE kind = 'arrival' AND new_id = new.arrival_id)"
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
    "hold": (
        "holds",
        f"""old.noted_at = new.noted_at AND old.ends IS NULL AND old.number_key IS new.number_key
        AND old.sms_id IS {_SMS} AND old.arrival_id IS {_ARRIVAL}""",
    ),
}
# Which rows are looked for beside those that were erased: all opt-outs and holds, and what they name.
_BESIDE: Final = {
    "sms": f" UNION SELECT sms_id FROM present.arrivals WHERE id IN ({_ERASED.format('arrival')})"
    " UNION SELECT sms_id FROM present.consents UNION SELECT sms_id FROM present.holds",
    "arrival": " UNION SELECT arrival_id FROM present.holds",
    "consent": " UNION SELECT id FROM present.consents",
    "hold": " UNION SELECT id FROM present.holds WHERE ends IS NULL",
}
# What is taken over of those that the copy lacks. An opt-out counts without its SMS; what waits for a person
# to look at its SMS does not.
_SMS_THERE = f"(sms_id IS NULL OR {_SMS} IS NOT NULL)"
_WANTED: Final = {
    "sms": f"id IN ({_ERASED.format('sms')})",
    "arrival": f"id IN ({_ERASED.format('arrival')}) AND {_SMS_THERE}",
    "consent": f"(effect <> 'none' OR {_SMS_THERE})",
    "hold": f"ends IS NULL AND {_SMS_THERE} AND (arrival_id IS NULL OR {_ARRIVAL} IS NOT NULL)",
}
_LINKED = {"sms_id": _SMS, "run_id": "NULL", "arrival_id": _ARRIVAL}  # the run is none of the copy's


def erase_again(copy: Path, present: Path) -> Again:
    """Erase in the archive `copy`, to the last byte, what `present` has, and note its holds and opt-outs."""
    try:
        if not _has_more(copy, present):
            return Again()
    except sqlite3.Error as error:
        return Again(unknown=str(error))
    with opened(f"sqlite:///{copy}") as engine:
        if current(engine) != head():
            upgrade(engine, copy=False)
        with engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            driver.execute("ATTACH DATABASE ? AS present", (f"{present.absolute().as_uri()}?mode=ro",))
            driver.execute("BEGIN IMMEDIATE")
            erasing = _Erasing(driver)
            done = erasing.do()
            driver.execute("COMMIT")
            driver.execute("DETACH DATABASE present")
    with closing(sqlite3.connect(copy)) as plain:
        plain.execute("PRAGMA journal_mode = DELETE")
        if erasing.found:
            plain.execute("VACUUM")
    return done


def _has_more(copy: Path, present: Path) -> bool:
    """Say whether `present` is the same archive, and has erased anything or noted what `copy` lacks."""
    looked_for = {
        "erased": "0",
        "consents": "old.number_hmac = new.number_hmac AND old.kind = new.kind AND old.scope = new.scope"
        " AND old.at = new.at",
        "holds": "old.noted_at = new.noted_at AND (old.ends IS NULL) = (new.ends IS NULL)",
    }
    with closing(plain_reader(present)) as reader:
        reader.execute("ATTACH DATABASE ? AS copy", (f"{copy.absolute().as_uri()}?mode=ro",))
        keys = reader.execute("SELECT secret FROM main.archive_key UNION SELECT secret FROM copy.archive_key")
        if len(keys.fetchall()) > 1:
            return False
        knows_erasures = reader.execute("SELECT 1 FROM main.sqlite_schema WHERE name = 'erased'").fetchone()
        for table, same in looked_for.items():
            theirs, ours = (
                reader.execute(f"SELECT 1 FROM {one}.sqlite_schema WHERE name = ?", (table,)).fetchone()
                for one in ("copy", "main")
            )
            lacks = f"NOT EXISTS (SELECT 1 FROM copy.{table} AS old WHERE {same})" if theirs else "1"
            if ours and reader.execute(f"SELECT 1 FROM main.{table} AS new WHERE {lacks}").fetchone():
                if not knows_erasures:
                    raise sqlite3.DatabaseError("its schema is older: call `ingestor db upgrade` first")
                return True
    return False


class _Erasing:
    """The transaction in which the copy (`main`) erases what `present` has."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._run = driver.execute
        self._run(
            "CREATE TEMP TABLE same (kind TEXT, new_id INTEGER, old_id INTEGER, taken INTEGER DEFAULT 0,"
            " PRIMARY KEY (kind, new_id))"
        )
        self.found = False
        """Whether anything was erased that the copy had."""

    def do(self) -> Again:
        """Return what was done."""
        for kind, (table, same) in _SAME.items():
            wanted = _ERASED.format(kind) + _BESIDE.get(kind, "")
            self._run(
                f"INSERT INTO same (kind, new_id, old_id) SELECT '{kind}', new.id, min(old.id)"
                f" FROM present.{table} AS new JOIN main.{table} AS old ON {same}"
                f" WHERE new.id IN ({wanted}) GROUP BY new.id"
            )
            if kind in _WANTED:
                self._take_over(kind, table, _WANTED[kind], {} if kind == "sms" else _LINKED)
        self._take_contents_and_verdicts()
        known = "SELECT 1 FROM main.erasures AS old WHERE old.plan_id = new.plan_id AND old.batch = new.batch"
        self._insert("erasures", {"id": "NULL"}, f"WHERE NOT EXISTS ({known}) ORDER BY new.id")
        ended = self._run(
            "INSERT INTO main.holds (ends, noted_at) SELECT same.old_id, new.noted_at"
            " FROM present.holds AS new JOIN same ON same.kind = 'hold' AND same.new_id = new.ends"
            " WHERE NOT EXISTS (SELECT 1 FROM main.holds AS old WHERE old.ends = same.old_id)"
        ).rowcount
        counted = dict(self._run(
            "SELECT e.kind, count(*) FROM present.erased AS e JOIN same ON same.kind = e.kind"
            " AND new_id = e.row_id WHERE NOT taken AND NOT EXISTS (SELECT 1 FROM main.erased AS done"
            " WHERE done.kind = e.kind AND done.row_id = old_id) GROUP BY e.kind"
        ).fetchall())  # fmt: skip
        self._erase()
        self.found = bool(counted)
        taken = dict(self._run("SELECT kind, count(*) FROM same WHERE taken GROUP BY kind").fetchall())
        [unheld] = self._run(
            "SELECT count(*) FROM present.holds WHERE ends IS NULL"
            " AND id NOT IN (SELECT ends FROM present.holds WHERE ends IS NOT NULL)"
            " AND id NOT IN (SELECT new_id FROM same WHERE kind = 'hold')"
        ).fetchone()
        sms, _ = counted.pop("sms", 0), counted.pop("arrival", 0)
        return Again(
            sms, sum(counted.values()), taken.get("sms", 0), taken.get("consent", 0),
            taken.get("hold", 0) + ended, unheld, done=True,
        )  # fmt: skip

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
        # Two that differ by an SMS which the copy lacks are one there.
        self._run(
            f"DELETE FROM same WHERE kind = '{kind}' AND taken"
            f" AND NOT EXISTS (SELECT 1 FROM main.{table} WHERE id = old_id)"
        )

    def _insert(self, table: str, instead: Mapping[str, str], where: str) -> None:
        theirs = {name for _, name, *_ in self._run(f"PRAGMA present.table_info({table})")}
        names = [name for _, name, *_ in self._run(f"PRAGMA main.table_info({table})") if name in theirs]
        values = ", ".join(instead.get(name, f"new.{name}") for name in names)
        into = f"INSERT INTO main.{table} ({', '.join(names)})"
        self._run(f"{into} SELECT {values} FROM present.{table} AS new {where}")

    def _take_contents_and_verdicts(self) -> None:
        """Take over what an opt-out or a hold that came later says, and the verdicts on what was erased."""
        for kind in ("consent", "hold"):
            self._insert(
                f"{kind}_content", {f"{kind}_id": "same.old_id"},
                f"JOIN same ON same.kind = '{kind}' AND same.taken AND same.new_id = new.{kind}_id",
            )  # fmt: skip
        [top] = self._run("SELECT coalesce(max(id), 0) FROM main.retries").fetchone()
        self._insert(
            "retries",
            {**_LINKED, "id": f"{top} + row_number() OVER (ORDER BY new.id)", "arrival_id": "same.old_id"},
            "JOIN same ON same.kind = 'arrival' AND same.new_id = new.arrival_id"
            f" AND new.arrival_id IN ({_ERASED.format('arrival')})"
            f" WHERE (new.sms_id IS NULL OR {_SMS} IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM main.retries"
            " AS old WHERE old.arrival_id = same.old_id AND old.retried_at = new.retried_at"
            " AND old.outcome = new.outcome)",
        )

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
