"""The archive as a file: JSON Lines and CSV, both exact; CSV also in a form that spreadsheets cannot hurt."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TextIO

from sqlalchemy import Engine

from ingestor.archive.engine import reading
from ingestor.archive.queries import Filters, Row, filtered, stream
from ingestor.archive.views import inbound_sms
from ingestor.timestamps import iso_utc

COLUMNS = tuple(column.name for column in inbound_sms.c)
_NUMBERS = ("originator", "destination")
# A cell that begins so may run as a formula (OWASP); every E.164 number does.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def export_jsonl(engine: Engine, out: TextIO, filters: Filters | None = None) -> int:
    """Write one JSON object a row of `inbound_sms` to `out`, oldest id first; return how many.

    Times are ISO 8601 in UTC with Z; `out` should be UTF-8 and not translate line ends.
    """
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    number = 0
    with reading(engine) as connection:
        for number, row in enumerate(stream(connection, _query(filters)), 1):  # noqa: B007 - it is returned
            out.write(encode({name: plain(value) for name, value in row.items()}) + "\n")
    return number


def export_csv(
    engine: Engine, out: TextIO, filters: Filters | None = None, *, spreadsheet_safe: bool = False
) -> int:
    """Write `inbound_sms` as CSV (RFC 4180) to `out`, with a header; return how many rows.

    Exact: text is always quoted, so that an empty text is `""` and NULL is nothing. With
    `spreadsheet_safe`, a text that a spreadsheet might run as a formula gets an apostrophe in front, and
    the numbers follow once more without their plus, in columns of their own.
    """
    extra = tuple(f"{name}_digits" for name in _NUMBERS) if spreadsheet_safe else ()
    out.write(_line([*COLUMNS, *extra]))
    number = 0
    with reading(engine) as connection:
        for number, row in enumerate(stream(connection, _query(filters)), 1):  # noqa: B007 - it is returned
            values = [plain(row[name]) for name in COLUMNS]
            if spreadsheet_safe:
                values = [_defused(value) for value in values] + [_digits(row[name]) for name in _NUMBERS]
            out.write(_line(values))
    return number


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: times as ISO 8601 text in UTC with Z, bytes as hexadecimal."""
    if isinstance(value, datetime):
        return iso_utc(value)
    if isinstance(value, bytes):
        return value.hex()
    return value


def plain_row(row: Row) -> dict[str, Any]:
    """Return a whole row as JSON can hold it."""
    return {name: plain(value) for name, value in row.items()}


def _query(filters: Filters | None) -> Any:
    return filtered(filters or Filters()).order_by(inbound_sms.c.id)


def _line(values: Iterable[Any]) -> str:
    return ",".join(map(_cell, values)) + "\r\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _defused(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value


def _digits(number: str | None) -> str | None:
    if number is None:
        return None
    bare = number.removeprefix("+")
    return bare if bare.isdecimal() else None
