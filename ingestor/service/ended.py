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

    def in_words(self) -> str:
        """Return the balance as a sum, in a line."""
        return f"run {self.run}: {in_words(self.balance)}"


def in_words(counts: Balance) -> str:
    """Return the balance as a sum that adds up: read 5 = stored 3 + duplicate 1 + ignored 1 …"""
    parts = (
        ("stored", counts.stored),
        ("duplicate", counts.duplicate),
        ("ignored", counts.ignored),
        ("quarantined", counts.quarantined),
        ("failed", counts.failed),
    )
    return f"read {counts.read} = " + " + ".join(f"{name} {count}" for name, count in parts)
