"""Lists of opted-out numbers that other programs kept: one in, as dated events, and ours out, as CSV."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TextIO

from sqlalchemy import Connection, Engine, select

from ingestor.archive.columns import in_parts
from ingestor.archive.engine import reading, writing
from ingestor.archive.views import opt_out_events, opt_outs, plain
from ingestor.errors import IngestorError
from ingestor.numbers import OriginatorKind, last_four, normalise_agile
from ingestor.replies.opt_outs import EVERY, Event, number_hmac, read_secret, write_events
from ingestor.timestamps import FIRST_YEAR

COLUMNS: Final = ("number", "scope", "since", "kind", "sms_id", "reason")
EVENT_COLUMNS: Final = ("id", "at", "kind", "number", "scope", "sms_id", "reason", "noted_at")

_NAMES = {
    "number": ("number", "phone", "msisdn", "mobile", "originator", "numero", "telefono", "rufnummer"),
    "scope": ("scope", "our_number", "destination"),
    "at": ("at", "since", "date", "datetime", "opted_out_at", "data", "datum"),
    "reason": ("reason", "note", "motivo", "grund"),
    "sms_id": ("sms_id",),
}  # fmt: skip
_WRITTEN_AROUND = str.maketrans("", "", " ()-./'\u00a0")
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Unusable:
    """A line of a list that cannot be taken, and why; at most the last four digits of a number."""

    line: int
    reason: str


def phone_number(written: str) -> str | None:
    """Return a phone number as the archive has it (E.164), None where `written` is none.

    Blanks, brackets, dashes and dots between the digits do not count; no country is ever guessed.
    """
    number = normalise_agile(written.translate(_WRITTEN_AROUND))
    return number.value if number.kind is OriginatorKind.MSISDN else None


def read_list(
    lines: Iterable[str], scope: str, reason: str | None, now: datetime
) -> Iterator[Event | Unusable]:
    """Give an event of kind `import` for each line of a CSV, or why there is none.

    The first line may name the columns: number, and where there are such scope (a number of ours or *), date
    (ISO 8601, UTC where it has no offset), reason; else the number stands first. What a line does not say
    is `scope`, `now` (aware) and `reason`. Cells are parted by the comma, semicolon or tab of the first line.
    Raises IngestorError where a quote has no end: all lines behind it would be one cell.
    """
    first, *rest = list(lines) or [""]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader([first, *rest], delimiter=delimiter, strict=True)
    places: dict[str, int] = {}
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as fault:
            raise IngestorError(f"line {line}: its quotes do not match ({fault}); mend it first") from None
        if row is None:
            return
        if line == 1 and (places := _places(row)):
            continue
        if any(cell.strip() for cell in row):
            yield _event(row, places or {"number": 0}, line, Event("", scope, "import", now, reason=reason))


def _places(header: Sequence[str]) -> dict[str, int]:
    """Return which column is where, empty where the line is no header."""
    found: dict[str, int] = {}
    for place, cell in enumerate(header):
        written = cell.strip().casefold().replace(" ", "_")
        for name, spellings in _NAMES.items():
            if written in spellings:
                found.setdefault(name, place)
    return found if "number" in found else {}


def _event(row: Sequence[str], places: dict[str, int], line: int, usual: Event) -> Event | Unusable:
    def cell(name: str) -> str:
        place = places.get(name)
        return row[place].strip() if place is not None and place < len(row) else ""

    number = phone_number(cell("number"))
    if number is None and cell("sms_id"):  # our own list: a short code has said STOP
        number = cell("number")
    if not number:
        return Unusable(line, f"{last_four(cell('number'))} is no phone number with its country")
    scope = cell("scope") or usual.scope
    if scope != EVERY:
        scope = normalise_agile(scope).value
    at = usual.at
    if written := cell("at"):
        try:
            at = datetime.fromisoformat(written)
        except ValueError:
            return Unusable(line, "its date is none like 2026-01-31 or 2026-01-31T14:30:00Z")
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        if at.year < FIRST_YEAR or at > usual.at:
            return Unusable(line, "its date is none of the past")
    return Event(number, scope, usual.kind, at, reason=cell("reason") or usual.reason)


def take_list(engine: Engine, events: Sequence[Event], now: datetime) -> tuple[int, int]:
    """Write `events` of a list down, some hundred a transaction; return how many are new, how many known.

    A number that is out of that scope already, by whatever event, is known: a list may be taken twice, or
    again after a kill.
    """
    new = 0
    for some in in_parts(events):
        with writing(engine) as connection:
            secret = read_secret(connection)
            out = _out_of_scopes(connection, [number_hmac(secret, event.number) for event in some])
            wanted = [event for event in some if (number_hmac(secret, event.number), event.scope) not in out]
            new += write_events(connection, secret, wanted, now)
    return new, len(events) - new


def _out_of_scopes(connection: Connection, numbers: Sequence[bytes]) -> set[tuple[bytes, str]]:
    """Return (number, scope) of every opt-out of `numbers` that has nothing reopened."""
    columns = opt_outs.c
    query = select(columns.number_hmac, columns.scope).where(
        columns.number_hmac.in_(numbers), columns.reopened == ""
    )
    return {(bytes(number), scope) for number, scope in connection.execute(query)}


def write_list(engine: Engine, out: TextIO, *, events: bool = False) -> int:
    """Write who is out now as CSV to `out`, or all `events`; return how many lines. It can be imported."""
    view = opt_out_events if events else opt_outs
    columns = EVENT_COLUMNS if events else COLUMNS
    order = (view.c.at, view.c.id) if events else (view.c.since, view.c.event_id)
    writer = csv.writer(out)
    writer.writerow(columns)
    number = 0
    with reading(engine) as connection:
        rows = connection.execution_options(yield_per=_ROWS).execute(
            select(*(view.c[name] for name in columns)).order_by(*order)
        )
        for number, row in enumerate(rows, 1):  # noqa: B007 - it is returned
            writer.writerow([plain(value) for value in row])
    return number
