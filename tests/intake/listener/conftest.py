"""Listeners that end with the test that asked for them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.intake.listener.stand import Stand
from tests.waiting import until

MakeStand = Callable[..., Stand]


@pytest.fixture
def make_stand(tmp_path: Path) -> Iterator[MakeStand]:
    """Start listeners with a writer at hand, or on a given engine."""
    stands: list[Stand] = []

    def make(engine: Engine | None = None, *, folder: Path = tmp_path, **options: Any) -> Stand:
        stands.append(Stand(folder, engine, **options))
        return stands[-1]

    yield make
    for stand in stands:
        stand.stop()


@pytest.fixture
def stand(make_stand: MakeStand) -> Stand:
    """A listener whose writer is at hand."""
    return make_stand()


@pytest.fixture
def archived(make_stand: MakeStand, archive_engine: Engine) -> Stand:
    """A listener on a real archive, once on each database."""
    return make_stand(archive_engine)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until something is so; fail when it is not within half a minute, or the seconds given."""
    return until
