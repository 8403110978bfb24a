"""What was erased and what may not be, and both numbers of each SMS as hashes, to find them by."""

# ruff: noqa: S608 - the statements are put together from the names in here

import hmac
import re
import time
from typing import Any

import structlog
from alembic import op
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip

revision = "0011"
down_revision = "0010"

_STEP = 20_000
_SECONDS_BETWEEN_LINES = 5.0
_NO_DIGIT = re.compile(r"[^0-9]")

Instant = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
Big = BigInteger().with_variant(Integer(), "sqlite")

log = structlog.get_logger()

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)
for parent in ("sms", "arrivals"):
    Table(parent, metadata, Column("id", Big, primary_key=True))

sms_numbers = Table(
    "sms_numbers", metadata,
    Column("sms_id", Big, nullable=False, autoincrement=False),
    Column("originator", Big, nullable=False),
    Column("destination", Big, nullable=False),
    PrimaryKeyConstraint("sms_id"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    sqlite_strict=True,
)  # fmt: skip
# They are made when all rows are there: that is faster, and leaves the index without a gap.
_INDEXES = [
    Index("ix_sms_numbers_originator", sms_numbers.c.originator),
    Index("ix_sms_numbers_destination", sms_numbers.c.destination),
]
erasures = Table(
    "erasures", metadata,
    Column("id", Big, nullable=False, autoincrement=True),
    Column("plan_id", Text, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("basis", Text, nullable=False),
    *(Column(counter, Integer, nullable=False) for counter in ("sms", "arrivals", "payloads", "others")),
    Column("erased_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("plan_id", "batch"),
    sqlite_strict=True,
)  # fmt: skip
erased = Table(
    "erased", metadata,
    Column("kind", Text, nullable=False),
    Column("row_id", Big, nullable=False),
    Column("erasure_id", Big, nullable=False),
    PrimaryKeyConstraint("kind", "row_id"),
    ForeignKeyConstraint(["erasure_id"], ["erasures.id"]),
    sqlite_strict=True, sqlite_with_rowid=False,
)  # fmt: skip
holds = Table(
    "holds", metadata,
    Column("id", Big, nullable=False, autoincrement=True),
    Column("number_key", Big),
    Column("sms_id", Big),
    Column("arrival_id", Big),
    Column("ends", Big),
    Column("noted_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("ends"),
    ForeignKeyConstraint(["sms_id"], ["sms.id"]),
    ForeignKeyConstraint(["arrival_id"], ["arrivals.id"]),
    ForeignKeyConstraint(["ends"], ["holds.id"]),
    sqlite_strict=True,
)  # fmt: skip
hold_content = Table(
    "hold_content", metadata,
    Column("hold_id", Big, nullable=False, autoincrement=False),
    Column("number", Text),
    Column("reason", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("hold_id"),
    ForeignKeyConstraint(["hold_id"], ["holds.id"]),
    sqlite_strict=True,
)  # fmt: skip

_INSERT = {
    "sqlite": "INSERT INTO sms_numbers (sms_id, originator, destination) VALUES (?, ?, ?)",
    "postgresql": "INSERT INTO sms_numbers (sms_id, originator, destination)"
    " SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[])",
}


def upgrade() -> None:
    """Make the tables, and take the numbers of all SMS that lie here; tell how far it is."""
    connection = op.get_bind()
    for index in _INDEXES:
        sms_numbers.indexes.discard(index)
    for table in (sms_numbers, erasures, erased, holds, hold_content):
        table.create(connection)
    _take_numbers(connection)
    for index in _INDEXES:
        index.create(connection)
    if connection.dialect.name == "sqlite" and not _count(connection, "sms"):
        # Nothing was ever written without `secure_delete`: this file needs no `db vacuum`.
        connection.exec_driver_sql("PRAGMA user_version = 1")


def _take_numbers(connection: Connection) -> None:
    secret = bytes(connection.execute(text("SELECT secret FROM archive_key")).scalar_one())
    rows = text(
        "SELECT content.sms_id, content.originator, sms.destination FROM sms_content AS content"
        " JOIN sms ON sms.id = content.sms_id WHERE content.sms_id > :after ORDER BY content.sms_id"
        f" LIMIT {_STEP}"
    )
    insert = _INSERT[connection.dialect.name]
    total, done, after, told = _count(connection, "sms_content"), 0, 0, time.monotonic()
    while found := connection.execute(rows, {"after": after}).all():
        keyed: list[Any] = [(sms_id, _key(one, secret), _key(other, secret)) for sms_id, one, other in found]
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(insert, keyed)
        else:
            connection.exec_driver_sql(insert, tuple(list(column) for column in zip(*keyed, strict=True)))
        after, done = found[-1][0], done + len(found)
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.info("the archive is being upgraded", rewritten="sms_numbers", done=done, of=total)


def _key(number: str, secret: bytes) -> int:
    """Return what `ingestor.archive.rows.number_key` returned on this day."""
    form = number.strip()
    if any(map(str.isalpha, form)):
        form = form.casefold()
    else:
        form = _NO_DIGIT.sub("", form).removeprefix("00") or form
    digest = hmac.digest(secret, b"number\0" + form.encode(), "sha256")
    return int.from_bytes(digest[:8], "big", signed=True)


def _count(connection: Connection, table: str) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
