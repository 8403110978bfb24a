"""How far an import is: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import threading
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

    def tell(self, words: str) -> None:
        """Say why nothing goes on."""


@contextmanager
def display_for(*, quiet: bool) -> Iterator[Display]:
    """Give the display that suits stderr."""
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        bar = _Bar()
        with bar.live:
            yield bar
    else:
        lines = _Lines()
        try:
            yield lines
        finally:
            lines.end()


class _Silent:
    def expect(self, measure: Callable[[], int]) -> None:
        """Say nothing."""

    def show(self, tally: Tally) -> None:
        """Say nothing."""

    def tell(self, words: str) -> None:
        """Even then: without it the import would seem to hang."""
        print(f"ingestor: {words}", file=sys.stderr, flush=True)


class _Lines(_Silent):
    """A line every ten seconds, from a thread of its own: a slow pipe or a lock must not look like a hang."""

    def __init__(self) -> None:
        self._total = 0
        self._began = time.monotonic()
        self._tally = Tally()
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def expect(self, measure: Callable[[], int]) -> None:
        self._total = measure()

    def show(self, tally: Tally) -> None:
        self._tally = tally

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            tally = self._tally
            share = f" of {_megabytes(self._total)}" if self._total else ""
            rate = tally.mails / max(time.monotonic() - self._began, 0.001)
            print(
                f"{_megabytes(tally.taken)}{share}, {tally.mails:,} mails, {rate:,.0f} a second; "
                f"{balance_line(tally)}",
                file=sys.stderr, flush=True,
            )  # fmt: skip


class _Bar:
    """A bar with bytes and time left, and under it, however narrow the terminal is, the live balance."""

    def __init__(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
        from rich.text import Text

        console = Console(stderr=True)
        self._progress: Any = Progress(
            BarColumn(bar_width=24), DownloadColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._progress.add_task("", total=None)
        self._words: Any = Text()
        self.live: Any = Live(Group(self._progress, self._words), console=console, transient=True)
        self._began = time.monotonic()
        self._last = 0.0

    def expect(self, measure: Callable[[], int]) -> None:
        self._progress.update(self._task, total=measure() or None)

    def show(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._last < 0.1:
            return
        self._last = now
        rate = tally.mails / max(now - self._began, 0.001)
        self._words.plain = f"{tally.mails:,} mails, {rate:,.0f}/s; {balance_line(tally)}"
        self._progress.update(self._task, completed=tally.taken)

    def tell(self, words: str) -> None:
        self.live.console.print(f"ingestor: {words}", markup=False, highlight=False)


def balance_line(tally: Tally) -> str:
    """Return the live balance in words."""
    counts = tally.outcomes
    return (
        ", ".join(f"{counts[outcome]:,} {outcome.value}" for outcome in Outcome if counts[outcome])
        or "nothing yet"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
