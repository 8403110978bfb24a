"""How the daemon is watched: [metrics] for who asks, [watch] for whom it tells."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from ingestor.providers.contract import Section
from ingestor.settings import values
from ingestor.settings.values import Credential, FilePath


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


class Watch(Section):
    """Whom the daemon tells how it is, by itself; nothing of it is ever in the way of an SMS."""

    optional = True

    ping_credential: Credential | None = Field(
        default=None, examples=["ping-url"],
        description="A systemd credential that holds the ping URL of a dead-man switch (healthchecks.io and "
        "its kin): called at most once a minute, after every mailbox and the listener have finished a cycle, "
        "with /fail behind it when a source is overdue. Who has the URL can silence the alarm: a secret.",
    )  # fmt: skip
    ping_file: FilePath | None = Field(
        default=None, examples=["/etc/ingestor/ping-url"], description="The same from a file."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ping_credential is not None and self.ping_file is not None:
            raise ValueError("has ping_credential and ping_file; keep one")
        return self
