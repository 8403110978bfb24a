"""What an import says at its end."""

import sys
from collections import Counter
from dataclasses import dataclass

from ingestor.archive.runs import Balance
from ingestor.cli.tables import print_json
from ingestor.intake.files.dry import DrySink
from ingestor.intake.files.tally import Remark, Tally

MOST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Result:
    """How an import ended: `balance` of the whole run, `tally` of this process (None: nothing was read)."""

    run_id: int | None
    balance: Balance
    tally: Tally | None
    seconds: float
    finished: bool
    resumed: bool = False


def print_result(
    result: Result, *, as_json: bool, note: str | None = None, resume: str | None = None,
    dry: DrySink | None = None,
) -> int:  # fmt: skip
    """Print the result on stdout, troubles on stderr; return the exit code."""
    balance = result.balance
    if note:
        print(note)
    if result.tally is not None:  # long lists first: what counts stands where the eye is
        _print_remarks("quarantined", result.tally.quarantined, "… `ingestor quarantine list` shows all")
        gaps = result.tally.gap_count
        _print_remarks("gaps", result.tally.gaps, f"… {gaps:,} in all")
        _print_remarks("left out", result.tally.known, "… and more")
        _print_remarks("looks wrong", result.tally.overruled, "… and more")
        if dry is not None:
            _print_dry(dry, result.tally)
    name = "dry run" if result.run_id is None else f"run {result.run_id}"
    print(
        f"{name}: {balance.read:,} read = {balance.stored:,} stored + {balance.duplicate:,} duplicate + "
        f"{balance.ignored:,} ignored + {balance.quarantined:,} quarantined + {balance.failed:,} failed"
        f" ({result.seconds:.1f} s)"
    )
    if result.tally is not None:
        _print_tally(result.tally, " since it was resumed" if result.resumed else "")
    if dry is not None:
        print("nothing was written")
    if (
        result.finished
        and result.tally is not None
        and balance.read
        and not (balance.stored or balance.failed)
    ):
        print(
            "nothing new: every SMS in it was in the archive already"
            if balance.duplicate
            else "no new SMS in it"
        )
    if not result.finished:
        _print_unfinished(resume)
    elif balance.failed and resume:
        print(f"what failed is tried again by:\n  {resume}")
    if as_json:
        print_json(as_object(result))
    good = result.finished and balance.adds_up and not balance.failed
    if not balance.adds_up:
        print("ingestor: the balance does not add up; please report it", file=sys.stderr)
    return 0 if good else 1


def as_object(result: Result) -> dict[str, float | int | None]:
    """Return the JSON object of the contract."""
    balance = result.balance
    counts = {
        name: getattr(balance, name)
        for name in ("read", "stored", "duplicate", "ignored", "quarantined", "failed")
    }
    return {"run": result.run_id, **counts, "seconds": round(result.seconds, 3)}


def _print_tally(tally: Tally, when: str) -> None:
    total = tally.mail_bytes + tally.separator_bytes + tally.gap_bytes
    print(
        f"bytes{when}: {total:,} = {tally.mail_bytes:,} in {tally.mails:,} mails + "
        f"{tally.separator_bytes:,} of separators + {tally.gap_bytes:,} in {tally.gap_count:,} gaps"
    )
    if tally.odd_separators:
        print(f"{tally.odd_separators:,} separators were of an odd form, and told by the header behind them")
    for missing, number in tally.look_alikes.items():
        print(f"{number:,} of the ignored look like ours, but lack the {missing} (and a known sender)")
    for words in (*tally.notes, *tally.failures):
        print(f"ingestor: {words}", file=sys.stderr)
    if tally.failure_count > len(tally.failures):
        print(f"ingestor: … {tally.failure_count:,} in all could not be read", file=sys.stderr)


def _print_dry(dry: DrySink, tally: Tally) -> None:
    _print_remarks("duplicates", dry.duplicates, f"… {dry.duplicate_count:,} in all")
    _print_counts("quarantined, by reason", dry.reasons)
    _print_counts("ignored, by sender", tally.senders)


def _print_counts(title: str, counts: Counter[str]) -> None:
    if not counts:
        return
    print(f"{title}:")
    for name, number in counts.most_common(MOST_SHOWN):
        print(f"  {number:>8,}  {_shown(name) or '(none, or several)'}")
    if len(counts) > MOST_SHOWN:
        print(f"  … and {len(counts) - MOST_SHOWN:,} more")


def _shown(name: str) -> str:
    """Return `name` without what would move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]


def _print_remarks(title: str, remarks: list[Remark], more: str) -> None:
    if not remarks:
        return
    print(f"{title}:")
    for remark in remarks[:MOST_SHOWN]:
        length = f"{remark.length:,} bytes: " if remark.length else ""
        print(f"  {remark.place} at {remark.offset}: {length}{remark.reason}")
    if len(remarks) > MOST_SHOWN:
        print(f"  {more}")


def _print_unfinished(resume: str | None) -> None:
    if resume:
        print(f"stopped before the end; go on with:\n  {resume}")
    else:
        print(
            "stopped before the end; stdin cannot be resumed: import it again, what is stored is not doubled"
        )
