"""The listener's own certificate."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
import trustme

from ingestor.errors import ConfigurationError
from ingestor.http import tls
from ingestor.intake.listener.reception import Limits
from tests.intake.listener.client import Client, post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, Stand


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A private certificate authority."""
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path]:
    """Certificate and key of localhost."""
    return _issue(authority, tmp_path)


def _issue(authority: trustme.CA, folder: Path, **options: object) -> tuple[Path, Path]:
    certificate = authority.issue_cert("localhost", "127.0.0.1", **options)  # type: ignore[arg-type]  # keywords of trustme
    chain, key = folder / "webhook.crt", folder / "webhook.key"
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    return chain, key


@pytest.fixture
def secure(make_stand: MakeStand, files: tuple[Path, Path]) -> Stand:
    """A listener with TLS of its own."""
    return make_stand(tls_certificate=files[0], tls_key=files[1], limits=Limits(request_seconds=4.0))


def _context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_post_through_tls_is_accepted(secure: Stand, authority: trustme.CA) -> None:
    """The certificate is served with its chain; several requests go over one connection."""
    with Client(secure.listener.address, _context(authority)) as client:
        assert client.ask(post(AGILE, sms(1))).body == b"+OK"
        assert client.ask(post(AGILE, sms(2))).body == b"+OK"
        assert client.ask(post("/x", b"")).status == 404
        client.rest()


@pytest.mark.parametrize(
    ("version", "accepted"), [(ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)]
)
def test_today_s_versions_of_tls_are_spoken(
    secure: Stand, authority: trustme.CA, version: ssl.TLSVersion, accepted: bool
) -> None:
    """TLS 1.2 and 1.3."""
    context = _context(authority)
    context.minimum_version = context.maximum_version = version
    with Client(secure.listener.address, context) as client:
        assert (client.ask(post(AGILE, sms(1))).body == b"+OK") is accepted


def test_old_versions_of_tls_are_refused(files: tuple[Path, Path]) -> None:
    """Nothing below TLS 1.2 is offered."""
    assert tls.server_context(*files).minimum_version == ssl.TLSVersion.TLSv1_2


def test_plain_http_to_the_tls_port_is_not_answered(secure: Stand) -> None:
    """Whoever speaks no TLS is sent away, and nothing is taken."""
    with secure.client() as client:
        client.send(post(AGILE, sms(1)))
        client.rest()
    assert secure.at_hand.taken == []


def test_a_handshake_that_never_ends_is_ended(secure: Stand, authority: trustme.CA) -> None:
    """Slow TLS clients have no more time than others, and count as connections."""
    with socket.create_connection(secure.listener.address, timeout=20) as silent:
        silent.send(b"\x16\x03\x01")
        with suppress(ConnectionResetError):
            assert silent.recv(100) == b""
    with Client(secure.listener.address, _context(authority)) as client:
        assert client.ask(post(AGILE, sms(1))).body == b"+OK"


def test_half_open_handshakes_keep_nobody_out(
    make_stand: MakeStand, files: tuple[Path, Path], authority: trustme.CA
) -> None:
    """At the cap an unfinished handshake makes room like any other stranger."""
    stand = make_stand(tls_certificate=files[0], tls_key=files[1], limits=Limits(connections=10))
    crowd = [socket.create_connection(stand.listener.address) for _ in range(30)]
    for number in range(10):
        with Client(stand.listener.address, _context(authority)) as client:
            assert client.ask(post(AGILE, sms(number))).body == b"+OK"
    for one in crowd:
        one.close()


def test_a_renewed_certificate_is_taken_up(files: tuple[Path, Path], authority: trustme.CA) -> None:
    """New files count for new connections; unusable ones leave the old certificate in place, with a line."""
    certificate = tls.Certificate(*files)
    first = certificate.context
    certificate.refresh()
    assert certificate.context is first

    _issue(authority, files[0].parent)
    certificate.refresh()
    renewed = certificate.context
    assert renewed is not first

    files[1].write_text("no key at all")
    with structlog.testing.capture_logs() as lines:
        certificate.refresh()
        certificate.refresh()
    assert certificate.context is renewed
    assert [line["log_level"] for line in lines] == ["error"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda chain, key: key.unlink(), "webhook.key cannot be read"),
        (lambda chain, key: chain.unlink(), "webhook.crt cannot be read"),
        (lambda chain, key: key.write_text("x"), "cannot be used for TLS"),
        (lambda chain, key: chain.write_text("x"), "cannot be used for TLS"),
        (lambda chain, key: trustme.CA().private_key_pem.write_to_path(str(key)), "cannot be used for TLS"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(
    make_stand: MakeStand, files: tuple[Path, Path], spoil: Callable[[Path, Path], None], said: str
) -> None:
    """Missing, meaningless, or not belonging together: the start ends with what to look at."""
    spoil(*files)
    with pytest.raises(ConfigurationError, match=said) as told:
        make_stand(tls_certificate=files[0], tls_key=files[1])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "ends", [datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2055, 6, 1, tzinfo=UTC)]
)
def test_the_dates_of_a_certificate_are_read(authority: trustme.CA, tmp_path: Path, ends: datetime) -> None:
    """Both ways in which certificates write times, before and after 2050."""
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    chain, _ = _issue(authority, tmp_path, not_before=begins, not_after=ends)

    assert tls.validity(chain) == (begins, ends)


def test_a_file_without_a_certificate_has_no_dates(tmp_path: Path) -> None:
    """`check` can say so instead of failing."""
    (tmp_path / "x").write_text("nothing")
    with pytest.raises(ConfigurationError, match="no certificate"):
        tls.validity(tmp_path / "x")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        tls.validity(tmp_path / "y")


def test_a_handshake_that_fails_is_said(secure: Stand) -> None:
    """Plain HTTP, or a client that does not trust the certificate, leaves a line: an empty log would mean
    that nothing came."""
    with structlog.testing.capture_logs() as lines:
        with Client(secure.listener.address) as client:
            client.send(post(AGILE, sms(1)))
            with suppress(OSError):
                client.rest()
        with pytest.raises(ssl.SSLError):
            Client(secure.listener.address, ssl.create_default_context())
        secure.listener.stop()
    refused = [line for line in lines if line["event"] == "webhook request refused"]
    assert {line["kind"] for line in refused} == {"no TLS handshake"}
    assert sum(line["count"] for line in refused) == 2


def test_a_certificate_that_has_ended_is_said_at_the_start(authority: trustme.CA, tmp_path: Path) -> None:
    """The listener starts all the same, and the log says why no provider will come."""
    chain, key = _issue(authority, tmp_path, not_after=datetime(2020, 1, 1, tzinfo=UTC))
    with structlog.testing.capture_logs() as lines:
        tls.Certificate(chain, key)
    assert [(line["log_level"], line["ended"]) for line in lines] == [("error", "2020-01-01T00:00:00Z")]
