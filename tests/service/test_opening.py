"""Waiting for the archive: patient, interruptible, and honest about what cannot be waited for."""

import threading

import pytest

from ingestor.errors import ArchiveUnavailable, SchemaMismatch
from ingestor.service.opening import patiently


def test_it_tries_until_the_archive_is_there() -> None:
    """Each failed try is told with the time that the next one may take."""
    failures = iter([ArchiveUnavailable("no route"), ArchiveUnavailable("starting up")])
    told: list[tuple[str, float]] = []

    def attempt() -> str:
        for failure in failures:
            raise failure
        return "open"

    def tell(reason: str, seconds: float) -> None:
        told.append((reason, seconds))

    answer = patiently(attempt, stop_wished=lambda _: False, tell=tell)

    assert answer == "open"
    assert [reason for reason, _ in told] == [
        "waiting for the archive: no route",
        "waiting for the archive: starting up",
    ]
    assert all(seconds > 20 for _, seconds in told)


def test_what_only_a_person_can_mend_is_not_waited_for() -> None:
    """A schema that is not for this program comes straight through."""

    def attempt() -> None:
        raise SchemaMismatch("too new")

    with pytest.raises(SchemaMismatch, match="too new"):
        patiently(attempt, stop_wished=lambda _: False, tell=lambda *_: None)


def test_a_try_that_hangs_is_abandoned_on_stop() -> None:
    """A connection that never answers does not keep a stopped daemon."""
    hang = threading.Event()
    tried = threading.Event()

    def attempt() -> None:
        tried.set()
        hang.wait(60)

    assert patiently(attempt, stop_wished=lambda _: tried.is_set(), tell=lambda *_: None) is None
    hang.set()
