"""Infobip: inbound SMS by webhook."""

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from ingestor.numbers import normalise_plusless
from ingestor.providers.contract import ProviderSection, Rules, none_of, own_number


class Infobip(ProviderSection):
    """Infobip (webhook only)."""

    numbers: tuple[Annotated[str, AfterValidator(own_number(normalise_plusless))], ...] = none_of(
        ["+441134960000"], "Our own numbers there; empty accepts every one."
    )

    def rules(self) -> Rules:
        """Return what follows for the reader; its times carry their offset."""
        return Rules(ZoneInfo("UTC"), frozenset(self.numbers))


SECTION = Infobip
