"""How far an import is: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ingestor.intake.files.tally import Tally
from ingestor.record import Outcome

INTERVAL = 10.0


class Display(Protocol):
    """What is told while an import runs."""

    def expect(self, measure: Callable[[], int]) -> None:
        """Learn how many bytes there are to read, where that is shown; `measure` takes a walk."""

    def show(self, tally: Tally) -> None:
        """Say how far it is."""


@contextmanager
def display_for(*, quiet: bool) -> Iterator[Display]:
    """Give the display that suits stderr."""
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        bar = _Bar()
        with bar.progress:
            yield bar
    else:
        yield _Lines()


class _Silent:
    def expect(self, measure: Callable[[], int]) -> None:
        """Say nothing."""

    def show(self, tally: Tally) -> None:
        """Say nothing."""


class _Lines:
    def __init__(self) -> None:
        self._total = 0
        self._began = self._last = time.monotonic()

    def expect(self, measure: Callable[[], int]) -> None:
        self._total = measure()

    def show(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._last < INTERVAL:
            return
        self._last = now
        share = f" of {_megabytes(self._total)}" if self._total else ""
        rate = tally.mails / max(now - self._began, 0.001)
        print(
            f"{_megabytes(tally.taken)}{share}, {tally.mails:,} mails, {rate:,.0f} a second; "
            f"{balance_line(tally)}",
            file=sys.stderr, flush=True,
        )  # fmt: skip


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress: Any = Progress(
            BarColumn(bar_width=24), DownloadColumn(), TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self.progress.add_task("", total=None)
        self._began = time.monotonic()
        self._last = 0.0

    def expect(self, measure: Callable[[], int]) -> None:
        self.progress.update(self._task, total=measure() or None)

    def show(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._last < 0.1:
            return
        self._last = now
        rate = tally.mails / max(now - self._began, 0.001)
        words = f"{tally.mails:,} mails, {rate:,.0f}/s; {balance_line(tally)}"
        self.progress.update(self._task, completed=tally.taken, description=words)


def balance_line(tally: Tally) -> str:
    """Return the live balance in words."""
    counts = tally.outcomes
    return (
        ", ".join(f"{counts[outcome]:,} {outcome.value}" for outcome in Outcome if counts[outcome])
        or "nothing yet"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
