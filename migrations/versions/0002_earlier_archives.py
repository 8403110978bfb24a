"""Bring archives that earlier texts of 0001 made to one form: fingerprints, content keys, checks."""

import hashlib
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import structlog
import zstandard
from alembic import op
from sqlalchemy import Connection, Row, text

from ingestor.timestamps import iso_utc

revision = "0002"
down_revision = "0001"

# 0001 was edited in place three times. What its texts made (and the programs of those days wrote):
#   ee5f5c2  fingerprints of 32 bytes, content keys of 32 (HMAC, later BLAKE2b); lists in the checks
#   0bcd13c  the same, without lists
#   12e7053  fingerprints behind 4 bytes of day (36), content keys of 20
#   7edb7ac  fingerprints behind 6 bytes of time (38), a POST's UUID as its own content key (16)
# A newer program that met an older text was refused each SMS, and kept it in the quarantine under keys of its
# own: one archive may hold several forms.
_FINGERPRINT, _HASH, _MAIL_KEY = 38, 32, 20
_CHECKS = {
    "sms": {
        "fingerprint": "length(fingerprint) = 38",
        "originator_kind": "originator_kind = 'msisdn' OR originator_kind = 'short'"
        " OR originator_kind = 'alpha' OR originator_kind = 'unknown'",
        "time_quality": "time_quality = 'ok' OR time_quality = 'ambiguous' OR time_quality = 'nonexistent'",
    },
    "arrivals": {
        "channel": "channel = 'mailbox' OR channel = 'webhook' OR channel = 'import'",
        "outcome": "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR (outcome = 'quarantined' AND sms_id IS NULL AND reason IS NOT NULL)",
    },
    "retries": {
        "outcome": "((outcome = 'stored' OR outcome = 'duplicate') AND sms_id IS NOT NULL)"
        " OR ((outcome = 'quarantined' OR outcome = 'discarded') AND sms_id IS NULL AND reason IS NOT NULL)",
    },
}

# Frozen like everything here: how a mail's day is found in its header, see `_key_of_mail`.
_HEAD = 32768
_DATE = re.compile(rb"\nDate:[ \t]*(?:[A-Za-z]{3},[ \t]*)?([0-9]{1,2}) ([A-Za-z]{3}) ([0-9]{4})\b")
_MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"

_STEP = 1000
_SECONDS_BETWEEN_LINES = 5.0

log = structlog.get_logger()


def upgrade() -> None:
    """Rewrite what has another form, a step at a time; what has today's is not touched."""
    connection = op.get_bind()
    sqlite = connection.dialect.name == "sqlite"
    others = [table for table, checks in _CHECKS.items() if _differ(connection, table, checks)]
    for table in others:
        if sqlite:
            _write_checks_of_sqlite(connection, table)
        else:
            for name in _CHECKS[table]:
                connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_{name}"))
    _renew_fingerprints(connection)
    _renew_content_keys(connection)
    for table in [] if sqlite else others:
        for name, check in _CHECKS[table].items():
            connection.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_{name} CHECK ({check})"))


def _differ(connection: Connection, table: str, checks: dict[str, str]) -> bool:
    if connection.dialect.name == "sqlite":
        sql = _table_of_sqlite(connection, table)
        return any(
            f"CONSTRAINT ck_{table}_{name} CHECK ({check})" not in sql for name, check in checks.items()
        )
    found = connection.execute(
        text(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE contype = 'c' AND conrelid = to_regclass(:name)"
        ),
        {"name": table},
    )
    known = {name.removeprefix(f"ck_{table}_"): definition for name, definition in found}
    return (
        known.keys() != checks.keys()
        or any(" ANY " in definition for definition in known.values())
        or (table == "sms" and f"= {_FINGERPRINT})" not in known["fingerprint"])
    )


def _table_of_sqlite(connection: Connection, table: str) -> str:
    found = connection.execute(text("SELECT sql FROM sqlite_schema WHERE name = :name"), {"name": table})
    return str(found.scalar_one())


def _write_checks_of_sqlite(connection: Connection, table: str) -> None:
    """Write the checks into the schema itself, after https://sqlite.org/lang_altertable.html, section 7."""
    sql = _table_of_sqlite(connection, table)
    for name, check in _CHECKS[table].items():
        # To the end of the line: SQLAlchemy wrote each constraint into one of its own.
        pattern = rf"(CONSTRAINT ck_{table}_{name} CHECK )\(.*\)(,? *)$"
        sql = re.sub(
            pattern, lambda found, check=check: f"{found[1]}({check}){found[2]}", sql, flags=re.MULTILINE
        )
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.execute(
        text("UPDATE sqlite_schema SET sql = :sql WHERE name = :name"), {"sql": sql, "name": table}
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def _renew_fingerprints(connection: Connection) -> None:
    """Put the time of the SMS before its hash, which was taken over the same form at all times."""
    wanted = f"FROM sms WHERE length(fingerprint) <> {_FINGERPRINT}"
    update = text("UPDATE sms SET fingerprint = :fingerprint WHERE id = :id")
    for rows in _steps(connection, "fingerprints", "id, fingerprint, date_time, provider_message_id", wanted):
        connection.execute(
            update,
            [{"id": row.id, "fingerprint": _time(row) + bytes(row.fingerprint)[-_HASH:]} for row in rows],
        )


def _time(sms: Row[Any]) -> bytes:
    by_id = sms.provider_message_id is not None or not sms.date_time.isdecimal()
    return (0 if by_id else int(sms.date_time)).to_bytes(6)


def _renew_content_keys(connection: Connection) -> None:
    """Take the content keys of mails again from their bytes.

    Of a mail that was too long to be kept whole, and of a POST (its UUID), the key keeps its form: there is
    nothing to take another from. The writer knows the POST by it all the same.
    """
    secret = bytes(connection.execute(text("SELECT secret FROM archive_key")).scalar_one())
    readers = {None: zstandard.ZstdDecompressor()}
    for number, content in connection.execute(text("SELECT id, bytes FROM dictionaries")):
        readers[number] = zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(bytes(content)))
    payload = text("SELECT size, sha256, dictionary_id, compressed FROM payloads WHERE arrival_id = :id")
    wanted = f"FROM arrivals WHERE channel <> 'webhook' AND length(content_key) <> {_MAIL_KEY}"
    for rows in _steps(connection, "content keys", "id, content_key, channel", wanted):
        for row in rows:
            kept = connection.execute(payload, {"id": row.id}).first()
            raw = _unpacked(kept, readers) if kept is not None else None
            if raw is not None:
                _give_key(connection, row, _key_of_mail(raw, secret))


