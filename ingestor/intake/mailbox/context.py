"""What every step of a mailbox's work knows: its settings, the provider's reader, the archive."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Engine

from ingestor.archive.entries import Action
from ingestor.providers.contract import NotOurs, Reading, Rules, Unreadable
from ingestor.settings import Mailbox

ACTIONS: Final = {"keep": None, "seen": Action.SEEN, "move": Action.MOVE, "delete": Action.DELETE}


class Reader(Protocol):
    """The provider module that tells our mails and reads them (`providers.mail_reader`)."""

    def may_be_ours(self, header: bytes, rules: Rules) -> bool:
        """Say from header lines alone whether the whole mail must be read."""

    def is_ours(self, header: bytes, rules: Rules) -> bool:
        """Say from header lines alone whether the mail is ours beyond doubt."""

    def read_mail(self, raw: bytes, rules: Rules) -> Reading:
        """Return what the whole mail means."""

    def oversized(self, raw_head: bytes, size: int, kept: int, rules: Rules) -> Unreadable | NotOurs:
        """Return the verdict on a mail too large to be parsed."""


@dataclass(frozen=True, slots=True)
class Context:
    """One mailbox and what it works with. `clock` gives aware UTC."""

    mailbox: Mailbox
    rules: Rules
    reader: Reader
    engine: Engine
    run_id: int | None
    clock: Callable[[], datetime]

    @property
    def after_store(self) -> Action | None:
        return ACTIONS[self.mailbox.after_store]


Place = tuple[str, int, int]
"""Folder, UIDVALIDITY and UID of a mail."""


@dataclass(slots=True)
class Suspects:
    """Mails during whose fetch the connection broke, and how often; remembered over connections.

    One mail that a server cannot send must not hold up the others for ever: after a break the same mails are
    fetched in smaller groups, then one by one, and the one that breaks it again is put off into `pending`.
    """

    group_sizes: Sequence[int] = (750, 25, 1)
    breaks: dict[Place, int] = field(default_factory=dict)

    def of(self, place: Place) -> int:
        return self.breaks.get(place, 0)

    def put_off(self, place: Place) -> bool:
        """Whether the mail has broken even a connection of its own."""
        return self.of(place) >= len(self.group_sizes)

    def broke(self, places: Iterable[Place]) -> None:
        """Remember that the connection broke while `places` were fetched together."""
        for place in places:
            self.breaks[place] = self.of(place) + 1

    def passed(self, places: Iterable[Place]) -> None:
        """Remember that `places` have been fetched after all."""
        if self.breaks:
            for place in places:
                self.breaks.pop(place, None)

    def size_for(self, place: Place) -> int:
        """Return the largest group this mail may be fetched in."""
        return self.group_sizes[min(self.of(place), len(self.group_sizes) - 1)]


class Memory:
    """What a mailbox remembers over its connections; nothing that a crash may not take."""

    def __init__(self) -> None:
        self.suspects = Suspects()
        self.complained: set[tuple[str, Action]] = set()
        self.missing: dict[str, str] = {}
        """Why a configured folder is not read now, by its name."""
        self.weak_told = False
        self.useless_search: set[str] = set()
        """Folders of which it was said that searching them finds nothing."""
        self.dictionary: tuple[int, bytes] | None = None
        """What payloads are packed with, once the archive has been asked."""


def grouped(weighted: Iterable[tuple[int, int, int]], largest_weight: int) -> Iterator[list[int]]:
    """Yield UIDs in groups; each comes with its weight and the largest group it may be part of."""
    group: list[int] = []
    total = 0
    room = 0
    for uid, weight, size in weighted:
        if group and (total + weight > largest_weight or len(group) >= min(room, size)):
            yield group
            group, total, room = [], 0, size
        group.append(uid)
        total += weight
        room = min(room or size, size)
    if group:
        yield group
