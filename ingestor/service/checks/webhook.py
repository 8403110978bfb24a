"""The listener: its port, its certificate, and its endpoints' passwords. Nothing is sent anywhere."""

import errno
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingestor.errors import ConfigurationError
from ingestor.http.tls import server_context, validity
from ingestor.intake.listener.gate import named
from ingestor.service.checks.findings import Finding, fail, ok, warn
from ingestor.settings import Webhook, endpoint_passwords

RENEW_BEFORE = timedelta(days=14)


def check(webhook: Webhook) -> Sequence[Finding]:
    """Return what is found about the listener of `webhook`."""
    return [port(webhook), *certificate(webhook, datetime.now(UTC)), *passwords(webhook)]


def port(webhook: Webhook) -> Finding:
    """Say whether its address and port can be listened on, by binding to it for a moment."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            webhook.host, webhook.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as listening:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"fine if that is the running daemon; else see: ss -ltnp 'sport = :{webhook.port}'"
            return warn("webhook", f"somebody listens on {webhook.listen} already", fix)
        if error.errno == errno.EACCES:
            fix = "use a port above 1023 behind a proxy, or grant CAP_NET_BIND_SERVICE"
            return fail("webhook", f"this user may not listen on {webhook.listen}", fix)
        fix = "give `listen` an address of this machine"
        return fail("webhook", f"{webhook.listen} cannot be listened on ({error.strerror})", fix)
    return ok("webhook", f"{webhook.listen} is free")


def certificate(webhook: Webhook, now: datetime) -> Iterator[Finding]:
    """Say whether the certificate fits its key, and for how long it is good."""
    if webhook.tls_certificate is None or webhook.tls_key is None:
        return
    try:
        server_context(webhook.tls_certificate, webhook.tls_key)
        good = validity(webhook.tls_certificate)
    except ConfigurationError as error:
        yield fail("webhook", str(error))
        return
    yield _dates(webhook.tls_certificate, good.begins, good.ends, now)


def _dates(chain: Path, begins: datetime, ends: datetime, now: datetime) -> Finding:
    if now < begins:
        return fail(
            "webhook", f"{chain} is not good before {begins:%Y-%m-%d %H:%M} UTC", "is the clock right?"
        )
    if now > ends:
        return fail("webhook", f"{chain} ended on {ends:%Y-%m-%d %H:%M} UTC", "renew the certificate")
    if now > ends - RENEW_BEFORE:
        return warn("webhook", f"{chain} ends on {ends:%Y-%m-%d}", "renew the certificate")
    return ok("webhook", f"{chain} is good until {ends:%Y-%m-%d}")


def passwords(webhook: Webhook) -> Iterator[Finding]:
    """Say whether every endpoint's Basic passwords can be read. How strong its path is, the cautions say."""
    for name, endpoint in named(webhook):
        try:
            endpoint_passwords(endpoint)
        except ConfigurationError as error:
            yield fail("webhook", f"endpoint {name}: {error}")
        else:
            yield ok("webhook", f"endpoint {name} is complete")
