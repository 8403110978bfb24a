"""The tables that the writer inserts into, and the look-ups that both databases answer in one way."""

from typing import Any, Final, NamedTuple

from sqlalchemy import Table

from ingestor.archive import tables

Row = tuple[Any, ...]
Arrivals = dict[tuple[bytes, int, str], tuple[int, int | None]]
"""(id, the SMS it became, None where it has not been read) by (content key, number, channel)."""


class Target(NamedTuple):
    """A table to insert into: its columns, and the position of the unique key that rows are ordered by.

    `unique` says on PostgreSQL which unique index makes a row one that exists.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: int | None
    unique: str


def _target(table: Table, key: str | None, unique: str = "") -> Target:
    names = tuple(column.name for column in table.columns)
    types = tuple(_postgresql_type(column.type) for column in table.columns)
    return Target(table.name, names, types, names.index(key) if key else None, unique)


def _postgresql_type(kind: Any) -> str:
    return {
        "Instant": "timestamptz", "BigInteger": "int8", "SmallInteger": "int2", "Integer": "int4",
        "LargeBinary": "bytea", "Boolean": "bool",
    }.get(type(kind).__name__, "text")  # fmt: skip


SMS: Final = _target(tables.sms, "fingerprint", "(fingerprint)")
CONTENT: Final = _target(tables.sms_content, None)
ARRIVALS: Final = _target(tables.arrivals, "content_key", "(content_key, number, channel)")
PAYLOADS: Final = _target(tables.payloads, None)
RETRIES: Final = _target(tables.retries, "arrival_id", "(arrival_id) WHERE sms_id IS NOT NULL")
TARGETS: Final = (SMS, CONTENT, ARRIVALS, PAYLOADS, RETRIES)

# An arrival has been read when it became an SMS at once, or by a later verdict.
ARRIVALS_BY_KEY: Final = (
    "SELECT a.content_key, a.number, a.channel, a.id, coalesce(a.sms_id,"
    " (SELECT min(r.sms_id) FROM retries AS r WHERE r.arrival_id = a.id))"
    " FROM arrivals AS a WHERE a.content_key "
)
SMS_BY_FINGERPRINT: Final = "SELECT fingerprint, id FROM sms WHERE fingerprint "
