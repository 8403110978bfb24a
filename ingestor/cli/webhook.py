"""`ingestor webhook test`: a delivery as a provider would make it, to the listener that is running."""

import argparse
import http.client
import logging
import ssl
import time
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address

from ingestor import logs
from ingestor.cli import verbs_of
from ingestor.cli.opening import settings_of
from ingestor.errors import ConfigurationError
from ingestor.http import tls
from ingestor.intake.listener.posts import reader
from ingestor.intake.listener.spool import depth
from ingestor.providers.posts import test_post
from ingestor.settings import Endpoint, Settings, Webhook, endpoint_passwords, state_directory
from ingestor.timestamps import iso_utc

EXAMPLES = """
ingestor webhook test
ingestor webhook test agile-1
sudo -u ingestor ingestor webhook test
"""

_SECONDS = 30.0  # as long as Agile waits
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to knock, not where to listen
_MEANS = {
    401: "the login was refused: has the listener been restarted since the passwords changed?",
    403: "refused: the listener takes this for plain HTTP from elsewhere, or for a network not in allow_from",
    404: "no such path: the listener runs with another configuration; restart the daemon",
    405: "the listener runs with another configuration; restart the daemon",
    413: "the sample is larger than max_body_bytes",
    503: "neither the database nor the spool takes it, or the listener has too much to do; see its log",
}

_CERTIFICATE_HAS_EXPIRED = 10  # OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verb = verbs_of(parser, EXAMPLES)
    test = add_verb("test", "post a sample for a number nobody has; it ends in the quarantine", _test)
    test.add_argument(
        "endpoint", nargs="?", metavar="ENDPOINT",
        help="a provider, or one of its endpoints by place (agile-1); default: every endpoint",
    )  # fmt: skip


def _test(arguments: argparse.Namespace) -> int:
    """Try the endpoints asked for; return 0 when each sample arrived, else 1."""
    logs.configure(arguments.log_format, level=logging.CRITICAL)
    settings = settings_of(arguments)
    if settings.webhook is None:
        raise ConfigurationError(
            "there is no [webhook] in the configuration; `ingestor config new-endpoint PROVIDER` prints one"
        )
    results = [
        _try(settings, settings.webhook, name, endpoint)
        for name, endpoint in _wanted(settings.webhook, arguments.endpoint)
    ]
    return 0 if all(results) else 1


def _wanted(webhook: Webhook, asked: str | None) -> list[tuple[str, Endpoint]]:
    known = webhook.named
    wanted = [(name, one) for name, one in known if asked in {None, name, one.provider}]
    if not wanted:
        names = ", ".join(name for name, _ in known)
        raise ConfigurationError(f"there is no endpoint called {asked!r}; there are: {names}")
    return wanted


def _try(settings: Settings, webhook: Webhook, name: str, endpoint: Endpoint) -> bool:
    print(f"{name} (listening on {webhook.listen})")
    try:
        delivered = _try_endpoint(webhook, endpoint)
    except _Failed as fault:
        print(f"  FAIL  {fault}", flush=True)
        return False
    if delivered:
        waits = depth(state_directory(settings) / "spool")
        print(
            "  note  it waits in the spool like every POST now: the database takes none" if waits
            else "  ok    it was counted as ignored, and left nothing else behind"
        )  # fmt: skip
    return True


class _Failed(Exception):
    """A step of a trial that did not go well, and what is to be said of it."""


def _ok(says: str) -> None:
    print(f"  ok    {says}", flush=True)


