"""Where an import found each copy, what may name a person apart from the arrivals, and salts.

Each step is part of one transaction: a killed or failed upgrade leaves the archive as it stood. What leaves
`arrivals` goes with the rows that held it: PostgreSQL writes the table anew and removes the old file at the
commit; of an SQLite file the old rows stay in its free pages until those are written again, or VACUUM.
"""

# ruff: noqa: S608 - the statements are put together from the names in here

import hmac
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from alembic import op
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip

revision = "0006"
down_revision = "0005"

_STEP = 20_000
_SECONDS_BETWEEN_LINES = 5.0

_SALT, _PLACE = 32, 16
_SALTED = ("sms_content", "payloads")
_KEPT = (
    "source", "folder", "uidvalidity", "uid", "byte_offset", "byte_length", "sender_verified", "size",
    "outcome", "reason", "sms_id", "parser", "run_id", "arrived_at", "ingested_at",
)  # fmt: skip
_LEAVE = ("subject", "message_id", "input", "member", "peer")

# How the place of an imported mail is written before it is hashed, as `ingestor.archive` did on this day.
_FLAGS = re.compile(r"[:!;]2,[A-Za-z]*\Z")
_READ_OR_NEW = re.compile(r"(^|[/!])(?:cur|new)/([^/]*)\Z")

Instant = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
Big = BigInteger().with_variant(Integer(), "sqlite")
Small = SmallInteger().with_variant(Integer(), "sqlite")
Flag = Boolean(create_constraint=False).with_variant(Integer(), "sqlite")

log = structlog.get_logger()

metadata = MetaData()

