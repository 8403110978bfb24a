"""How much of anything the server takes from a client before it says no."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds against slow, greedy and broken clients. Seconds are monotonic.

    `request_seconds` runs from the first byte of a request (or the connection) to its last one, so that no
    drip of bytes prolongs it.
    """

    connections: int = 512
    header_bytes: int = 16384
    header_fields: int = 100
    request_seconds: float = 10.0
    idle_seconds: float = 75.0
    linger_seconds: float = 2.0
    pipelined: int = 16
