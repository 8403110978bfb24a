"""What commands print: a rich table on a terminal, lines with tabs elsewhere; JSON; what a run did."""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

from ingestor.redaction import TURNING, one_line

if TYPE_CHECKING:  # each command prints, and not each has a balance to show
    from ingestor.archive.runs import Balance

# What `one_line` escapes, for whole documents, as JSON writes it: their own line ends and tabs stay.
_WHOLE = {
    character: f"\\u{character:04x}"
    for character in (*range(9), 11, 12, *range(14, 32), *range(127, 160), *TURNING)
}
# Only texts may be broken over lines; the rest is read at a glance.
_NUMBERS = {"id", "run", "size", "retries", "read", "quarantined", "look-alikes"}
_FLOWING = {"applied", "balance", "detail", "reason", "source", "subject", "text", "title", "without"}
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def printable(value: object) -> str:
    """Return `value` as one harmless line: an SMS may carry escape codes meant for the reader's terminal."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        offset = "Z" if value.tzinfo is UTC else f"{value:%z}"[:3] + ":" + f"{value:%z}"[3:5]
        return f"{value:%Y-%m-%d %H:%M:%S}{offset}"
    return one_line(str(value))


def print_json(value: object) -> None:
    """Print `value` as one line of JSON: letters as they are, whatever a terminal obeys as an escape."""
    print(json.dumps(value, ensure_ascii=False).translate(_WHOLE), flush=True)


class Harmless(io.TextIOBase):
    """A text stream in front of a terminal: what it would obey is shown instead."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Write `text`, control characters and marks of direction as escapes."""
        self._out.write(text.translate(_WHOLE))
        return len(text)


class _Shown(io.RawIOBase):
    """A stream of bytes in front of a terminal: they are shown as text."""

    def write(self, raw: Any) -> int:
        """Write `raw`, what is no UTF-8 as escapes."""
        Harmless(sys.stdout).write(bytes(raw).decode("utf-8", "backslashreplace"))
        return len(raw)


def raw_output() -> BinaryIO:
    """Return where bytes go to stdout, exactly; on a terminal as text without what it would obey."""
    return cast("BinaryIO", _Shown()) if sys.stdout.isatty() else sys.stdout.buffer


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """Print `rows` under their `columns`: a table on a terminal, elsewhere lines with tabs and no title."""
    if sys.stdout.isatty():
        _print_rich(columns, rows, title)
        return
    print("\t".join(columns))
    for row in rows:
        print("\t".join(map(printable, row)))


def _print_rich(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None) -> None:
    # Only where there is a terminal: rich takes 60 ms.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in _NUMBERS else "left",
            overflow="fold",
            no_wrap=column not in _FLOWING,
        )
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in row))
    Console().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print a line each of `fields` that is not None, aligned; values of several lines go on below."""
    told = {name: value for name, value in fields.items() if value is not None}
    width = max(map(len, told))
    for name, value in told.items():
        lines = str(value).split("\n") if isinstance(value, str) else [printable(value)]
        first, *more = map(printable, lines)
        print(f"{name:>{width}}  {first}".rstrip())
        for line in more:
            print(f"{'':>{width}}  {line}".rstrip())


def when(moment: datetime | None, now: datetime, zone: tzinfo | None) -> str:
    """Return `moment` for people on a terminal (how long ago), elsewhere exactly (in `zone`)."""
    if moment is None:
        return "never"
    return age(moment, now) if sys.stdout.isatty() else printable(moment.astimezone(zone))


def age(moment: datetime | None, now: datetime) -> str:
    """Return how long ago `moment` was, in its largest unit, as people say it."""
    if moment is None:
        return "never"
    seconds = max(0, int((now - moment).total_seconds()))
    if not seconds:
        return "just now"
    size, unit = next(one for one in _UNITS if seconds >= one[0])
    count = seconds // size
    return f"{count} {unit}{'s' if count != 1 else ''} ago"


def print_balance(run_id: int | None, balance: "Balance", seconds: float, *, as_json: bool) -> None:
    """Print the `balance` of a run that took `seconds`; with `as_json` as one object on the last line."""
    counts = balance._asdict()
    if as_json:
        print_json({"run": run_id, **counts, "seconds": round(seconds, 3)})
        return
    print(balance)
    if not balance.adds_up:
        print("This balance does NOT add up: please report it, with the log of this run.")
    run = f"run {run_id}, " if run_id is not None else ""
    print(f"{run}{seconds:.1f} s", flush=True)


def exit_code(balance: "Balance") -> int:
    """Return 0 where a run is done and balanced, 1 where something failed."""
    return 0 if balance.adds_up and not balance.failed else 1


@contextlib.contextmanager
def share_done() -> Iterator[Callable[[int, int], None]]:
    """Give what shows on stderr how much is done of how much: a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = BarColumn(bar_width=40), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)
