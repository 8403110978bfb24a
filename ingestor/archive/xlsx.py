"""`inbound_sms` as a workbook for Excel and LibreOffice, in whatever country: every text is a text.

No text of a sender is a formula, a link, a number or a date there: a cell of the kind "string" says so
itself, where CSV leaves it to the program that opens it. Times are dates of the spreadsheet, in UTC.
"""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import xlsxwriter
from sqlalchemy import Engine
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.worksheet import Worksheet

from ingestor.archive.export import COLUMNS, Tell, quiet, rows_of
from ingestor.archive.searching import Filters, Row
from ingestor.archive.views import plain

ROWS_OF_A_SHEET: Final = 1_048_576
"""What Excel opens, the header among them; what comes after goes on on the next sheet."""

LONGEST_TEXT: Final = 32_767
"""UTF-16 units of a cell; of a longer text only so much stands in it."""

_FIRST_DAY = datetime(1900, 3, 1, tzinfo=UTC)  # before it Excel counts a day that was none
_WIDTHS = {"text": 60, "clean_text": 30, "destination": 16, "originator": 16, "date_time": 16}
_WIDTH_OF_TIMES = 19


class Written(NamedTuple):
    """How many SMS a workbook has, on how many sheets, and how many of its texts are cut."""

    sms: int
    sheets: int
    cut: int


class _Sheet(Worksheet):  # type: ignore[misc]  # xlsxwriter ships no types
    """A sheet of plain texts: `<r>…</r>` from a sender would else be taken for markup as it stands."""

    def _xml_rich_inline_string(self, string: str, attributes: Any) -> None:
        self._xml_inline_string(string, True, attributes)


def export_xlsx(engine: Engine, path: Path, filters: Filters | None = None, tell: Tell = quiet) -> Written:
    """Write `inbound_sms` as a workbook to `path`, oldest id first, without ever holding all rows."""
    parts = path.with_name(f"{path.name}-parts")
    parts.mkdir(mode=0o700)
    book = xlsxwriter.Workbook(path, {"constant_memory": True, "tmpdir": str(parts)})
    book.worksheet_class = _Sheet
    book.use_zip64()
    try:
        return _fill(book, rows_of(engine, filters, tell))
    finally:
        for sheet in book.worksheets():
            if sheet.row_data_fh is not None:
                with suppress(OSError):
                    sheet.row_data_fh.close()
        shutil.rmtree(parts, ignore_errors=True)


def _fill(book: Any, rows: Iterable[Row]) -> Written:
    header = book.add_format({"bold": True})
    as_time = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss", "align": "left"})
    sheet, sms, cut, line = None, 0, 0, ROWS_OF_A_SHEET
    for sms, row in enumerate(rows, 1):  # noqa: B007 - it is returned
        if line == ROWS_OF_A_SHEET:
            sheet, line = _new_sheet(book, header), 1
        for column, name in enumerate(COLUMNS):
            cut += _write(sheet, line, column, row[name], as_time)
        line += 1
    if sheet is None:
        _new_sheet(book, header)
    sheets = len(book.worksheets())
    try:
        book.close()
    except FileCreateError as error:
        raise error.args[0] from None  # the OSError
    return Written(sms, sheets, cut)


def _new_sheet(book: Any, header: Any) -> Any:
    number = len(book.worksheets()) + 1
    sheet = book.add_worksheet("sms" if number == 1 else f"sms {number}")
    sheet.freeze_panes(1, 0)
    for column, name in enumerate(COLUMNS):
        sheet.set_column(column, column, _WIDTHS.get(name, _WIDTH_OF_TIMES if name.endswith("_at") else 12))
        sheet.write_string(0, column, name, header)
    return sheet


def _write(sheet: Any, line: int, column: int, value: Any, as_time: Any) -> bool:
    """Write one cell; return whether a text did not fit. NULL and an empty text are both an empty cell."""
    if isinstance(value, bool):
        sheet.write_boolean(line, column, value)
    elif isinstance(value, int):
        sheet.write_number(line, column, value)
    elif isinstance(value, datetime) and value >= _FIRST_DAY:
        sheet.write_datetime(line, column, value.astimezone(UTC).replace(tzinfo=None), as_time)
    elif value is not None:
        return bool(sheet.write_string(line, column, str(plain(value))) == -2)
    return False