arrival_content = Table(
    "arrival_content", metadata,
    Column("arrival_id", Big, nullable=False, autoincrement=False),
    Column("subject", Text),
    Column("message_id", Text),
    Column("input", Text),
    Column("member", Text),
    Column("peer", Text),
    Column("salt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("arrival_id", name="pk_arrival_content"),
    # On PostgreSQL it is added at the end: looked at row by row it took as long as all the rest.
    ForeignKeyConstraint(
        ["arrival_id"], ["arrivals.id"], name="fk_arrival_content_arrival_id"
    ).ddl_if(dialect="sqlite"),
    sqlite_strict=True,
)  # fmt: skip

arrivals_of_sqlite = Table(
    "arrivals_0006", metadata,
    Column("id", Big, nullable=False, autoincrement=False),
    Column("content_key", LargeBinary, nullable=False),
    Column("channel", Text, nullable=False),
    Column("number", Small, nullable=False),
    Column("place", LargeBinary, nullable=False),
    Column("source", Text, nullable=False),
    Column("folder", Text),
    Column("uidvalidity", Big),
    Column("uid", Big),
    Column("byte_offset", Big),
    Column("byte_length", Big),
    Column("sender_verified", Flag),
    Column("size", Big),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("sms_id", Big),
    Column("parser", Text, nullable=False),
    Column("run_id", Big),
    Column("arrived_at", Instant, nullable=False),
    Column("ingested_at", Instant, nullable=False),
    PrimaryKeyConstraint("id", name="pk_arrivals"),
    UniqueConstraint(
        "content_key", "number", "channel", "place", name="uq_arrivals_content_key_number_channel_place"
    ),
    ForeignKeyConstraint(["sms_id"], ["sms.id"], name="fk_arrivals_sms_id"),
    ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_arrivals_run_id"),
    CheckConstraint(
        "channel = 'mailbox' OR channel = 'webhook' OR channel = 'import'", name="ck_arrivals_channel"
    ),
    CheckConstraint(
        "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR (outcome = 'quarantined' AND sms_id IS NULL AND reason IS NOT NULL)",
        name="ck_arrivals_outcome",
    ),
    sqlite_strict=True,
)  # fmt: skip
for parent in ("sms", "runs", "arrivals"):
    Table(parent, metadata, Column("id", Big, primary_key=True))

_INDEXES = (
    "CREATE INDEX ix_arrivals_sms_id ON arrivals (sms_id)",
    "CREATE INDEX ix_arrivals_quarantined ON arrivals (id) WHERE outcome = 'quarantined'",
)

# PostgreSQL: 32 bytes out of two random UUIDs (244 random bits; its only source of random bytes without an
# extension), and HMAC-SHA-256 after RFC 2104. The two blocks of the key lie in settings of this transaction:
# written into a statement they would stand in the server's log.
_PG_SALT = "sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))"
_PG_KEY = """
DO $$
DECLARE
  secret bytea := (SELECT secret FROM archive_key);
  one bytea := '\\x00';
  inner_block bytea := '';
  outer_block bytea := '';
  octet integer;
BEGIN
  FOR i IN 0..63 LOOP
    octet := CASE WHEN i < length(secret) THEN get_byte(secret, i) ELSE 0 END;
    inner_block := inner_block || set_byte(one, 0, octet # 54);
    outer_block := outer_block || set_byte(one, 0, octet # 92);
  END LOOP;
  PERFORM set_config('ingestor.inner_block', encode(inner_block, 'hex'), true);
  PERFORM set_config('ingestor.outer_block', encode(outer_block, 'hex'), true);
END $$
"""
_PG_WRITTEN = (
    "convert_to(regexp_replace(regexp_replace(coalesce({column}, ''), '[:!;]2,[A-Za-z]*$', ''),"
    " '(^|[/!])(cur|new)/([^/]*)$', '\\1\\3'), 'UTF8')"
)
_PG_PLACE = (
    "substr(sha256(decode(current_setting('ingestor.outer_block'), 'hex')"
    " || sha256(decode(current_setting('ingestor.inner_block'), 'hex') || 'place'::bytea || '\\x00'::bytea"
    f" || {_PG_WRITTEN.format(column='input')} || '\\x00'::bytea"
    f" || {_PG_WRITTEN.format(column='member')} || '\\x00'::bytea || '0'::bytea)), 1, {_PLACE})"
)


def upgrade() -> None:
    """Move the columns and add the new ones, a step at a time; tell how far it is."""
    connection = op.get_bind()
    arrival_content.create(connection)
    if connection.dialect.name == "sqlite":
        _upgrade_sqlite(connection)
    else:
        _upgrade_postgresql(connection)


def _upgrade_sqlite(connection: Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    secret = bytes(connection.execute(text("SELECT secret FROM archive_key")).scalar_one())
    driver.create_function("new_salt", 0, _salts())
    driver.create_function("place_of", 3, _places(secret))
    arrivals_of_sqlite.create(connection)
    leave, kept = ", ".join(_LEAVE), ", ".join(_KEPT)
    for after, last in _steps(connection, "arrivals", "id"):
        within = f"FROM arrivals WHERE id > {after} AND id <= {last} ORDER BY id"
        connection.exec_driver_sql(
            f"INSERT INTO arrival_content (arrival_id, {leave}, salt) SELECT id, {leave}, new_salt() {within}"
        )
        connection.exec_driver_sql(
            f"INSERT INTO arrivals_0006 (id, content_key, channel, number, place, {kept})"
            f" SELECT id, content_key, channel, number, place_of(channel, input, member), {kept} {within}"
        )
    connection.exec_driver_sql("DROP TABLE arrivals")
    connection.exec_driver_sql("ALTER TABLE arrivals_0006 RENAME TO arrivals")
    for index in _INDEXES:
        connection.exec_driver_sql(index)
    for table in _SALTED:
        key = "sms_id" if table == "sms_content" else "arrival_id"
        # In place: written anew, the largest table would leave its whole size as free pages in the file.
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN salt BLOB NOT NULL DEFAULT x''")
        for after, last in _steps(connection, table, key):
            connection.exec_driver_sql(
                f"UPDATE {table} SET salt = new_salt() WHERE {key} > {after} AND {key} <= {last}"
            )
        _without_default(connection, table)
    driver.create_function("new_salt", 0, None)
    driver.create_function("place_of", 3, None)


def _without_default(connection: Connection, table: str) -> None:
    """Take the default out of the schema itself, after https://sqlite.org/lang_altertable.html, section 7."""
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.execute(
        text("UPDATE sqlite_schema SET sql = replace(sql, :before, :after) WHERE name = :name"),
        {"before": "salt BLOB NOT NULL DEFAULT x''", "after": "salt BLOB NOT NULL", "name": table},
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def _upgrade_postgresql(connection: Connection) -> None:
    connection.exec_driver_sql(_PG_KEY)
    connection.exec_driver_sql("ALTER TABLE arrivals DROP CONSTRAINT uq_arrivals_content_key_number_channel")
    connection.exec_driver_sql("DROP INDEX ix_arrivals_sms_id, ix_arrivals_quarantined")
    leave = ", ".join(_LEAVE)
    for after, last in _steps(connection, "arrivals", "id"):
        connection.exec_driver_sql(
            f"INSERT INTO arrival_content (arrival_id, {leave}, salt) SELECT id, {leave}, {_PG_SALT}"
            f" FROM arrivals WHERE id > {after} AND id <= {last} ORDER BY id"
        )
    connection.exec_driver_sql(
        "ALTER TABLE arrival_content ADD CONSTRAINT fk_arrival_content_arrival_id"
        " FOREIGN KEY (arrival_id) REFERENCES arrivals (id)"
    )
    # A change of type writes the table anew, which is faster than an UPDATE, and the only way for a dropped
    # column to leave the rows. The first time it gives the places, the second it lets the columns go.
    _tell(connection, "arrivals")
    connection.exec_driver_sql("ALTER TABLE arrivals ADD COLUMN place bytea")
    connection.exec_driver_sql(
        "ALTER TABLE arrivals ALTER COLUMN place TYPE bytea"
        f" USING CASE WHEN channel = 'import' THEN {_PG_PLACE} ELSE ''::bytea END"
    )
    for column in _LEAVE:
        connection.exec_driver_sql(f"ALTER TABLE arrivals DROP COLUMN {column}")
    connection.exec_driver_sql(
        "ALTER TABLE arrivals ALTER COLUMN place TYPE bytea USING place || ''::bytea,"
        " ALTER COLUMN place SET NOT NULL,"
        " ADD CONSTRAINT uq_arrivals_content_key_number_channel_place"
        " UNIQUE (content_key, number, channel, place)"
    )
    for index in _INDEXES:
        connection.exec_driver_sql(index)
    for table in _SALTED:
        _tell(connection, table)
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN salt bytea NOT NULL DEFAULT {_PG_SALT}")
        connection.exec_driver_sql(f"ALTER TABLE {table} ALTER COLUMN salt DROP DEFAULT")


def _salts() -> Callable[[], bytes]:
    """Return what gives 32 random bytes each time; asked for so few, the system takes longer than a row."""
    pool, at = b"", 0

    def new_salt() -> bytes:
        nonlocal pool, at
        if at == len(pool):
            pool, at = os.urandom(1024 * _SALT), 0
        at += _SALT
        return pool[at - _SALT : at]

    return new_salt


def _places(secret: bytes) -> Callable[[str, str | None, str | None], bytes]:
    """Return what gives the place of an arrival out of channel, input and member."""

    def place_of(channel: str, input_: str | None, member: str | None) -> bytes:
        if channel != "import":
            return b""
        written = (_READ_OR_NEW.sub(r"\1\2", _FLAGS.sub("", one or "")) for one in (input_, member))
        return hmac.digest(secret, "\0".join(("place", *written, "0")).encode(), "sha256")[:_PLACE]

    return place_of


def _count(connection: Connection, table: str) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def _tell(connection: Connection, table: str) -> None:
    """Say what is written anew by one statement, which tells nothing on the way."""
    log.info("the archive is being upgraded", rewritten=table, done=0, of=_count(connection, table))


def _steps(connection: Connection, table: str, key: str) -> Iterator[tuple[int, int]]:
    """Give (after, last) of so many ids at once that memory stays small; tell how far it is."""
    total = _count(connection, table)
    edge = text(
        f"SELECT max(id) FROM (SELECT {key} AS id FROM {table} WHERE {key} > :after ORDER BY {key}"
        f" LIMIT {_STEP}) AS step"
    )
    after, done, told = 0, 0, time.monotonic()
    while (last := connection.execute(edge, {"after": after}).scalar_one()) is not None:
        yield after, last
        after, done = last, min(done + _STEP, total)
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.info("the archive is being upgraded", rewritten=table, done=done, of=total)
