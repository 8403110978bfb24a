"""What every step of a mailbox's work knows: its settings, the provider's reader, the archive."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Engine

from ingestor.archive.items import Action
from ingestor.intake.mailbox.lease import Lease
from ingestor.intake.mailbox.near_misses import NearMisses
from ingestor.providers.contract import NotOurs, Reading, Rules, Unreadable
from ingestor.settings import Mailbox

ACTIONS: Final = {"keep": None, "seen": Action.SEEN, "move": Action.MOVE, "delete": Action.DELETE}


class Reader(Protocol):
    """The provider module that tells our mails and reads them (`providers.mail_reader`)."""

    PARSER: str

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

    @property
    def account(self) -> str:
        """The mailbox's login and server, in one spelling: the standard ports and a last dot say nothing."""
        mailbox = self.mailbox
        host = mailbox.host.rstrip(".").casefold()
        with contextlib.suppress(UnicodeError):
            host = host.encode("idna").decode()
        port = "" if mailbox.port in {143, 993} else f":{mailbox.port}"
        return f"{mailbox.username}@{host}{port}"


Place = tuple[str, int, int]
"""Folder, UIDVALIDITY and UID of a mail."""


HANGS_UP: Final = "the connection breaks when it is fetched"
NO_MEMORY: Final = "there is not enough memory to fetch it"
UNWRITABLE: Final = "the archive cannot write it"
LONGEST_STREAK: Final = 50


@dataclass(slots=True)
class Suspects:
    """Mails during whose fetch the connection broke, and how often; remembered over connections.

    One mail that a server cannot send must not hold up the others: after a break the same mails are fetched
    in smaller groups, then one by one, and the one that breaks it again is put off into `pending`.
    """

    group_sizes: Sequence[int] = (750, 25, 1)
    breaks: dict[Place, int] = field(default_factory=dict)
    reasons: dict[Place, str] = field(default_factory=dict)
    narrowed: int = 0
    """How often a break has told something: it is progress as long as this grows, and it cannot for ever."""
    streak: int = 0
    """Breaks since a mail came."""

    def of(self, place: Place) -> int:
        return self.breaks.get(place, 0)

    def put_off(self, place: Place) -> bool:
        """Whether the mail has broken even a connection of its own."""
        return self.of(place) >= len(self.group_sizes)

    def broke(self, places: Sequence[Place], reason: str) -> None:
        """Remember that `places` could not be fetched together."""
        for place in places:
            self.reasons[place] = reason
            self.breaks[place] = self.of(place) + 1
        self.streak += 1
        # Where nothing comes at all it is not these mails: then it is a failure like any other.
        self.narrowed += self.streak <= LONGEST_STREAK

    def recall(self, places: Iterable[Place]) -> None:
        """Learn from `pending` what breaks connections."""
        for place in places:
            self.breaks[place] = len(self.group_sizes)

    def passed(self, places: Iterable[Place]) -> None:
        """Remember that `places` have been fetched after all."""
        self.streak = 0
        if self.breaks:
            for place in places:
                if not self.reasons.get(place, "").startswith(UNWRITABLE):  # that shows later
                    self.breaks.pop(place, None)
                    self.reasons.pop(place, None)

    def size_for(self, place: Place) -> int:
        """Return the largest group this mail may be fetched in."""
        return self.group_sizes[min(self.of(place), len(self.group_sizes) - 1)]


class Memory:
    """What a mailbox remembers over its connections; nothing that a crash may not take."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.waiting = 0
        """How much was to be done on the server when it was last counted."""
        self.suspects = Suspects()
        self.complained: set[tuple[str, Action]] = set()
        self.missing: dict[str, str] = {}
        """Why a configured folder is not read now, by its name."""
        self.weak_told = False
        self.move_refused_told = False
        self.idle_again_at = 0.0
        """Monotonic time before which IDLE is left alone."""
        self.rescanned: dict[str, tuple[int, int]] = {}
        """UIDVALIDITY of a folder, and up to which UID a rescan has handed it over."""
        self.put_off_told: set[str] = set()
        """Folders of which it was said that mails in them cannot be fetched."""
        self.near_misses = NearMisses()
        self.useless_search: set[str] = set()
        """Folders of which it was said that searching them finds nothing."""
        self.unkept: set[str] = set()
        """Folders that are opened read-write, because the server forgets their numbers otherwise."""
        self.archive_key = b""
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
