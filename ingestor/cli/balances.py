"""What a run did, for people and (as the last line of stdout) for scripts."""

import dataclasses
from typing import TYPE_CHECKING

from ingestor.cli.tables import print_json

if TYPE_CHECKING:
    from ingestor.archive.runs import Balance


def print_balance(run_id: int | None, balance: "Balance", seconds: float, *, as_json: bool) -> None:
    """Print the `balance` of a run that took `seconds`; with `as_json` as one object on the last line.

    `run_id` is `runs.id`, which `import --resume` takes; None where nothing was recorded (a dry run).
    """
    counts = dataclasses.asdict(balance)
    if as_json:
        print_json({"run": run_id, **counts, "seconds": round(seconds, 3)})
        return
    print(f"{balance.read:,} read = {outcomes(balance)}")
    if not balance.adds_up:
        print("This balance does NOT add up: please report it, with the log of this run.")
    run = f"run {run_id}, " if run_id is not None else ""
    print(f"{run}{seconds:.1f} s", flush=True)


def outcomes(balance: "Balance") -> str:
    """Return how the items of a run ended, as a sum."""
    counts = dataclasses.asdict(balance)
    return " + ".join(f"{counts[name]:,} {name}" for name in counts if name != "read")


def exit_code(balance: "Balance") -> int:
    """Return 0 where a run is done and balanced, 1 where something failed."""
    return 0 if balance.adds_up and not balance.failed else 1
