"""How much of anything the listener takes before it says no."""

from dataclasses import dataclass

from ingestor.http import Bounds


@dataclass(frozen=True, slots=True)
class Limits(Bounds):
    """Bounds of the server, and how long a POST may take to become durable.

    `writer_seconds` is how long the database may take before a POST goes to the spool, `answer_seconds` when
    even that has not helped: Agile gives up after 30 s.
    """

    writer_seconds: float = 5.0
    answer_seconds: float = 20.0
    in_flight: int = 1024
    in_flight_bytes: int = 64 * 1024 * 1024
