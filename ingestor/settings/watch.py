"""How the daemon is watched: [metrics] for who asks."""

from typing import Annotated

from pydantic import AfterValidator, Field

from ingestor.providers.contract import Section
from ingestor.settings import values


def _loopback(written: str) -> str:
    listen = values.listen_address(written)
    if not values.is_loopback(values.split_listen(listen)[0]):
        raise ValueError(
            "must be an address of this machine alone, like 127.0.0.1:9469; what asks from elsewhere comes "
            "through an agent or a proxy on this machine"
        )
    return listen


class Metrics(Section):
    """/metrics for Prometheus, /healthz and /readyz, on a port of their own; without this section none of it.

    No number and no text is in it, and nothing asks the database.
    """

    active = frozenset({"listen"})
    optional = True

    listen: Annotated[str, AfterValidator(_loopback)] = Field(
        default="127.0.0.1:9469", description="ADDRESS:PORT to listen on: a loopback address."
    )

    @property
    def host(self) -> str:
        """The address to listen on, without brackets."""
        return values.split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        """The port to listen on (0: any free one)."""
        return values.split_listen(self.listen)[1]
