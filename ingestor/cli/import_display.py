"""What an import says: how far it is (a bar on a terminal, else a line every ten seconds), and its end."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ingestor.archive.runs import Balance
from ingestor.cli import complain
from ingestor.cli.printing import exit_code, print_balance
from ingestor.intake.files.books import Listing, Tally
from ingestor.intake.files.sinks import DrySink
from ingestor.record import Outcome
from ingestor.redaction import one_line

INTERVAL = 10.0
MOST_SHOWN = 200


class Display:
    """What is told while an import runs. This one, for --quiet, only says why nothing goes on."""

    def expect(self, measure: Callable[[], int]) -> None:
        """Learn how many bytes there are to read, where that is shown; `measure` takes a walk."""

    def show(self, tally: Tally) -> None:
        """Say how far it is."""

    def tell(self, words: str) -> None:
        """Say why nothing goes on: without it the import would seem to hang."""
        complain(words)


@contextmanager
def display_for(*, quiet: bool) -> Iterator[Display]:
    """Give the display that suits stderr."""
    if quiet:
        yield Display()
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


class _Lines(Display):
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
            share = f" of {self._total / 1e6:,.1f} MB" if self._total else ""
            rate = tally.mails / max(time.monotonic() - self._began, 0.001)
            print(
                f"{tally.taken / 1e6:,.1f} MB{share}, {tally.mails:,} mails, {rate:,.0f} a second; "
                f"{_so_far(tally)}",
                file=sys.stderr, flush=True,
            )  # fmt: skip


class _Bar(Display):
    """A bar with bytes and time left, and under it, however narrow the terminal is, the live balance."""

    def __init__(self) -> None:
        # Only where there is a terminal: rich takes 60 ms.
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
        self._words.plain = f"{tally.mails:,} mails, {rate:,.0f}/s; {_so_far(tally)}"
        self._progress.update(self._task, completed=tally.taken)

    def tell(self, words: str) -> None:
        self.live.console.print(f"ingestor: {words}", markup=False, highlight=False)


def _so_far(tally: Tally) -> str:
    counts = tally.outcomes
    named = (f"{counts[outcome]:,} {outcome.value}" for outcome in Outcome if counts[outcome])
    return ", ".join(named) or "nothing yet"


@dataclass(frozen=True, slots=True)
class Result:
    """How an import ended: `balance` of the whole run, `tally` of this process (None: nothing was read).

    `dry` is the sink of a dry run, which has no `run_id`; `resume` is the command that goes on, if any can.
    """

    run_id: int | None
    balance: Balance
    tally: Tally | None
    seconds: float
    finished: bool
    resumed: bool = False
    resume: str | None = None
    dry: DrySink | None = None


def print_result(result: Result, *, as_json: bool, note: str | None = None) -> int:
    """Print the result on stdout, troubles on stderr; return the exit code."""
    balance, tally, dry = result.balance, result.tally, result.dry
    if note:
        print(note)
    if tally is not None:  # long lists first: what counts stands where the eye is
        _print_lists(tally, dry)
    name = "dry run" if result.run_id is None else f"run {result.run_id}"
    print(f"{name}: {balance} ({result.seconds:.1f} s)")
    if tally is not None:
        _print_tally(tally, " since it was resumed" if result.resumed else "")
    if dry is not None:
        print("nothing was written")
    if result.finished and tally is not None and balance.read and not (balance.stored or balance.failed):
        known = "nothing new: every SMS in it was in the archive already"
        print(known if balance.duplicate else "no new SMS in it")
    _print_what_next(result)
    if as_json:
        print_balance(result.run_id, balance, result.seconds, as_json=True)
    if not balance.adds_up:
        complain("the balance does not add up; please report it")
    return exit_code(balance) if result.finished else 1


def _print_what_next(result: Result) -> None:
    if result.finished:
        if result.balance.failed and result.resume:
            print(f"what failed is tried again by:\n  {result.resume}")
    elif result.resume:
        print(f"stopped before the end; go on with:\n  {result.resume}")
    else:
        print(
            "stopped before the end; stdin cannot be resumed: import it again, what is stored is not doubled"
        )


def _print_lists(tally: Tally, dry: DrySink | None) -> None:
    _print_remarks("quarantined", tally.quarantined, "… `ingestor quarantine list` shows all")
    _print_remarks("looks like a mailbox, but was not read", tally.mailbox_like)
    if tally.no_mail:
        print("no mail, mailbox or archive:")
    for ending, files in sorted(tally.no_mail.items(), key=lambda one: -one[1].count)[:MOST_SHOWN]:
        first = files.remarks[0].place if files.count == 1 else f"{files.remarks[0].place} and others"
        print(f"  {files.count:>8,}  {ending}, {files.size:,} bytes: {first}")
    _print_remarks("gaps", tally.gaps)
    _print_remarks("left out", tally.left_out)
    _print_remarks("looks wrong", tally.overruled)
    if dry is not None:
        _print_remarks("duplicates", dry.duplicates)
        _print_counts("quarantined, by reason", dry.reasons)
        outside = Counter({"an SMS outside --since and --until": tally.outside} if tally.outside else {})
        _print_counts("ignored, by sender", tally.senders + outside)


def _print_tally(tally: Tally, when: str) -> None:
    gaps = [tally.gaps, *tally.no_mail.values()]
    count, size = sum(one.count for one in gaps), sum(one.size for one in gaps)
    total = tally.mail_bytes + tally.separator_bytes + size
    print(
        f"bytes{when}: {total:,} = {tally.mail_bytes:,} in {tally.mails:,} mails + "
        f"{tally.separator_bytes:,} of separators + {size:,} in {count:,} gaps"
    )
    if tally.odd_separators:
        print(f"{tally.odd_separators:,} separators were of an odd form, and told by the header behind them")
    if tally.outside:
        print(f"{tally.outside:,} of the ignored are SMS of days outside --since and --until")
    for missing, number in tally.look_alikes.items():
        print(f"{number:,} of the ignored look like ours, but lack the {missing} (and a known sender)")
    for words in (*tally.notes, *tally.failures):
        complain(words)
    if tally.failure_count > len(tally.failures):
        complain(f"… {tally.failure_count:,} in all could not be read")


def _print_counts(title: str, counts: Counter[str]) -> None:
    if not counts:
        return
    print(f"{title}:")
    for name, number in counts.most_common(MOST_SHOWN):
        harmless = one_line(name)[:200]
        print(f"  {number:>8,}  {harmless or '(none, or several)'}")
    if len(counts) > MOST_SHOWN:
        print(f"  … and {len(counts) - MOST_SHOWN:,} more")


def _print_remarks(title: str, listing: Listing, more: str | None = None) -> None:
    if not listing.count:
        return
    print(f"{title}:")
    for remark in listing.remarks[:MOST_SHOWN]:
        length = f"{remark.length:,} bytes: " if remark.length else ""
        print(f"  {remark.place} at {remark.offset}: {length}{remark.reason}")
    if listing.count > MOST_SHOWN:
        print(f"  {more or f'… {listing.count:,} in all'}")
