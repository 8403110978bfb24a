"""Archives of a million SMS and more for the benchmark of questions, filled in the cheapest way.

The rows go straight into the tables, through all triggers and keys, by what is fastest for each driver. They
are those of an import: ten years of mails to two numbers of ours, from one sender for each ten of them.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from ingestor.archive import tables
from ingestor.archive.engine import bulk_import_settings, writing
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.rows import number_key
from ingestor.timestamps import iso_utc
from tests.sample_texts import draw_text

OURS = ("+393331234333", "+393331234334")
FIRST = datetime(2017, 1, 1, tzinfo=UTC)
LAST = datetime(2026, 12, 31, tzinfo=UTC)
RARE = "zibaldone"
"""A word that stands in one text of each hundred thousand."""
_STEP = 20_000
_TABLES = (
    tables.sms, tables.sms_content, tables.sms_numbers, tables.arrivals, tables.arrival_content,
    tables.payloads,
)  # fmt: skip


def sender(number: int) -> str:
    """Return the number of the sender `number`."""
    return f"+3933{number * 7919 % 10**8:08}"


def fill(engine: Engine, count: int) -> None:
    """Put `count` SMS into an empty archive."""
    made = rows(count, read_archive_key(engine))
    with bulk_import_settings(engine):
        while step := list(itertools.islice(made, _STEP)):
            with writing(engine) as connection:
                driver: Any = connection.connection.dbapi_connection
                for target, of in zip(_TABLES, zip(*step, strict=True), strict=True):
                    into = f"{target.name} ({', '.join(target.c.keys()[: len(of[0])])})"
                    if engine.dialect.name == "sqlite":
                        marks = ", ".join("?" * len(of[0]))
                        driver.executemany(f"INSERT INTO {into} VALUES ({marks})", of)
                    else:
                        _copy(driver, into, of)
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            plain: Any = connection.connection.dbapi_connection  # no transaction: VACUUM takes none
            for name in ("sms", "arrivals"):
                plain.execute(f"SELECT setval('{name}_id_seq', {count})")
            plain.execute("VACUUM (ANALYZE)")


def _copy(driver: Any, into: str, rows: Any) -> None:
    with driver.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def rows(count: int, secret: bytes) -> Iterator[tuple[tuple[Any, ...], ...]]:
    """Give for each SMS its row in each of `_TABLES`."""
    draw = random.Random(count)
    apart = (LAST - FIRST) / count
    mail = random.Random(1).randbytes(260)
    senders = [(one, number_key(one, secret)) for one in map(sender, range(max(count // 10, 1)))]
    ours = [(one, number_key(one, secret)) for one in OURS]
    for number in range(1, count + 1):
        moment = FIRST + apart * number
        at, digits = iso_utc(moment.replace(microsecond=0)), f"{moment:%Y%m%d%H%M%S}"
        who, key = senders[draw.randrange(len(senders))]
        our, our_key = ours[number % 3 // 2]
        words = draw_text(draw, charset="utf-8")
        if number % 100_000 == 777:
            words += f" {RARE} {number}"
        digest = hashlib.sha256(number.to_bytes(8, "big")).digest()
        day = int(digits[:8]).to_bytes(4, "big")
        yield (
            (number, int(digits).to_bytes(6, "big") + digest, 1, "agile", "msisdn", our, digits, at, "ok",
             None, None, at),
            (number, who, who[1:], our, words, None, None, "{}", digest),
            (number, key, our_key),
            (number, day + digest[:16], "import", 0, digest[:16], "old.mbox", None, None, None,
             number * 900, 800, None, 800, "stored", None, number, "agile.mail/1", None, at, at),
            (number, "Agile Telecom -- SMS received", f"<{number}@example.org>", "/mail/old.mbox", None, None,
             digest),
            (number, None, 800, digest, None, mail, digest),
        )  # fmt: skip
