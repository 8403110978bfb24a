"""The listener: one thread with an event loop of its own, started and stopped by the daemon."""

import asyncio
import socket
import threading
import time
import typing
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from ingestor.errors import ConfigurationError
from ingestor.intake.listener.gate import Gate
from ingestor.intake.listener.keeper import Keeper
from ingestor.intake.listener.limits import Limits
from ingestor.intake.listener.received import RulesByProvider, Taker
from ingestor.intake.listener.refusals import RefusalLog
from ingestor.intake.listener.tls import Certificate
from ingestor.settings import Endpoint, Webhook, endpoint_passwords

if typing.TYPE_CHECKING:
    from ingestor.intake.listener.service import Service

_log = structlog.get_logger()

_BACKLOG = 1024


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Listener:
    """Receives the providers' POSTs and answers each once it is durable.

    `rules` are those of every provider by name; `writer` makes submissions durable; `spool_directory`
    (`spool` in the state directory) is made where it is missing; `passwords` gives the Basic passwords of an
    endpoint. Stop it before the writer.
    """

    def __init__(
        self,
        webhook: Webhook,
        rules: RulesByProvider,
        writer: Taker,
        spool_directory: Path,
        *,
        run_id: int | None = None,
        passwords: Callable[[Endpoint], Iterable[str]] = endpoint_passwords,
        limits: Limits | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._webhook = webhook
        self._rules = rules
        self._writer = writer
        self._run_id = run_id
        self._passwords = passwords
        self._limits = limits or Limits()
        self._now = now
        self._keeper = Keeper(spool_directory, writer, rules, run_id)
        self._refusals = RefusalLog()
        self._service: Service | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._sockets: list[socket.socket] = []
        self._address: tuple[str, int] = webhook.host, webhook.port
        self._failure: BaseException | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The address and port it listens on; where the configured port is 0, once started."""
        return self._address

    @property
    def progress(self) -> float:
        """Monotonic time of the last finished round over all connections and late requests."""
        return self._service.progress if self._service else 0.0

    @property
    def spool_depth(self) -> int:
        """How many POSTs wait in the spool for the database."""
        return self._keeper.depth

    @property
    def spool_trouble(self) -> str | None:
        """Why the spool takes no writes, or None."""
        return self._keeper.trouble

    @property
    def accepted(self) -> int:
        """How many POSTs were answered as accepted since the start."""
        return self._service.reception.accepted if self._service else 0

    @property
    def last_accepted(self) -> datetime | None:
        """When the newest accepted POST arrived (aware UTC)."""
        return self._service.reception.last_accepted if self._service else None

    @property
    def refused(self) -> dict[str, int]:
        """How many requests were refused since the start, by kind."""
        return dict(self._refusals.counts)

    def start(self) -> None:
        """Bind, prove the spool, start serving. Raises ConfigurationError with one line for the admin."""
        make_service = _service_class()
        gate = Gate(self._webhook, self._passwords)
        certificate = None
        if self._webhook.tls_certificate is not None and self._webhook.tls_key is not None:
            certificate = Certificate(self._webhook.tls_certificate, self._webhook.tls_key)
        self._sockets = _bound(self._webhook.host, self._webhook.port)
        self._address = self._sockets[0].getsockname()[:2]
        try:
            self._keeper.start()
        except ConfigurationError:
            self._release()
            raise
        self._thread = threading.Thread(
            target=self._serve, args=(make_service, gate, certificate), name="webhook", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._keeper.stop(1.0)
            self._release()
            raise self._failure
        host, port = self.address
        _log.info(
            "webhook listening", address=host, port=port, tls=certificate is not None,
            endpoints=len(self._webhook.endpoint),
        )  # fmt: skip

    def reload(self, rules: RulesByProvider) -> None:
        """Read from now on by new `rules` (numbers, time zone); replays too."""
        self._rules = self._keeper.rules = rules
        if self._service is not None:
            self._service.reception.rules = rules

    def stop(self, timeout: float = 10.0) -> bool:
        """Refuse what is new, answer what was accepted, end; say whether all of it was done in time."""
        until = time.monotonic() + timeout
        ended = True
        if self._thread is not None and self._service is not None:
            self._service.stop(max(0.0, timeout - 1.0))
            self._thread.join(timeout)
            ended = not self._thread.is_alive()
            ended = self._keeper.stop(max(0.1, until - time.monotonic())) and ended
        self._release()
        return ended

    def _serve(self, make_service: "type[Service]", gate: Gate, certificate: Certificate | None) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_event_loop) as runner:
                self._service = make_service(
                    gate, certificate, self._sockets, self._keeper, self._writer, self._rules, self._refusals,
                    runner.get_loop(), self._run_id, self._webhook.max_body_bytes, self._limits, self._now,
                )  # fmt: skip
                runner.run(self._service.run(self._ready.set))
        except BaseException as fault:
            self._failure = fault
            if self._ready.is_set():
                _log.exception("the webhook listener ended")
            raise
        finally:
            self._ready.set()

    def _release(self) -> None:
        for listening in self._sockets:
            listening.close()


def _service_class() -> "type[Service]":
    """Import what serves only where there is a [webhook] to serve: its parser is an extra."""
    try:
        from ingestor.intake.listener.service import Service
    except ModuleNotFoundError:
        raise ConfigurationError(
            "[webhook] needs a parser that is not installed: pip install 'agile-sms-ingestor[webhook]'"
        ) from None
    return Service


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop for the thread: uvloop's own share of a request is a quarter of the standard one's."""
    try:
        import uvloop
    except ModuleNotFoundError:  # it has no wheel everywhere
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _bound(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets on every address of `host`. Raises ConfigurationError."""
    listening: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            one = socket.socket(family, kind, protocol)
            listening.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setblocking(False)
            one.bind(address)
            one.listen(_BACKLOG)
    except OSError as fault:
        for one in listening:
            with suppress(OSError):
                one.close()
        raise ConfigurationError(
            f"webhook.listen {host}:{port} cannot be had ({fault.strerror}); give an address of this machine "
            f"and a port that nobody uses"
        ) from None
    return listening
