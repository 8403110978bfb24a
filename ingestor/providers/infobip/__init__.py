"""Infobip: inbound SMS by webhook."""

from ingestor.providers.contract import PluslessNumber, PluslessSection, none_of


class Infobip(PluslessSection):
    """Infobip (webhook only)."""

    numbers: tuple[PluslessNumber, ...] = none_of(
        ["+441134960000"], "Our own numbers there; empty accepts every one."
    )


SECTION = Infobip
