"""`check` of [watch] and [metrics]: whether anybody would hear, and a test notice where it is asked for."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.service.checks import Level, sending
from ingestor.service.checks.machine import check_everything
from ingestor.settings import load
from tests.cli.calling import ingestor
from tests.servers.imap.server import ImapServer
from tests.service.process import configuration, mailbox, running, until
from tests.watch.receiver import Receiver, receiving
from tests.watch.smtp import MailServer, mail_server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Who takes webhooks."""
    with receiving() as server:
        yield server


@pytest.fixture
def relay() -> Iterator[MailServer]:
    """Who takes mail."""
    with mail_server() as server:
        yield server


def _watch(folder: Path, relay: MailServer, url: str, more: str = "") -> str:
    (folder / "url").write_text(f"{url}\n")
    return (
        f'[watch]\nping_file = "{folder}/url"\n[watch.mail]\nhost = "127.0.0.1"\nport = {relay.port}\n'
        'security = "plain"\nsender = "i@example.org"\nto = ["ops@example.org"]\n'
        f'[[watch.webhook]]\nurl_file = "{folder}/url"\n{more}'
    )


def _found(config: Path) -> dict[str, tuple[Level, str]]:
    found = check_everything(load(config, None))
    return {one.subject: (one.level, one.says) for one in found if one.subject.startswith(("watch", "metr"))}


def test_who_is_told_is_tried_and_hears_nothing(
    tmp_path: Path, sqlite_url: str, relay: MailServer, receiver: Receiver
) -> None:
    """The mail server lets us in, secrets and URLs can be read; nothing is sent to anybody."""
    metrics = '[metrics]\nlisten = "127.0.0.1:0"\n'
    found = _found(configuration(tmp_path, sqlite_url, _watch(tmp_path, relay, receiver.url), metrics))

    assert {subject: level for subject, (level, _) in found.items()} == dict.fromkeys(
        ("watch.mail", "watch.webhook 1", "watch.ping", "metrics"), Level.OK
    )
    assert (relay.taken, receiver.received) == ([], [])


@pytest.mark.parametrize(
    ("url", "more", "says"),
    [
        ("planted.example/secret", "", "must begin with https:// or http://"),
        ("https://planted example/", "", "is no URL"),
        ("https:///planted", "", "it names no host"),
        ("https://planted.example:port/", "", "its host or port cannot be read"),
        ("", "", "is empty"),
        ("https://planted.example/x", 'signing_file = "{folder}/absent"\n', "cannot be read"),
        ("https://planted.example/x", 'signing_file = "{folder}/key"\n', "no base64"),
    ],
)
def test_what_nobody_would_hear_fails(
    tmp_path: Path, sqlite_url: str, relay: MailServer, url: str, more: str, says: str
) -> None:
    """A URL that is none, a secret that is not there, a mail server that is away: one sentence each."""
    relay.away = True
    (tmp_path / "key").write_text("whsec_planted")
    block = _watch(tmp_path, relay, url, more.format(folder=tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics = f'[metrics]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'
        found = _found(configuration(tmp_path, sqlite_url, block, metrics))

    assert found["watch.mail"] == (
        Level.FAIL, "the mail server did not take it (SMTPConnectError 421)",
    )  # fmt: skip
    assert found["watch.webhook 1"][0] is Level.FAIL
    assert says in found["watch.webhook 1"][1]
    assert found["watch.ping"][0] is (Level.OK if more else Level.FAIL)
    assert found["metrics"][0] is Level.WARN
    assert "planted" not in str(found)


def test_a_test_notice_reaches_everybody(
    tmp_path: Path, sqlite_url: str, relay: MailServer, receiver: Receiver
) -> None:
    """`check --notify` sends one by mail and one by each webhook, and says whether they were taken."""
    config = configuration(tmp_path, sqlite_url, _watch(tmp_path, relay, receiver.url))
    called = ingestor("--config", config, "check", "--notify", folder=tmp_path)
    assert called.out.count("a test notice was sent") == 2
    [mail], [post] = relay.taken, receiver.received
    assert "somebody asked for this notice; nothing is wrong" in str(mail.message["Subject"])
    assert b"nothing is wrong" in post.body

    receiver.status = 500
    found = [one for _, check in sending.notify(load(config, None)) for one in check()]
    assert [(one.level, one.says) for one in found] == [
        (Level.OK, "a test notice was sent"), (Level.FAIL, "it was answered with 500"),
    ]  # fmt: skip


def test_a_reload_tells_others(tmp_path: Path, sqlite_url: str) -> None:
    """[watch] is taken over by a reload: the new URL is pinged, the old one no more."""
    server = ImapServer()
    with server.running(), receiving() as before, receiving() as after:
        config = configuration(tmp_path, sqlite_url, mailbox(server.port))
        with running(config) as daemon:
            daemon.wait_ready()
            for number, switch in enumerate((before, after), 1):
                (tmp_path / "ping").write_text(f"{switch.url}/planted\n")
                configuration(
                    tmp_path,
                    sqlite_url,
                    mailbox(server.port, poll_seconds=1),
                    f'[watch]\nping_file = "{tmp_path}/ping"\n',
                )
                daemon.reload(number)
                until(lambda heard=switch: heard.received, "a ping")
            assert not daemon.events("a restart is needed")
            assert daemon.stop() == 0
    assert len(before.received) == 1
