"""Planted secrets, texts and numbers: none of them comes out of a daemon that tells all it knows."""

import base64
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.sample_mails import SampleMail, generate
from tests.servers.imap.server import ImapServer
from tests.servers.postgresql import PostgresqlServer
from tests.service.archive import read_so_far
from tests.service.process import configuration, mailbox, running, until

pytestmark = pytest.mark.postgresql

IMAP_PASSWORD = "planted-imap-Passw0rd"
BASIC_PASSWORD = "planted-basic-Passw0rd"
URL_PASSWORD = "planted-database-Passw0rd"
ENDPOINT = "/agile/planted-endpoint-k3QxZ81mTTq0"
TEXT = "planted text of an SMS"
POSTED = "planted text of a POST"
ORIGINATOR, DESTINATION = "+393357654321", "+393331239876"
WEBHOOK = f"""
[webhook]
listen = "127.0.0.1:0"
[[webhook.endpoint]]
path = "{ENDPOINT}"
provider = "agile"
basic_username = "agile"
basic_password_files = ["{{}}"]
"""
FORBIDDEN = [
    IMAP_PASSWORD, BASIC_PASSWORD, URL_PASSWORD, ENDPOINT, TEXT, POSTED, ORIGINATOR, DESTINATION,
    ORIGINATOR[1:], DESTINATION[1:], base64.b64encode(f"agile:{BASIC_PASSWORD}".encode()).decode(),
]  # fmt: skip


def _mails() -> list[bytes]:
    """Return a sound mail with planted content, broken and huge ones, and one for somebody else's number."""
    block = "From: {}\r\nTo: {}\r\nDate/Time: {}\r\nBody: {}\r\n"
    head = (
        "From: smsin@agiletelecom.com\r\nSubject: Agile Telecom -- SMS received\r\n"
        "Message-ID: <1@agiletelecom.com>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    bodies = [
        block.format(ORIGINATOR, DESTINATION, "20260110101010", TEXT),
        block.format(ORIGINATOR, "+393330000001", "20260110101011", TEXT),
        block.format(ORIGINATOR, DESTINATION, "20269910101010", TEXT),
        f"From: {ORIGINATOR}\r\nBody: {TEXT}\r\n",
        block.format(ORIGINATOR, DESTINATION, "20260110101012", TEXT + "\0\ud800" * 3),
        block.format(ORIGINATOR, DESTINATION, "20260110101013", TEXT * 90_000),
    ]
    return [(head + body).encode("utf-8", "surrogatepass") for body in bodies]


def _post(port: int, password: str, text: str) -> int:
    form = {"originator": ORIGINATOR, "destination": DESTINATION, "date_time": "20260110101010", "text": text}
    login = base64.b64encode(f"agile:{password}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{ENDPOINT}", urllib.parse.urlencode(form).encode(),
        {"Authorization": f"Basic {login}"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_nothing_private_comes_out(server: ImapServer, postgresql: PostgresqlServer, tmp_path: Path) -> None:
    """At debug level, through good and bad mail, outages, refused logins and reloads: no planted word."""
    server.password = IMAP_PASSWORD
    (tmp_path / "basic").write_text(BASIC_PASSWORD)
    (tmp_path / "basic").chmod(0o600)
    url = postgresql.url("archive").replace("app@", f"app:{URL_PASSWORD}@")
    blocks = [
        f'[agile]\nnumbers = ["{DESTINATION}"]\n',
        mailbox(server.port, password=IMAP_PASSWORD, poll_seconds=1),
        mailbox(server.port, "locked", password=IMAP_PASSWORD + "-wrong"),
        WEBHOOK.format(tmp_path / "basic"),
    ]
    config = configuration(tmp_path, url, *blocks)
    others: list[SampleMail] = list(generate(30, seed=81))
    with running(config, "--debug", "run", "--json") as daemon:
        daemon.wait_ready()
        port = daemon.events("webhook listening")[0]["port"]
        for raw in _mails():
            server.deliver(raw)
        until(lambda: read_so_far(url) == 6, "the planted mails read")
        assert _post(port, BASIC_PASSWORD, POSTED) == 200
        assert _post(port, "wrong", POSTED) == 401
        postgresql.stop()
        for mail in others:
            server.deliver(mail.raw)
        assert _post(port, BASIC_PASSWORD, POSTED + " in the outage") == 200
        postgresql.start()
        until(lambda: read_so_far(url) == 8 + len(others), "everything read after the outage")
        server.faults.cut["UID FETCH"] = 30
        server.deliver(_mails()[0])
        config.write_text(config.read_text().replace(URL_PASSWORD, URL_PASSWORD + "\x00"))
        daemon.reload()
        configuration(tmp_path, url.replace(URL_PASSWORD, URL_PASSWORD + "2"), *blocks)
        daemon.reload(2)
        until(lambda: daemon.events("mailbox cannot be read"), "the refused login")
        assert daemon.stop() == 0
        output = daemon.log_path.read_text() + daemon.said + "\n".join(daemon.heard)

    assert "reload refused" in output
    assert [word for word in FORBIDDEN if word in output] == []
    expected = [mail.expected for mail in others if mail.expected is not None]
    assert [sms["text"] for sms in expected if len(sms["text"]) > 8 and sms["text"] in output] == []
    assert [
        sms["originator"] for sms in expected if sms["originator"][:1] == "+" and sms["originator"] in output
    ] == []


def test_no_command_line_shows_a_secret(server: ImapServer, tmp_path: Path, sqlite_url: str) -> None:
    """`check` and a refused configuration name what is wrong, and not the password."""
    server.password = IMAP_PASSWORD
    config = configuration(
        tmp_path, sqlite_url, mailbox(server.port, password=IMAP_PASSWORD),
        mailbox(server.port, "locked", password=IMAP_PASSWORD + "-wrong"),
    )  # fmt: skip
    with running(config, "--debug", "check") as check:
        assert check.process.wait(40) == 1
        output = check.log_path.read_text() + check.said

    assert "locked" in output
    assert IMAP_PASSWORD not in output
