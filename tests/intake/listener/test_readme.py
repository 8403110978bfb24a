"""What the README says about the webhook: its curl lines and its proxies, run for real."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy import Engine

from tests import readme
from tests.conftest import missing
from tests.intake.listener.client import Client, post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import Stand
from tests.waiting import until

ENDPOINTS = [
    {"path": f"/{provider}/YOUR-SECRET-PATH", "provider": provider}
    for provider in ("agile", "infobip", "ip1")
]


@pytest.fixture
def documented(make_stand: MakeStand, archive_engine: Engine) -> Stand:
    """A listener with the README's paths, behind a proxy on this machine."""
    return make_stand(archive_engine, endpoints=ENDPOINTS, trusted_proxies=("127.0.0.1",))


def test_each_line_for_the_listener_works(documented: Stand, tmp_path: Path) -> None:
    """Every curl line, and the test command, is accepted; all of it ends in the quarantine as a test."""
    url = f"http://127.0.0.1:{documented.listener.address[1]}"
    engine = documented.engine
    assert engine is not None
    endpoints = "".join(
        f'[[webhook.endpoint]]\npath = "{one["path"]}"\nprovider = "{one["provider"]}"\n' for one in ENDPOINTS
    )
    (tmp_path / "ingestor.toml").write_text(
        f'[database]\nurl = "{engine.url.render_as_string(hide_password=False)}"\n'
        f'[webhook]\nlisten = "{url.removeprefix("http://")}"\ntrusted_proxies = ["127.0.0.1"]\n{endpoints}'
    )
    environment = {
        **os.environ, "INGESTOR_CONFIG": str(tmp_path / "ingestor.toml"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    if shutil.which("curl") is None:
        missing("curl is not installed; on Debian: apt-get install curl")
    [block] = readme.blocks("listener")
    lines = block.replace("http://127.0.0.1:8080", url).splitlines()
    for line in lines:
        done = subprocess.run(
            ["sh", "-ec", line], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if line.startswith("curl"):
            assert "HTTP/1.1 200 OK" in done.stdout
            assert done.stdout.endswith("+OK") is ("/agile/" in line)

    assert documented.rows("SELECT count(*) FROM arrivals") == [(0,)]  # tests, all of them


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, ssl.SSLContext]:
    """Certificate and key of a proxy, and what a provider needs to trust it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return chain, key, context


@pytest.fixture
def nginx(
    documented: Stand, certificate: tuple[Path, Path, ssl.SSLContext], tmp_path: Path
) -> Iterator[tuple[str, int]]:
    """The README's nginx in front of the listener; addresses and certificate files are this machine's."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        missing("nginx is not installed; on Debian: apt-get install nginx-light")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    [server] = [block for block in readme.blocks("proxy") if "proxy_pass" in block]
    server = server.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = server.replace("127.0.0.1:8080", f"127.0.0.1:{documented.listener.address[1]}")
    server = re.sub(r"/etc/letsencrypt/live/[^/]+", str(tmp_path), server)
    places = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user nobody nogroup;" if os.geteuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; pid {tmp_path}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ {places}\n{server} }}"
    )
    process = subprocess.Popen(
        [program, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr"], stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    yield "127.0.0.1", port
    process.terminate()
    process.wait(30)


def test_nginx_as_in_the_readme_passes_posts_on(
    nginx: tuple[str, int], documented: Stand, certificate: tuple[Path, Path, ssl.SSLContext]
) -> None:
    """A provider posts through the documented nginx: HTTPS is believed, and the client's address arrives."""
    request = post(
        "/agile/YOUR-SECRET-PATH", sms(1), "X-Forwarded-For: 192.0.2.99", "X-Forwarded-Proto: http"
    )
    with Client(nginx, certificate[2]) as client:
        assert client.ask(request).body == b"+OK"

    assert documented.rows("SELECT peer FROM arrivals_detail") == [("127.0.0.1",)]


def test_haproxy_as_in_the_document_takes_the_daemon_that_lives(
    documented: Stand, certificate: tuple[Path, Path, ssl.SSLContext], tmp_path: Path
) -> None:
    """The documented HAProxy asks for health, leaves a dead daemon out, and is believed about HTTPS."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        missing("haproxy is not installed; on Debian: apt-get install haproxy")
        return
    with socket.socket() as free, socket.socket() as dead:
        free.bind(("127.0.0.1", 0))
        dead.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        [block] = readme.blocks("balancer")
        block = block.replace("bind :443", f"bind 127.0.0.1:{port}").replace(
            "192.0.2.11:8080", f"127.0.0.1:{dead.getsockname()[1]}"
        )
        block = block.replace("192.0.2.12:8080", f"127.0.0.1:{documented.listener.address[1]}")
    chain, key, context = certificate
    (tmp_path / "sms.pem").write_bytes(chain.read_bytes() + key.read_bytes())
    block = block.replace("/etc/haproxy/sms.pem", str(tmp_path / "sms.pem"))
    (tmp_path / "haproxy.cfg").write_text(block)
    with subprocess.Popen([program, "-q", "-f", tmp_path / "haproxy.cfg"]) as process:
        try:
            until(lambda: process.poll() is not None or _open(port), "HAProxy")
            request = post("/agile/YOUR-SECRET-PATH", sms(1), "X-Forwarded-For: 192.0.2.99")
            with Client(("127.0.0.1", port), context) as client:
                assert client.ask(request).body == b"+OK"
        finally:
            process.terminate()
    assert documented.rows("SELECT peer FROM arrivals_detail") == [("127.0.0.1",)]


def _open(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


def test_caddy_as_in_the_readme_goes_to_the_default_address() -> None:
    """Caddy needs one line, and it names the address of the configuration beside it."""
    [block] = [block for block in readme.blocks("proxy") if "reverse_proxy" in block]

    assert re.search(r"^\s+reverse_proxy 127\.0\.0\.1:8080$", block, re.MULTILINE)
    assert 'listen = "127.0.0.1:8080"' in readme.TEXT
    program = shutil.which("caddy")
    if program is not None:
        done = subprocess.run(
            [program, "adapt", "--adapter", "caddyfile", "--config", "/dev/stdin"], input=block.encode(),
            capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
