"""Daemon, `check` and `status` on mailboxes that log in by OAuth2."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestor.service.checks.machine import check_everything
from ingestor.settings import load
from ingestor.watch.troubles import of_secrets
from tests.conftest import missing
from tests.servers.authorization import CLIENT, SECRET, AuthorizationServer, Refusal, key_and_certificate
from tests.servers.dovecot import DovecotServer, unavailable
from tests.service.process import configuration, running, until

Servers = tuple[AuthorizationServer, DovecotServer]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A Dovecot that asks an authorisation server about tokens."""
    if reason := unavailable():
        missing(reason)
    with AuthorizationServer().running() as authority:
        dovecot = DovecotServer(introspection=f"{authority.url}/introspect")
        yield authority, dovecot
        dovecot.close()


def block(servers: Servers, more: str) -> str:
    authority, dovecot = servers
    authority.username = dovecot.account()
    authority.refusals, authority.skew, authority.life = [], 0.0, 3600
    return (
        f'[[mailbox]]\nname = "main"\nhost = "127.0.0.1"\nport = {dovecot.imaps_port}\npoll_seconds = 1\n'
        f'ca_file = "{dovecot.ca_file}"\nusername = "{authority.username}"\n[mailbox.oauth]\n'
        f'provider = "other"\nclient_id = "{CLIENT}"\ntoken_url = "{authority.url}/token"\n'
        f'flow = "client_credentials"\n{more}'
    )


def checked(config: Path) -> list[str]:
    return [f"{one.level} {one.says}; {one.fix}" for one in check_everything(load(config, None))]


@pytest.mark.dovecot
def test_check_tries_the_whole_login(servers: Servers, tmp_path: Path, sqlite_url: str) -> None:
    """A new token, the clock against its server's, the secret's end, the login itself; and each refusal."""
    authority, _ = servers
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    soon = datetime.now(UTC).date() + timedelta(days=10)
    more = f'secret_file = "{tmp_path}/secret"\nsecret_ends = {soon}\n'
    config = configuration(tmp_path, sqlite_url, block(servers, more))

    lines = checked(config)
    assert any("gave an access token (client_credentials)" in line for line in lines)
    assert any("logged in to" in line for line in lines)
    assert any(line.startswith(f"warn its client secret ends on {soon}") for line in lines)

    authority.skew = -1800
    assert any("clock is 30 minutes fast against 127.0.0.1" in line for line in checked(config))

    authority.skew, authority.refusals = 0.0, [Refusal("invalid_client", "AADSTS7000222", 401)]
    assert any("fail" in line and "has ended" in line for line in checked(config))

    config.write_text(config.read_text().replace(str(soon), "2020-01-01"))
    assert any(line.startswith("fail its client secret ended on 2020-01-01") for line in checked(config))


@pytest.mark.dovecot
def test_check_reads_the_end_of_a_certificate(servers: Servers, tmp_path: Path, sqlite_url: str) -> None:
    """Of a certificate the day is known: nobody has to write it down."""
    authority, _ = servers
    key, pem = key_and_certificate(timedelta(days=3))
    authority.public_key = key.public_key()
    (tmp_path / "key.pem").write_bytes(pem)
    config = configuration(tmp_path, sqlite_url, block(servers, f'key_file = "{tmp_path}/key.pem"\n'))

    lines = checked(config)

    assert any(line.startswith("warn its certificate ends on") for line in lines)
    assert any("logged in to" in line for line in lines)


@pytest.mark.dovecot
def test_a_daemon_says_what_a_person_must_do(servers: Servers, tmp_path: Path, sqlite_url: str) -> None:
    """The log and `status` name state and command; after it, and a reload, the mailbox is read."""
    authority, _ = servers
    (tmp_path / "secret").write_text("wrong")
    more = f'secret_file = "{tmp_path}/secret"\n'
    config = configuration(tmp_path, sqlite_url, block(servers, more))
    with running(config) as daemon:
        daemon.wait_ready()
        [line] = until(lambda: daemon.events("mailbox cannot be read"), seconds=120.0)
        assert line["state"] == "needs_secret"
        with running(config, "status", "--json") as status:
            status.process.wait(60)
            told = json.loads(status.said.splitlines()[-1])
        [source] = [one for one in told["sources"] if one["kind"] == "mailbox"]
        assert source["state"] == "needs_secret"
        assert "systemctl restart ingestor" in source["detail"]

        (tmp_path / "secret").write_text(SECRET)
        daemon.reload()

        until(lambda: daemon.events("mailbox is read"), seconds=120.0)
        assert daemon.stop() == 0
        log = daemon.log_path.read_text()
    assert not any(token in log for token in authority.tokens)


def test_the_daemon_loads_nothing_that_fetches_tokens() -> None:
    """Neither the daemon nor its checks load the room that knows refresh tokens: its helper process does."""
    code = (
        "import sys, ingestor.service.daemon, ingestor.service.checks.machine\n"
        "print([one for one in sys.modules if one.startswith(('ingestor.logins', 'cryptography'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("days", "words", "code"), [(20, None, 0), (10, "ends on", 0), (-1, "ended on", 1)])
def test_status_tells_of_a_secret_that_ends(
    tmp_path: Path, sqlite_url: str, days: int, words: str | None, code: int
) -> None:
    """From two weeks before its day a client secret is in `status`; when it is over, somebody is needed."""
    day = datetime.now(UTC).date() + timedelta(days=days)
    config = configuration(
        tmp_path, sqlite_url,
        '[[mailbox]]\nname = "main"\nhost = "h"\nusername = "u"\n[mailbox.oauth]\nprovider = "other"\n'
        'flow = "client_credentials"\nclient_id = "c"\ntoken_url = "https://h/t"\nsecret_file = "/s"\n'
        f"secret_ends = {day}\n",
    )  # fmt: skip
    found = of_secrets(load(config, None), datetime.now(UTC))

    assert [one.grave for one in found] == ([] if words is None else [code == 1])
    assert all(words is not None and words in one.says for one in found)
