"""IP1: inbound SMS by webhook."""

from ingestor.providers.contract import PluslessNumber, PluslessSection, none_of


class Ip1(PluslessSection):
    """IP1 (webhook only)."""

    numbers: tuple[PluslessNumber, ...] = none_of(
        ["+46700000000"], "Our own numbers there; empty accepts every one."
    )


SECTION = Ip1
