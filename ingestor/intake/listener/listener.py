"""The listener: the gate, the reception and the spool on one HTTP server, run by the daemon."""

import socket
import time
import typing
from collections.abc import Callable, Iterable
from pathlib import Path

from ingestor.errors import ConfigurationError
from ingestor.http import RefusalLog
from ingestor.intake.listener.gate import Gate
from ingestor.intake.listener.posts import PostsRead, RulesByProvider, Taker
from ingestor.intake.listener.reception import Limits, Reception
from ingestor.intake.listener.replay import Keeper
from ingestor.logs import get_logger
from ingestor.settings import Endpoint, Webhook, endpoint_passwords

if typing.TYPE_CHECKING:
    from ingestor.http.server import HttpServer

_log = get_logger(__name__)


class Listener:
    """Receives the providers' POSTs and answers each once it is durable. Stop it before the writer.

    `rules` are by provider; `spool_directory` is made where it is missing; `passwords` gives the Basic
    passwords of an endpoint. `posts` counts what came, `keeper` has the spool.
    """

    def __init__(
        self,
        webhook: Webhook,
        rules: RulesByProvider,
        writer: Taker,
        spool_directory: Path,
        *,
        passwords: Callable[[Endpoint], Iterable[str]] = endpoint_passwords,
        limits: Limits | None = None,
    ) -> None:
        self._webhook = webhook
        self._passwords = passwords
        self._limits = limits or Limits()
        self.posts = PostsRead(name for name, _ in webhook.named)
        self.keeper = Keeper(spool_directory, writer, rules, self.posts, keeps=webhook.spool_first)
        self._refusals = RefusalLog()
        self._reception = Reception(
            writer, self.keeper, rules, self._limits, self._refusals, self.posts,
            spool_first=webhook.spool_first,
        )  # fmt: skip
        self._server: HttpServer | None = None
        self._sockets: list[socket.socket] = []
        self._address: tuple[str, int] = webhook.host, webhook.port

    @property
    def address(self) -> tuple[str, int]:
        """The address and port it listens on; where the configured port is 0, once started."""
        return self._address

    @property
    def progress(self) -> float:
        """Monotonic time of the last finished round over all connections and late requests."""
        return self._server.progress if self._server else 0.0

    @property
    def refused(self) -> dict[str, int]:
        """How many requests were refused since the start, by kind."""
        return dict(self._refusals.counts)

    def start(self) -> None:
        """Bind, prove the spool, start serving. Raises ConfigurationError with one line for the admin."""
        webhook = self._webhook
        # Imported only where there is a [webhook] to serve: it is an extra.
        try:
            from ingestor.http.server import HttpServer, bound, handed_over
            from ingestor.http.tls import Certificate
        except ModuleNotFoundError:
            raise ConfigurationError(
                "[webhook] needs a server that is not installed: pip install 'agile-sms-ingestor[webhook]'"
            ) from None
        gate = Gate(webhook, self._passwords)
        certificate = None
        if webhook.tls_certificate is not None and webhook.tls_key is not None:
            certificate = Certificate(webhook.tls_certificate, webhook.tls_key)
        kept = handed_over("webhook")
        self._sockets = kept or bound(webhook.host, webhook.port, "webhook.listen")
        self._address = self._sockets[0].getsockname()[:2]
        self._server = HttpServer(
            self._reception, gate, self._sockets, name="webhook", max_body=webhook.max_body_bytes,
            bounds=self._limits, refusal_log=self._refusals, certificate=certificate,
        )  # fmt: skip
        try:
            self.keeper.start()
            self._server.start()
        except BaseException:
            self.keeper.stop(1.0)
            self._release()
            raise
        host, port = self.address
        _log.info(
            "webhook listening", address=host, port=port, tls=certificate is not None,
            endpoints=len(webhook.endpoint), kept_by_systemd=bool(kept),
        )  # fmt: skip

    def reload(self, rules: RulesByProvider) -> None:
        """Read from now on by new `rules` (numbers, time zone); replays too."""
        self.keeper.rules = self._reception.rules = rules

    def stop(self, timeout: float = 10.0) -> bool:
        """Refuse what is new, answer what was accepted, end; say whether all of it was done in time."""
        until = time.monotonic() + timeout
        ended = True
        if self._server is not None:
            ended = self._server.stop(timeout)
            ended = self.keeper.stop(max(0.1, until - time.monotonic())) and ended
            self.posts.end()
        self._release()
        return ended

    def _release(self) -> None:
        for listening in self._sockets:
            listening.close()
