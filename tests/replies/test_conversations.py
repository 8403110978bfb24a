"""The view `conversations`: both directions with a number, in order."""

from sqlalchemy import Engine, text

from ingestor.archive.engine import reading
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from tests.archive.samples import NOW
from tests.replies.given import OURS, SHE, said


def test_what_came_stands_in_order(archive_engine: Engine) -> None:
    """Each SMS is one row of its number, with its own time, whatever order they came in."""
    items = (said(1, "second", minutes=2), said(2, "first", minutes=1))
    Store(archive_engine).write([Submission(None, items)], NOW)

    with reading(archive_engine) as connection:
        rows = connection.execute(
            text("SELECT number, our_number, direction, state, text FROM conversations ORDER BY at")
        ).all()

    assert [tuple(row) for row in rows] == [
        (SHE, OURS, "in", "received", "first"),
        (SHE, OURS, "in", "received", "second"),
    ]