def _unpacked(kept: Row[Any], readers: dict[int | None, zstandard.ZstdDecompressor]) -> bytes | None:
    """Return the bytes of a mail, None where they are not all there."""
    reader = readers.get(kept.dictionary_id)
    try:
        raw = reader.decompress(bytes(kept.compressed), max_output_size=kept.size) if reader else None
    except zstandard.ZstdError:
        return None
    if raw is None or len(raw) != kept.size or hashlib.sha256(raw).digest() != bytes(kept.sha256):
        return None
    return raw


def _key_of_mail(raw: bytes, secret: bytes) -> bytes:
    """Return a mail's day, and a hash under the archive's key that is taken over its bytes with LF ends."""
    lines = raw.replace(b"\r\n", b"\n")
    head = b"\n" + raw[:_HEAD].replace(b"\r\n", b"\n")
    at = head.find(b"\nDate:", 0, _HEAD // 2)
    found = _DATE.match(head, at) if at >= 0 else None
    day = 0
    if found:
        month = _MONTHS.find(found[2]) // 3 + 1
        day = int(found[3]) * 10000 + month * 100 + int(found[1])
    content_key = day.to_bytes(4) + hashlib.sha256(lines.rstrip(b"\r\n")).digest()
    return day.to_bytes(4) + hashlib.blake2b(content_key, key=secret, digest_size=16).digest()


def _give_key(connection: Connection, row: Row[Any], key: bytes) -> None:
    """Give an arrival its key; one that a newer program put under this key into the quarantine steps back."""
    rewrite = text("UPDATE arrivals SET content_key = :key WHERE id = :id")
    read = "coalesce(a.sms_id, (SELECT max(r.sms_id) FROM retries AS r WHERE r.arrival_id = a.id))"
    find = f"SELECT a.id, a.parser, {read} AS sms_id FROM arrivals AS a WHERE"  # noqa: S608 - all our own
    later = connection.execute(
        text(f"{find} a.content_key = :key AND a.number = 0 AND a.channel = :channel"),
        {"key": key, "channel": row.channel},
    ).first()
    if later is None:
        connection.execute(rewrite, {"id": row.id, "key": key})
        return
    if later.sms_id is not None:
        return  # it was read under its newer key; this one keeps the older
    sms_id = connection.execute(text(f"{find} a.id = :id"), {"id": row.id}).one().sms_id
    for number, given in ((row.id, b""), (later.id, bytes(row.content_key)), (row.id, key)):
        connection.execute(rewrite, {"id": number, "key": given})
    if sms_id is not None:  # the same bytes became this SMS
        _say_duplicate(connection, later, sms_id)


def _say_duplicate(connection: Connection, arrival: Row[Any], sms_id: int) -> None:
    sqlite = connection.dialect.name == "sqlite"
    following = (
        "SELECT coalesce(max(id), 0) + 1 FROM retries" if sqlite else "SELECT nextval('retries_id_seq')"
    )
    now = datetime.now(UTC)
    connection.execute(
        text(
            "INSERT INTO retries (id, arrival_id, outcome, sms_id, parser, retried_at)"
            " VALUES (:id, :arrival, 'duplicate', :sms, :parser, :now)"
        ),
        {
            "id": connection.execute(text(following)).scalar_one(),
            "arrival": arrival.id, "sms": sms_id, "parser": arrival.parser,
            "now": iso_utc(now) if sqlite else now,
        },
    )  # fmt: skip


def _steps(connection: Connection, what: str, columns: str, wanted: str) -> Iterator[list[Row[Any]]]:
    """Give the rows that `wanted` selects, so many at once that memory stays small; tell how far it is."""
    total = connection.execute(text(f"SELECT count(*) {wanted}")).scalar_one()
    select = text(f"SELECT {columns} {wanted} AND id > :last ORDER BY id LIMIT {_STEP}")
    last, done, told = 0, 0, time.monotonic()
    while rows := list(connection.execute(select, {"last": last})):
        yield rows
        last, done = rows[-1].id, done + len(rows)
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.info("the archive is being upgraded", rewritten=what, done=done, of=total)
