"""What a run of the daemon, or a single pass, did."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingestor.archive.runs import Balance


@dataclass(frozen=True, slots=True)
class Ended:
    """Run number, balance, how long it took, and why which mailbox failed (a single pass only)."""

    run: int
    balance: Balance
    seconds: float
    failures: Mapping[str, str] = field(default_factory=dict)
