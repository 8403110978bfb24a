"""What the archive says, by the SQL that everybody may use."""

from sqlalchemy import text

from ingestor.archive.engine import open_engine, reading

Sms = tuple[str, str, str, str]


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    """Return the rows of `query`; none while the archive is not there yet."""
    engine = open_engine(url, read_only=True)
    try:
        with reading(engine) as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        engine.dispose()


def stored(url: str) -> list[Sms]:
    """Return originator, destination, date_time and text of every SMS, sorted."""
    query = "SELECT originator, destination, date_time, text FROM inbound_sms"
    return sorted((str(a), str(b), str(c), str(d)) for a, b, c, d in rows(url, query))


def read_so_far(url: str) -> int:
    """Return how many mails all runs together have read."""
    [[count]] = rows(url, "SELECT coalesce(sum(read), 0) FROM runs")
    return int(str(count))
