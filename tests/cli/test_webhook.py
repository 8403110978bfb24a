"""`ingestor webhook test` against a listener that runs, and against everything that can be wrong."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import Engine

from ingestor.intake.listener import spool
from tests.cli.calling import Called
from tests.intake.listener.stand import AGILE, ENDPOINTS, INFOBIP, SECRET, Stand

Call = Callable[..., Called]
Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, archive_engine: Engine) -> Configure:
    """Write a configuration of a listener on this archive."""

    def write(listen: str, *lines: str, endpoints: Any = ENDPOINTS) -> Path:
        url = archive_engine.url.render_as_string(hide_password=False)
        text = [f'[database]\nurl = "{url}"\n[webhook]\nlisten = "{listen}"', *lines]
        for endpoint in endpoints:
            text.append("[[webhook.endpoint]]")
            text += [
                f"{key} = {list(value) if isinstance(value, tuple) else value!r}"
                for key, value in endpoint.items()
            ]
        path = tmp_path / "ingestor.toml"
        path.write_text("\n".join(text))
        return path

    return write


@pytest.fixture
def running(tmp_path: Path, archive_engine: Engine) -> Iterator[Callable[..., Stand]]:
    """Start a listener on this archive."""
    stands = []

    def start(**options: Any) -> Stand:
        stands.append(Stand(tmp_path, archive_engine, **options))
        return stands[-1]

    yield start
    for stand in stands:
        stand.stop()


def _listen(stand: Stand) -> str:
    return f"127.0.0.1:{stand.listener.address[1]}"


def test_every_endpoint_is_tried_and_leaves_nothing_behind(
    called: Call, configure: Configure, running: Callable[..., Stand]
) -> None:
    """Each sample is accepted and counted; neither an SMS nor a quarantined row comes of it."""
    stand = running()
    done = called("--config", configure(_listen(stand)), "webhook", "test")

    assert done.code == 0, done.err
    assert done.out.count("ok    posted the sample: answered 200") == 3
    assert "answered 200 +OK after" in done.out
    assert stand.rows("SELECT count(*) FROM arrivals") == [(0,)]
    assert done.out.count("it was counted as ignored, and left nothing else behind") == 3
    assert SECRET not in done.out + done.err


def test_one_endpoint_can_be_asked_for(
    called: Call, configure: Configure, running: Callable[..., Stand]
) -> None:
    """By its name or by its provider; a wrong name lists the right ones."""
    config = configure(_listen(running()))

    assert called("--config", config, "webhook", "test", "ip1-1").out.count("posted the sample") == 1
    assert called("--config", config, "webhook", "test", "infobip").out.count("posted the sample") == 1
    wrong = called("--config", config, "webhook", "test", "agile-2")
    assert wrong.code == 2
    assert "there are: agile-1, infobip-1, ip1-1" in wrong.err


def test_without_a_webhook_it_says_how_to_get_one(called: Call, tmp_path: Path) -> None:
    """No [webhook]: wrong configuration, and the command that prints one."""
    done = called("webhook", "test")

    assert done.code == 2
    assert "config new-endpoint" in done.err


def test_nobody_listening_is_said(called: Call, configure: Configure) -> None:
    """A daemon that is not running is the first thing to look for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        done = called("--config", configure(f"127.0.0.1:{free.getsockname()[1]}"), "webhook", "test", "agile")

    assert done.code == 1
    assert "nobody listens" in done.out


def test_a_listener_with_another_path_is_said(
    called: Call, configure: Configure, running: Callable[..., Stand]
) -> None:
    """404 means that the daemon has not been restarted since."""
    stand = running(endpoints=({"path": INFOBIP, "provider": "infobip"},))
    done = called("--config", configure(_listen(stand)), "webhook", "test", "agile")

    assert done.code == 1
    assert "answered 404" in done.out
    assert "restart the daemon" in done.out


def test_a_closed_network_is_tried_as_the_trusted_proxy(
    called: Call, configure: Configure, running: Callable[..., Stand]
) -> None:
    """Where this host is a trusted proxy the test speaks as one; else 403 is right, and a good end."""
    endpoint = {"path": AGILE, "provider": "agile", "allow_from": ("192.0.2.0/24",)}
    stand = running(endpoints=(endpoint,), trusted_proxies=("127.0.0.1",))
    trusted = configure(_listen(stand), 'trusted_proxies = ["127.0.0.1"]', endpoints=(endpoint,))
    done = called("--config", trusted, "webhook", "test")
    assert done.code == 0, done.out
    assert "speaking as the trusted proxy 127.0.0.1 for 192.0.2.0" in done.out

    stranger = called("--config", configure(_listen(stand), endpoints=(endpoint,)), "webhook", "test")
    assert stranger.code == 0
    assert "403 is what a stranger should see" in stranger.out
    assert "refused with 403" in stranger.out
    assert "quarantine" not in stranger.out


def test_the_login_is_used(
    called: Call, configure: Configure, running: Callable[..., Stand], tmp_path: Path
) -> None:
    """The first of the accepted passwords is sent, and never shown."""
    (tmp_path / "password").write_text("hunter22")
    endpoint = {
        "path": AGILE, "provider": "agile", "basic_username": "u",
        "basic_password_files": (str(tmp_path / "password"),),
    }  # fmt: skip
    stand = running(endpoints=(endpoint,), passwords=("hunter22",))
    done = called("--config", configure(_listen(stand), endpoints=(endpoint,)), "webhook", "test")
    assert done.code == 0, done.out

    (tmp_path / "password").write_text("wrong")
    refused = called("--config", configure(_listen(stand), endpoints=(endpoint,)), "webhook", "test")
    assert refused.code == 1
    assert "login was refused" in refused.out
    assert "hunter22" not in done.out + done.err + refused.out


def test_through_tls_the_configured_certificate_must_be_served(
    called: Call, configure: Configure, running: Callable[..., Stand], tmp_path: Path
) -> None:
    """The test goes through TLS, says how long the certificate is good, and notices another one."""

    def issue(name: str) -> tuple[Path, Path]:
        certificate = trustme.CA().issue_cert("sms.example.org")
        chain, key = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(str(key))
        return chain, key

    chain, key = issue("one")
    stand = running(tls_certificate=chain, tls_key=key)
    lines = f'tls_certificate = "{chain}"\ntls_key = "{key}"'
    done = called("--config", configure(_listen(stand), lines), "webhook", "test", "agile")
    assert done.code == 0, done.out
    assert "TLSv1.3 with" in done.out
    assert re.search(r"good until [0-9]{4}-[0-9]{2}-[0-9]{2}T", done.out)

    other, other_key = issue("two")
    lines = f'tls_certificate = "{other}"\ntls_key = "{other_key}"'
    wrong = called("--config", configure(_listen(stand), lines), "webhook", "test", "agile")
    assert wrong.code == 1
    assert "is not the one that is served" in wrong.out

    plain = called("--config", configure(_listen(stand)), "webhook", "test", "agile")
    assert plain.code == 1


def test_a_sample_in_the_spool_is_said(
    called: Call, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database away the sample is accepted, and waits where `status` counts it."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    stand = Stand(tmp_path)
    stand.at_hand.trouble = "down"
    try:
        done = called("--config", configure(_listen(stand)), "webhook", "test", "agile")
    finally:
        stand.stop()

    assert done.code == 0
    assert "waits in the spool" in done.out
    assert spool.depth(tmp_path / "spool") == 1
