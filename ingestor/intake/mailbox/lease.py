"""The right to act on a mailbox (flag, move, delete): one daemon at a time has it.

It keeps daemons on one mailbox out of each other's way, and is no promise's foundation: what is read and
stored is safe whoever has it.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import Engine

from ingestor.archive.leases import release_lease, take_lease
from ingestor.errors import IngestorError

SECONDS: Final = 20.0
"""How long it lasts without being renewed: with LOOK_SECONDS below the 30 s in which others take over."""

ENOUGH: Final = 12.0
"""What must be left of it before something is begun on the server."""

LOOK_SECONDS: Final = 4.0
"""Between two looks of one who waits: to renew it, or to take over."""

log = structlog.get_logger()


class Lease:
    """The lease of one mailbox; `holder` is asked who wants it. `clock` is monotonic."""

    def __init__(
        self,
        engine: Engine,
        mailbox: str,
        holder: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._holder = holder
        self._clock = clock
        self._until = 0.0
        self._told = False
        self._fault: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it has not run out yet."""
        return self._clock() < self._until

    def held(self) -> bool:
        """Renew the lease, or take it if nobody else has it; say whether it is ours."""
        now = self._clock()
        if self._until - now >= ENOUGH:
            return True
        self._until = 0.0
        try:
            if take_lease(self._engine, f"mailbox {self._mailbox}", self._holder(), SECONDS):
                self._until, self._told, self._fault = now + SECONDS, False, None
        except IngestorError as fault:
            if str(fault) != self._fault:
                self._fault = str(fault)
                log.warning("who acts on the mailbox cannot be settled now; nothing is done on the server",
                            mailbox=self._mailbox, reason=self._fault)  # fmt: skip
        return self._until > 0

    def stand_by(self, count: int) -> None:
        """Say, once, that somebody else has it, and that `count` things stay pending."""
        if not self._told and self._fault is None:
            self._told = True
            log.info(
                "another daemon acts on this mailbox; what is to be done on the server stays pending",
                mailbox=self._mailbox, count=count,
            )  # fmt: skip

    def release(self) -> None:
        """Give it back, if it is ours: others need not wait for its end."""
        if self._until:
            self._until = 0.0
            with contextlib.suppress(IngestorError):
                release_lease(self._engine, f"mailbox {self._mailbox}", self._holder())
