"""Refusals in the log: one line a minute for each kind, however many there were."""

import time
from collections.abc import Callable
from http import HTTPStatus

import structlog

from ingestor.intake.listener.gate import Refusal

_log = structlog.get_logger()
_SECONDS_BETWEEN = 60.0
_WARNINGS = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED})


class RefusalLog:
    """Counts refusals by kind and says so at most once a minute: the first at once, those after it together.

    No line holds the path asked for.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}
        self._newest: dict[str, tuple[Refusal, str]] = {}
        self.counts: dict[str, int] = {}

    def note(self, refusal: Refusal, peer: str) -> None:
        """Count one `refusal` of a request from `peer`."""
        kind = refusal.kind
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
        self._newest[kind] = (refusal, peer)
        if self._clock() >= self._last.get(kind, -_SECONDS_BETWEEN) + _SECONDS_BETWEEN:
            self._say(kind)

    def tick(self) -> None:
        """Say what has been counted for a minute since the last line of its kind."""
        now = self._clock()
        for kind in [one for one in self._unsaid if now >= self._last[one] + _SECONDS_BETWEEN]:
            self._say(kind)

    def end(self) -> None:
        """Say what has not been said yet: the listener ends."""
        for kind in list(self._unsaid):
            self._say(kind)

    def _say(self, kind: str) -> None:
        refusal, peer = self._newest[kind]
        self._last[kind] = self._clock()
        say = _log.warning if refusal.status in _WARNINGS else _log.info
        say(
            "webhook request refused",
            kind=kind,
            status=int(refusal.status),
            peer=peer,
            count=self._unsaid.pop(kind),
        )
