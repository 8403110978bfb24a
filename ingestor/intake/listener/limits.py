"""How much of anything the listener takes before it says no."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds against slow, greedy and broken clients. Seconds are monotonic.

    `request_seconds` runs from the first byte of a request (or the connection) to its last one, so that no
    drip of bytes prolongs it. `writer_seconds` is how long the database may take before a POST goes to the
    spool, `answer_seconds` when even that has not helped: Agile gives up after 30 s.
    """

    connections: int = 512
    header_bytes: int = 16384
    header_fields: int = 100
    request_seconds: float = 10.0
    idle_seconds: float = 75.0
    linger_seconds: float = 2.0
    writer_seconds: float = 5.0
    answer_seconds: float = 20.0
    in_flight: int = 1024
    in_flight_bytes: int = 64 * 1024 * 1024
    pipelined: int = 16
