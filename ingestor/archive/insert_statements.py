"""The inserts of the one writer as SQL, which SQLAlchemy writes once: tables, columns and their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import ARRAY, Column, LargeBinary, Select, Table, any_, bindparam, column, func, select, text
from sqlalchemy import table as lightweight
from sqlalchemy.dialects import registry

from ingestor.archive import tables
from ingestor.archive.columns import Binary, insert_into
from ingestor.archive.items import (
    ArrivalColumns,
    ArrivalContent,
    ContentColumns,
    NumberColumns,
    Payload,
    PlaceColumns,
    SenderCheck,
    SmsColumns,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A table to insert into, and the columns of a row; those of which `unique` is there are left out."""

    table: Table
    columns: tuple[str, ...]
    unique: tuple[str, ...] = ()
    where: Any = None

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names by which PostgreSQL is given the columns; short ones, see `arrived_on_postgresql`."""
        initials = "".join(word[0] for word in self.table.name.split("_"))
        return tuple(f"{initials}{number}" for number in range(len(self.columns)))

    def new_only(self, insert: Any) -> Any:
        """Return the whole statement of which `insert` is the beginning."""
        if not self.unique:
            return insert
        return insert.on_conflict_do_nothing(index_elements=self.unique, index_where=self.where)


SMS = Target(tables.sms, ("id", "ingested_at", *SmsColumns._fields), ("fingerprint",))
ARRIVALS = Target(
    tables.arrivals, ArrivalColumns._fields + PlaceColumns._fields,
    ("content_key", "number", "channel", "place"),
)  # fmt: skip
RETRIES = Target(
    tables.retries, ("id", "arrival_id", "outcome", "reason", "sms_id", "parser", "run_id", "retried_at"),
    ("arrival_id",), text("sms_id IS NOT NULL"),
)  # fmt: skip
CHECKS = Target(tables.sender_checks, ("id", *SenderCheck._fields), ("id",))
OF_SMS: Final = (
    Target(tables.sms_content, ("sms_id", "salt", *ContentColumns._fields)),
    Target(tables.sms_numbers, ("sms_id", *NumberColumns._fields)),
)
OF_ARRIVALS: Final = (
    Target(tables.arrival_content, ("arrival_id", "salt", *ArrivalContent._fields)),
    Target(tables.payloads, ("arrival_id", "salt", *Payload._fields)),
)
TARGETS: Final = {one.table.name: one for one in (SMS, ARRIVALS, RETRIES)}


@cache
def of_rows(target: Target, number: int) -> str:
    """Return what inserts so many rows into an SQLite table; SQLAlchemy took 30 ms to write it for 64."""
    in_order = lightweight(target.table.name, *map(column, target.columns))
    insert = target.new_only(insert_into(in_order, "sqlite"))
    row = f"({', '.join('?' * len(target.columns))})"
    return _for_sqlite(insert).replace(row, ", ".join([row] * number))


def _from_arrays(target: Target, arrived: Any = None) -> Any:
    """Return what inserts into a PostgreSQL table arrays, one a column, if any for those that `arrived`."""
    columns = [target.table.c[name] for name in target.columns]
    arrays = [
        bindparam(name, type_=ARRAY(one.type)) for name, one in zip(target.arrays, columns, strict=True)
    ]
    given = func.unnest(*arrays).table_valued(*[column(one.name, one.type) for one in columns], name="given")
    source = given.render_derived()
    rows = select(*source.c)
    if target.unique:
        rows = rows.order_by(target.unique[0], "id")
    if arrived is not None:
        rows = rows.where(source.c.arrival_id.in_(select(arrived.c.id)))
    insert = target.new_only(insert_into(target.table, "postgresql").from_select(list(target.columns), rows))
    return insert.returning(target.table.c.id) if target.unique else insert


def _written(statement: Any) -> str:
    return str(statement.compile(dialect=registry.load("postgresql.psycopg")()))


def _for_sqlite(statement: Any) -> str:
    return str(statement.compile(dialect=registry.load("sqlite")(paramstyle="qmark")))


@cache
def for_postgresql(target: Target) -> str:
    """Return the statement that inserts into one PostgreSQL table; it tells the ids that went in."""
    return _written(_from_arrays(target))


@cache
def arrived_on_postgresql() -> str:
    """Return the statement of `insert_arrived`."""
    # psycopg keeps what it makes of one of up to 4,096 characters, else it takes 0.5 ms each time.
    arrived = _from_arrays(ARRIVALS).cte("arrived")
    others = [_from_arrays(one).cte() for one in OF_SMS]
    others += [_from_arrays(one, arrived).cte() for one in OF_ARRIVALS]
    return _written(select(arrived.c.id).add_cte(*others))


@cache
def among(query: Select[Any], key: Column[bytes], number: int = 0) -> str:
    """Return `query` for the rows whose `key` is among `number` values on SQLite, an array on PostgreSQL."""
    if not number:
        return _written(query.where(key == any_(bindparam("keys", type_=ARRAY(LargeBinary)))))
    return _for_sqlite(query.where(key == bindparam("key"))).replace("= ?", f"IN ({', '.join('?' * number)})")


@cache
def ids_between(target: Target) -> str:
    """Return the query for the ids that an SQLite table has between two, both included."""
    number = target.table.c.id
    return _for_sqlite(select(number).where(number.between(bindparam("first"), bindparam("last"))))


_BYTEA: Final = (17).to_bytes(4, "big")
_NULL: Final = b"\xff" * 4


def array_of(values: Sequence[Any]) -> str | Binary:
    """Return a column as PostgreSQL takes an array: in its binary form where it is of bytes, else as written.

    As text bytes are twice as long, and the server reads each character twice: of an import's batches it took
    85 µs of CPU a row instead of 66. psycopg's own binary form cost the writer 14 µs a POST more.
    """
    first = next((one for one in values if one is not None), None)
    if first is None:
        return "{}"  # `unnest` fills up with NULL what is shorter than the others
    if isinstance(first, bytes):
        return _of_bytes(values)
    if isinstance(first, str):
        whole = "".join(filter(None, values))
        if '"' in whole or "\\" in whole:
            values = [one and one.replace("\\", "\\\\").replace('"', '\\"') for one in values]
        if None not in values:  # nearly always; 33 ns a text instead of 80
            return '{"' + '","'.join(values) + '"}'
        written = ["NULL" if one is None else f'"{one}"' for one in values]
    else:
        written = ["NULL" if one is None else str(one) for one in values]
    return f"{{{','.join(written)}}}"


def _of_bytes(values: Sequence[bytes | None]) -> Binary:
    """Dimensions, whether any is NULL, the type, how many, from 1 on; then each with its length before it."""
    has_null = None in values
    number = len(values).to_bytes(4, "big")
    head = (b"\0\0\0\1\0\0\0", b"\1" if has_null else b"\0", _BYTEA, number, b"\0\0\0\1")
    each = [_NULL if one is None else len(one).to_bytes(4, "big") + one for one in values]
    return Binary(b"".join((*head, *each)))
