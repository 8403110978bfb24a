"""Columns as PostgreSQL's binary arrays: what the server reads is what was given."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.postgresql_arrays import packed

WHEN = datetime(1992, 12, 3, 9, 30, 0, 1, tzinfo=UTC)
VALUES: dict[str, tuple[Any, Any]] = {
    "bool": (True, False),
    "bytea": (b"", b"\x00\xff"),
    "int8": (-(2**63), 2**63 - 1),
    "int2": (-(2**15), 2**15 - 1),
    "int4": (-(2**31), 2**31 - 1),
    "text": ("", "città 🎉"),
    "timestamptz": (WHEN, WHEN + timedelta(days=40000, microseconds=7)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_every_column_comes_out_as_it_went_in(postgresql_engine: Engine, kind: str) -> None:
    """One value, many, the same one many times, none, and NULLs anywhere."""
    one, other = VALUES[kind]
    columns = (
        [],
        [one],
        [one] * 3,
        [one, other],
        [one, other, one],
        [None] * 3,
        [None, one],
        [one, None, one],
    )
    with postgresql_engine.connect() as connection:
        for column in columns:
            given = packed(kind, tuple(column))
            [read] = connection.exec_driver_sql(f"SELECT %b::{kind}[]", (given,)).one()
            assert [
                bytes(value) if kind == "bytea" and value is not None else value for value in read
            ] == column


@pytest.mark.parametrize(
    ("kind", "value"), [("int2", 2**15), ("int4", 2**31), ("int8", 2**63), ("text", "\ud800")]
)
def test_what_does_not_fit_is_refused(kind: str, value: Any) -> None:
    """The writer must hear of it before the server does, whether it stands alone or among others."""
    for column in ((value,), (value, value), (value, None)):
        with pytest.raises((OverflowError, UnicodeError)):
            packed(kind, column)
