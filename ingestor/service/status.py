"""The line that `systemctl status` shows: what this run did, and how the sources are."""

from sqlalchemy import Engine

from ingestor.archive.cursors import read_sources
from ingestor.archive.runs import Balance, balance
from ingestor.errors import IngestorError


class StatusLine:
    """Keeps the line. `refresh` asks the database, so it belongs into a thread that may wait."""

    def __init__(self, engine: Engine, run: int) -> None:
        """Tell about run `run`."""
        self._engine, self._run = engine, run
        self.text = "reading"

    def refresh(self) -> None:
        """Ask the archive again."""
        try:
            counts = balance(self._engine, self._run)
            sources = read_sources(self._engine)
        except IngestorError as error:
            self.text = str(error)
        else:
            states = "; ".join(f"{source.name}: {source.state}" for source in sources)
            self.text = f"{in_words(counts)}; {states}" if states else in_words(counts)


def in_words(counts: Balance) -> str:
    """Return the balance as a sum that adds up: 5 read = 3 stored + 1 duplicate + 1 ignored."""
    parts = (
        (counts.stored, "stored"),
        (counts.duplicate, "duplicate"),
        (counts.ignored, "ignored"),
        (counts.quarantined, "quarantined"),
        (counts.failed, "failed"),
    )
    return f"{counts.read} read = " + " + ".join(
        f"{count} {name}" for count, name in parts if count or name == "stored"
    )
