"""What a mailbox keeps of strangers' mails that look like ours: so many a day, for the disk's sake."""

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime
from typing import Final

import structlog
from sqlalchemy import Engine

from ingestor.archive.items import Item
from ingestor.archive.queries import near_misses_since
from ingestor.providers.contract import NEAR_MISSES, NotOurs, Unreadable

MOST_A_DAY: Final = 1000
"""Near misses a mailbox keeps in a day of UTC; those beyond are counted among the ignored."""

log = structlog.get_logger()


class NearMisses:
    """Sorts what was fetched. What is full it remembers over connections; the count is the archive's."""

    def __init__(self) -> None:
        self._full: date | None = None

    def sort(
        self, found: Iterable[Item | NotOurs], engine: Engine, mailbox: str, now: datetime
    ) -> tuple[tuple[Item, ...], int, Counter[str]]:
        """Return the items to be kept, how many mails are ignored, and what the look-alikes among them lack.

        `now` is aware UTC. What was handed over before must be committed.
        """
        kept: list[Item] = []
        ignored = 0
        look_alikes: Counter[str] = Counter()
        room: int | None = None
        for one in found:
            if isinstance(one, NotOurs):
                ignored += 1
                if one.missing is not None:
                    look_alikes[one.missing] += 1
                continue
            if is_near_miss(one):
                if room is None:
                    room = self._room(engine, mailbox, now)
                if room <= 0:
                    self._say_full(mailbox, now)
                    ignored += 1
                    look_alikes["sender"] += 1
                    continue
                room -= 1
            kept.append(one)
        return tuple(kept), ignored, look_alikes

    def _room(self, engine: Engine, mailbox: str, now: datetime) -> int:
        if self._full == now.date():
            return 0
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return MOST_A_DAY - near_misses_since(engine, mailbox, midnight)

    def _say_full(self, mailbox: str, now: datetime) -> None:
        if self._full != now.date():
            self._full = now.date()
            log.warning(
                "more mails of strangers look like SMS than are kept in a day; the rest is only counted",
                mailbox=mailbox, kept=MOST_A_DAY, see="ingestor quarantine list",
                fix="add the sender to [agile] senders, then: ingestor rescan",
            )  # fmt: skip


def is_near_miss(item: Item) -> bool:
    """Say whether `item` is a mail of a stranger."""
    return isinstance(item.reading, Unreadable) and item.reading.reason in NEAR_MISSES
