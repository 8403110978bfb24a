"""What every table of the archive is made of: its types, and the one metadata with its names for keys.

Beside them stands what is asked or written in one way on both databases.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    SmallInteger,
    Table,
    TableClause,
    Text,
    any_,
    bindparam,
    event,
    text,
)  # fmt: skip
from sqlalchemy.types import TypeDecorator, TypeEngine

from ingestor.timestamps import iso_utc


class Instant(TypeDecorator[datetime]):
    """An aware UTC time: ISO 8601 text with Z on SQLite, timestamptz on PostgreSQL."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that `dialect` stores it as."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | str | None, dialect: Dialect) -> Any:
        """Return what the driver is given; a text was written by `iso_utc` already."""
        if value is None or isinstance(value, str) or dialect.name == "postgresql":
            return value
        return iso_utc(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Return the aware UTC time the driver gave."""
        if value is None:
            return None
        return datetime.fromisoformat(value) if isinstance(value, str) else value.astimezone(UTC)


class WholeSecond(Instant):
    """A whole second to compare an `Instant` with: on SQLite without the Z, which sorts after a fraction."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return what the driver is given."""
        given = super().process_bind_param(value and value.replace(microsecond=0), dialect)
        return given.removesuffix("Z") if isinstance(given, str) else given


class Ordered(Instant):
    """An `Instant` that on SQLite sorts as text, too: it always has its six digits of a second."""

    cache_ok = True

    def process_bind_param(self, value: datetime | str | None, dialect: Dialect) -> Any:
        """Return what the driver is given."""
        if not isinstance(value, datetime) or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


_T = TypeVar("_T")

# STRICT tables know INTEGER, TEXT and BLOB only.
Big: Final = BigInteger().with_variant(Integer(), "sqlite")
Small: Final = SmallInteger().with_variant(Integer(), "sqlite")
Flag: Final = Boolean(create_constraint=False).with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


SALT: Final = "32 random bytes: what is hashed with them cannot be guessed once the row is erased"
"""What the column `salt` means, wherever it stands."""


def col(
    name: str, kind: Any, meaning: str, *, null: bool = False, key: bool = False, of: str | None = None,
    **options: Any,
) -> Column[Any]:  # fmt: skip
    """Return a column, NOT NULL unless `null`; `of` a column of another table, or in the primary `key`."""
    refers = () if of is None else (ForeignKey(of),)
    return Column(name, kind, *refers, nullable=null, primary_key=key, info={"meaning": meaning}, **options)


def one_of(column: str, *values: str) -> CheckConstraint:
    """Return the rule that `column` has one of `values`."""
    # OR and not IN: SQLite builds a temporary index for a list of values, for each row anew.
    return CheckConstraint(" OR ".join(f"{column} = '{value}'" for value in values), name=column)


def new_table(name: str, meaning: str, *parts: Any, **of_sqlite: Any) -> Table:
    """Return the table `name` of the archive; `of_sqlite` are further options of that database's tables."""
    return Table(name, metadata, *parts, info={"meaning": meaning, "of_sqlite": of_sqlite})


@event.listens_for(metadata, "before_create")
def _strict(_: MetaData, connection: Connection, tables: Sequence[Table], **__: Any) -> None:
    """Give the tables their options of SQLite where they are made there: each loads its dialect."""
    if connection.dialect.name == "sqlite":
        for table in tables:
            table.dialect_kwargs.update(sqlite_strict=True, **table.info["of_sqlite"])


def index_of_rows(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """Return an index of those rows for which `where` holds, on either database.

    As an argument of `Index` it would load the whole dialect of both: PostgreSQL's is 20 ms of each start.
    """
    index = Index(name, *columns, unique=unique, info={"where": where})

    def narrow(_index: Index, connection: Connection, **_: Any) -> None:
        index.dialect_kwargs[f"{connection.dialect.name}_where"] = text(where)

    event.listen(index, "before_create", narrow)
    return index


def insert_once(connection: Connection, table: Table, values: Mapping[str, Any]) -> Any:
    """Insert a row and return its primary key, None where one with a key of its stands already."""
    statement = insert_into(table, connection.dialect.name).values(values).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key)).scalar()


def insert_into(table: TableClause[Any], dialect: str) -> Any:
    """Return the INSERT of `dialect`, which knows ON CONFLICT; the other one is not loaded for it."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


def for_ids(
    connection: Connection, query: Select[Any], column: ColumnElement[Any], ids: Sequence[Any]
) -> Iterator[Any]:
    """Give the rows of `query` whose `column` is among `ids`, so many at a time as a statement takes."""
    if connection.dialect.name == "postgresql":
        # One array: psycopg reads 500 parameters a statement anew each time, in 12 ms.
        limited = query.where(column == any_(bindparam("ids", type_=ARRAY(column.type))))
    else:
        limited = query.where(column.in_(bindparam("ids", expanding=True)))
    for part in in_parts(ids):
        yield from connection.execute(limited, {"ids": part})


def in_parts(ids: Sequence[_T], size: int = 500) -> Iterator[list[_T]]:
    """Give `ids` in lists of `size`: as many as a statement takes."""
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


# sqlite3 looks for an adapter of each NULL and of all bytes, by way of an exception where there is none: 300
# and 420 ns a value, with these 130 and 260; an import's row took 6 µs more of 41. They give back the same.
_THE_SAME: dict[None, None] = {}
sqlite3.register_adapter(type(None), _THE_SAME.get)
sqlite3.register_adapter(bytes, bytes)


class Binary(bytes):
    """A value as PostgreSQL has it in its binary form, of whatever type the statement says."""


def send_binary(connection: Any) -> None:
    """Have psycopg's `connection` send a `Binary` as it is."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class AsItIs(Dumper):
        format = Format.BINARY

        def dump(self, obj: bytes) -> bytes:
            return obj

    connection.adapters.register_dumper(Binary, AsItIs)
