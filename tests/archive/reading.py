"""Looking into an archive past the program's own queries."""

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine

from ingestor.archive.engine import open_engine, reading, writing


@contextlib.contextmanager
def opened(url: str, *, read_only: bool = False) -> Iterator[Engine]:
    """Give an engine that leaves no connection behind."""
    engine = open_engine(url, read_only=read_only)
    try:
        yield engine
    finally:
        engine.dispose()


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    """Return what `statement` selects."""
    with reading(engine) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def one(engine: Engine, statement: str) -> Any:
    """Return the one value that `statement` selects."""
    ((value,),) = rows(engine, statement)
    return value


def number_of(engine: Engine, table: str) -> int:
    """Return how many rows a table or view has."""
    return int(one(engine, f"SELECT count(*) FROM {table}"))


def spoil(engine: Engine) -> None:
    """Give the table `sms` a constraint that no fingerprint meets."""
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("ALTER TABLE sms DROP CONSTRAINT ck_sms_fingerprint")
            check = (
                "ALTER TABLE sms ADD CONSTRAINT ck_sms_fingerprint CHECK (length(fingerprint) = 32) NOT VALID"
            )
            connection.exec_driver_sql(check)
            return
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        connection.exec_driver_sql(
            "UPDATE sqlite_schema SET sql = replace(sql, '(fingerprint) = 38', '(fingerprint) = 1')"
            " WHERE name = 'sms'"
        )
        connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def shown(engine: Engine) -> list[tuple[Any, ...]]:
    """Return `inbound_sms` without what may differ between two ways to the same archive."""
    return rows(
        engine,
        "SELECT provider, originator, originator_kind, destination, date_time, received_at, time_quality,"
        " text, keyword, clean_text, provider_message_id, segments FROM inbound_sms"
        " ORDER BY originator, date_time, text",
    )
