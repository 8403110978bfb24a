"""Refusals in the log: one line a minute for each kind, however many there were."""

import time
from collections.abc import Callable
from http import HTTPStatus

import structlog

from ingestor.intake.listener.gate import Refusal
from ingestor.logs import OncePerMinute

_log = structlog.get_logger()
_WARNINGS = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED})


class RefusalLog:
    """Counts refusals by kind and says so at most once a minute.

    No line holds the path asked for.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: dict[str, int] = {}
        self._said = OncePerMinute(_say, clock)
        self.tick, self.end = self._said.tick, self._said.end

    def note(self, refusal: Refusal, peer: str) -> None:
        """Count one `refusal` of a request from `peer`."""
        self.counts[refusal.kind] = self.counts.get(refusal.kind, 0) + 1
        self._said.note(refusal.kind, (refusal, peer))


def _say(kind: str, newest: tuple[Refusal, str], count: int) -> None:
    refusal, peer = newest
    say = _log.warning if refusal.status in _WARNINGS else _log.info
    say("webhook request refused", kind=kind, status=int(refusal.status), peer=peer, count=count)
