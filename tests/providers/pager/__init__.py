"""A provider that does not exist, as somebody would add it: `test_new_provider` puts it into the house."""

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from ingestor.numbers import normalise_plusless
from ingestor.providers.contract import ProviderSection, Rules, own_number


class Pager(ProviderSection):
    """Pager: what a provider of tomorrow may send."""

    numbers: tuple[Annotated[str, AfterValidator(own_number(normalise_plusless))], ...] = Field(
        default=(), examples=[["+44700900000"]], description="Our own numbers at Pager's."
    )

    def rules(self) -> Rules:
        """Return what follows for the readers."""
        return Rules(ZoneInfo("UTC"), frozenset(self.numbers))


SECTION = Pager