def _try_endpoint(webhook: Webhook, endpoint: Endpoint) -> bool:
    """Post the provider's documented sample, addressed to a number that nobody has, and tell each step.

    Return whether it went in: from a network that may not come in, 403 is a good end. Raises _Failed.
    """
    host = _ANY.get(webhook.host, webhook.host)
    try:
        connection = _connection(webhook, host)
    except ConfigurationError as fault:
        raise _Failed(str(fault)) from None
    try:
        return _deliver(connection, webhook, endpoint)
    except ssl.SSLCertVerificationError as fault:
        ended = fault.verify_code == _CERTIFICATE_HAS_EXPIRED
        what = "is out of date: renew it" if ended else "is not the one that is served"
        raise _Failed(f"the certificate {webhook.tls_certificate} {what} ({fault.verify_message})") from None
    except ssl.SSLError:
        raise _Failed("no TLS: the listener runs with another configuration; restart the daemon") from None
    except ConnectionRefusedError:
        says = f"nobody listens on {host}:{webhook.port}; is the daemon running? ingestor run"
        raise _Failed(says) from None
    except TimeoutError:
        raise _Failed(f"no answer within {_SECONDS:.0f} s") from None
    except (OSError, http.client.HTTPException) as fault:
        raise _Failed(f"no answer from {host}:{webhook.port} ({type(fault).__name__})") from None
    finally:
        connection.close()


def _connection(webhook: Webhook, host: str) -> http.client.HTTPConnection:
    if webhook.tls_certificate is None:
        return http.client.HTTPConnection(host, webhook.port, timeout=_SECONDS)
    # The very certificate of the configuration must be served; its name is the public one, not this host's.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    tls.validity(webhook.tls_certificate)
    context.load_verify_locations(webhook.tls_certificate)
    return http.client.HTTPSConnection(host, webhook.port, timeout=_SECONDS, context=context)


def _deliver(connection: http.client.HTTPConnection, webhook: Webhook, endpoint: Endpoint) -> bool:
    connection.connect()
    _ok(f"connected to {connection.host}:{connection.port}")
    if webhook.tls_certificate is not None and isinstance(connection.sock, ssl.SSLSocket):
        version = connection.sock.version()
        ends = tls.validity(webhook.tls_certificate).ends
        _ok(f"{version} with {webhook.tls_certificate}, good until {iso_utc(ends)}")
    headers, remark = _headers(connection.sock.getsockname()[0], webhook, endpoint)
    stranger = not headers and remark is not None
    if remark:
        _ok(remark)
    if endpoint.basic_username is not None:
        password = next(iter(endpoint_passwords(endpoint)), "")
        login = b64encode(f"{endpoint.basic_username}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {login}"
    post = test_post(endpoint.provider, datetime.now(UTC))
    began = time.monotonic()
    connection.request("POST", endpoint.path, post.body, headers | {"Content-Type": post.content_type})
    response = connection.getresponse()
    body = response.read(1000)
    expected = reader(endpoint.provider).ACCEPTED
    took = f"{1000 * (time.monotonic() - began):.0f} ms"
    if stranger and response.status == 403:
        _ok(
            f"posted the sample: refused with 403 after {took}, as it should be; only the provider can try "
            "the rest: ask it for a test message"
        )
        return False
    if response.status == expected.status and body == expected.body:
        said = f" {body.decode()}" if body else ""
        _ok(f"posted the sample: answered {response.status}{said} after {took}")
        return True
    means = _MEANS.get(response.status, "that is no answer of ours: who listens there?")
    raise _Failed(f"posted the sample: answered {response.status} after {took}; {means}")


def _headers(own: str, webhook: Webhook, endpoint: Endpoint) -> tuple[dict[str, str], str | None]:
    """Return what to send so that the gate opens, if that can be: this host may play a trusted proxy."""
    address = ip_address(own.partition("%")[0])

    def within(networks: Iterable[object]) -> bool:
        return any(address in network for network in networks)  # type: ignore[operator]  # networks of ipaddress

    allowed = not endpoint.allow_from or within(endpoint.allow_from)
    direct = webhook.tls_certificate is not None or address.is_loopback
    if allowed and direct:
        return {}, None
    if not within(webhook.trusted_proxies):
        return {}, f"{own} is no trusted proxy, and comes from outside: 403 is what a stranger should see"
    client = own if allowed else str(endpoint.allow_from[0].network_address)
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": client}
    return headers, f"speaking as the trusted proxy {own} for {client}"
