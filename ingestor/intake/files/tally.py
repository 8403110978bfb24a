"""What an import has come to so far: the balance, where every byte belongs, and what could not be read."""

from collections import Counter
from dataclasses import dataclass, field

from ingestor.providers.contract import near_miss_in_words
from ingestor.record import Outcome

MOST_LISTED = 1000
"""Gaps and quarantined mails beyond this many are only counted."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to be told about a place in the input, in words without personal content."""

    place: str
    offset: int
    reason: str
    length: int = 0


@dataclass(slots=True)
class Tally:
    """Counts of one process; the balance of a resumed run is in the archive."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    mails: int = 0
    mail_bytes: int = 0
    separator_bytes: int = 0
    odd_separators: int = 0
    gap_bytes: int = 0
    gap_count: int = 0
    gaps: list[Remark] = field(default_factory=list)
    quarantined: list[Remark] = field(default_factory=list)
    overruled: list[Remark] = field(default_factory=list)
    """Mailboxes that were read as one mail each, because the user wanted so."""
    known: list[Remark] = field(default_factory=list)
    """Files that were left out: they had been read under another name."""
    failures: list[str] = field(default_factory=list)
    failure_count: int = 0
    notes: list[str] = field(default_factory=list)
    senders: Counter[str] = field(default_factory=Counter)
    look_alikes: Counter[str] = field(default_factory=Counter)
    """Ignored mails with something of ours, by what they lacked."""
    taken: int = 0
    """Bytes read of the files themselves."""

    @property
    def read(self) -> int:
        """How many items have their outcome."""
        return sum(self.outcomes.values())

    def add_gap(self, place: str, offset: int, length: int, reason: str) -> None:
        """Note bytes that are neither mail nor separator."""
        self.gap_bytes += length
        self.gap_count += 1
        if len(self.gaps) < MOST_LISTED:
            self.gaps.append(Remark(place, offset, reason, length))

    def add_overruled(self, place: str) -> None:
        """Note a mailbox that was read as one mail."""
        if len(self.overruled) < MOST_LISTED:
            self.overruled.append(Remark(place, 0, "a mailbox, but --format eml made one mail of it"))

    def add_known(self, place: str) -> None:
        """Note a file that was read under another name already."""
        if len(self.known) < MOST_LISTED:
            self.known.append(
                Remark(place, 0, "the same file as one that was read, by a link or a second name")
            )

    def add_failure(self, reason: str) -> None:
        """Note what could not be read, and why."""
        self.failure_count += 1
        if len(self.failures) < MOST_LISTED:
            self.failures.append(reason)

    def add_quarantined(self, place: str, offset: int, reason: str) -> None:
        """Note a mail of ours that could not be read."""
        if len(self.quarantined) < MOST_LISTED:
            self.quarantined.append(Remark(place, offset, near_miss_in_words(reason)))
