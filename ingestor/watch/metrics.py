"""/metrics, /healthz and /readyz on a loopback port of their own, beside the listener of [webhook].

Everything is read from the daemon's parts as it is asked for. Labels are names of the configuration, states,
outcomes and kinds: never a number, a text or a path.
"""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ingestor import __version__
from ingestor.errors import ConfigurationError
from ingestor.http import Bounds, Headers, Refusal, RefusalLog
from ingestor.http.server import HttpServer, bound
from ingestor.http.tls import validity
from ingestor.intake.listener import gate
from ingestor.logs import get_logger
from ingestor.redaction import redact
from ingestor.settings import state_directory
from ingestor.settings.watch import Metrics
from ingestor.watch.found import Live, room

log = get_logger(__name__)

_READ: Final = frozenset({"watching", "polling"})
_STARTED: Final = time.time()
_PLAIN: Final = "text/plain; charset=utf-8"


class Pages:
    """The ASGI application, and its own gatekeeper: whoever is on this machine may ask.

    It makes the metrics of `live` as they are asked for: `prometheus_client` calls `collect`.
    """

    busy = False

    def __init__(self, live: Live) -> None:
        self._live = live
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        about = GaugeMetricFamily("ingestor_info", "The running version.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        yield GaugeMetricFamily("ingestor_start_time_seconds", "When the daemon started.", value=_STARTED)
        yield from self._sources()
        yield from self._listener()
        yield from self._archive()
        yield from self._disks()
        if (credit := self._live.credit()) is not None:
            yield GaugeMetricFamily(
                "ingestor_agile_credit_euros", "What is left of the account at Agile.", value=float(credit)
            )

    def _sources(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "ingestor_mailbox_up", "1 while the mailbox is read, 0 in any other state.",
            labels=["mailbox", "state"],
        )  # fmt: skip
        success = GaugeMetricFamily(
            "ingestor_mailbox_last_success_timestamp_seconds", "When all its folders were last read.",
            labels=["mailbox"],
        )  # fmt: skip
        items = CounterMetricFamily(
            "ingestor_items", "Mails and POSTs since the start, by how each ended.",
            labels=["channel", "source", "outcome"],
        )  # fmt: skip
        newest = GaugeMetricFamily(
            "ingestor_endpoint_last_post_timestamp_seconds", "When the newest POST came.", labels=["endpoint"]
        )
        for one in self._live.mailboxes():
            name = redact(one.name)
            up.add_metric([name, one.state], int(one.state in _READ))
            if one.last_success is not None:
                success.add_metric([name], one.last_success.timestamp())
            for outcome, count in one.outcomes.items():
                items.add_metric(["mailbox", name, str(outcome)], count)
        for name, counts in (self._live.listener.posts.by_endpoint if self._live.listener else {}).items():
            for ended, count in counts.outcomes.items():
                items.add_metric(["webhook", name, str(ended)], count)
            if counts.newest is not None:
                newest.add_metric([name], counts.newest.timestamp())
        secrets = GaugeMetricFamily(
            "ingestor_secret_expiry_timestamp_seconds", "When a mailbox's client secret ends.",
            labels=["mailbox"],
        )  # fmt: skip
        for box in self._live.settings.mailbox:
            if box.oauth is not None and box.oauth.secret_ends is not None:
                day = datetime.combine(box.oauth.secret_ends, datetime.min.time(), UTC)
                secrets.add_metric([redact(box.name)], day.timestamp())
        yield from (up, success, items, newest, secrets)

    def _listener(self) -> Iterator[Metric]:
        listener, webhook = self._live.listener, self._live.settings.webhook
        if listener is None or webhook is None:
            return
        refused = CounterMetricFamily(
            "ingestor_requests_refused", "Requests that were refused since the start.", labels=["reason"]
        )
        for kind, count in listener.refused.items():
            refused.add_metric([kind], count)
        yield refused
        yield CounterMetricFamily(
            "ingestor_posts_accepted",
            "POSTs answered as accepted since the start.",
            value=listener.posts.accepted,
        )
        yield GaugeMetricFamily(
            "ingestor_spool_posts",
            "Acknowledged POSTs that wait for the archive.",
            value=listener.keeper.depth,
        )
        yield GaugeMetricFamily(
            "ingestor_spool_writable", "1 while a POST can be kept in the spool.",
            value=int(self._live.spool_trouble() is None),
        )  # fmt: skip
        if webhook.tls_certificate is not None:
            try:
                ends = validity(webhook.tls_certificate).ends.timestamp()
            except ConfigurationError:
                ends = 0
            yield GaugeMetricFamily(
                "ingestor_certificate_expiry_timestamp_seconds", "When the webhook's certificate ends.",
                value=ends,
            )  # fmt: skip

    def _archive(self) -> Iterator[Metric]:
        live = self._live
        yield GaugeMetricFamily(
            "ingestor_archive_writable", "1 while the archive takes writes, as far as is known.",
            value=int(live.archive_trouble() is None),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "ingestor_archive_differs", "1 while somebody's hand is seen in the archive (`ingestor check`).",
            value=int(live.differs is not None),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "ingestor_writer_queued", "Submissions that are not committed yet.",
            value=live.writer.queued if live.writer else 0,
        )  # fmt: skip
        hanging = GaugeMetricFamily(
            "ingestor_part_hanging", "1 for each part that finishes no cycle.", labels=["part"]
        )
        for part in live.hanging():
            hanging.add_metric([redact(part)], 1)
        yield hanging
        file = live.settings.database.file
        if file is not None and file.exists():
            yield GaugeMetricFamily(
                "ingestor_archive_file_bytes", "Size of the SQLite file.", value=file.stat().st_size
            )

    def _disks(self) -> Iterator[Metric]:
        free = GaugeMetricFamily("ingestor_disk_free_bytes", "Bytes free for the service.", labels=["what"])
        file = self._live.settings.database.file
        folders = {"archive": file.absolute().parent} if file is not None else {}
        for what, folder in {**folders, "state": state_directory(self._live.settings)}.items():
            device, left = room(folder)
            if device is not None:
                free.add_metric([what], left)
        yield free

    def peer(self, address: str, *, encrypted: bool) -> str:  # noqa: ARG002 - a Gatekeeper is asked like this
        """Return the address: nothing else counts."""
        return address

    def judge(self, method: bytes, target: bytes, headers: Headers, peer: str) -> str | Refusal:  # noqa: ARG002 - a gate's signature
        """Let reading in, of whatever path."""
        return target.decode("latin-1") if method in {b"GET", b"HEAD"} else gate.WRONG_METHOD

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Need nothing of the loop."""

    def look_after(self) -> None:
        """Have nothing that is due."""

    def hurry(self, seconds: float) -> None:
        """Wait for nothing."""

    def client_of(self, headers: Headers, peer: str) -> str:  # noqa: ARG002 - as above
        """Return the address to name in the log."""
        return peer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - ASGI
        """Answer one request."""
        status, kind, body = self.answer(scope["state"]["admission"])
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body. /healthz: whether every part finishes its cycles; /readyz:
        whether what comes can be made durable.
        """
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/healthz":
            wrong = ", ".join(self._live.hanging())
            wrong = f"hanging: {redact(wrong)}" if wrong else ""
        elif path == "/readyz":
            wrong = redact(self._live.not_ready() or "")
        else:
            return 404, _PLAIN, b"there are /metrics, /healthz and /readyz\n"
        return (503, _PLAIN, f"{wrong}\n".encode()) if wrong else (200, _PLAIN, b"ok\n")


def serve(settings: Metrics, live: Live) -> HttpServer:
    """Start the pages of `live` and return their server; stop it. Raises ConfigurationError."""
    pages = Pages(live)
    sockets = bound(settings.host, settings.port, "metrics.listen")
    server = HttpServer(
        pages, pages, sockets, name="metrics", max_body=1024, bounds=Bounds(connections=32),
        refusal_log=RefusalLog(server="metrics"),
    )  # fmt: skip
    host, port = sockets[0].getsockname()[:2]
    server.start()
    log.info("metrics listening", address=host, port=port)
    return server
