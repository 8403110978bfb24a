"""What `check` says of a mailbox on servers that offer what they refuse, or do not give every mail."""

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
import trustme

from ingestor.service.checks import intakes
from ingestor.service.checks.machine import check_everything
from ingestor.settings import Mailbox, load
from tests.sample_mails import generate
from tests.servers.imap.server import ImapServer
from tests.servers.scripted_imap import Message, Script, ScriptedImap
from tests.service.process import configuration, mailbox, running

MAILS = list(generate(10, seed=91))


def _check(config: Path) -> list[str]:
    return [f"{one.says}; {one.fix}" for one in check_everything(load(config, None))]


def test_mails_that_the_server_does_not_give_are_named(tmp_path: Path, sqlite_url: str) -> None:
    """`check` and `status` name the mails over which a server hangs up, after one pass that finished."""
    script = Script({"INBOX": [Message(uid, MAILS[uid].raw) for uid in range(1, 9)]})
    script.hang_up_over = {3, 7}
    with ScriptedImap(script).running() as server:
        config = configuration(tmp_path, sqlite_url, mailbox(server.port))
        with running(config, "run", "--once") as once:
            assert once.process.wait(60) == 1
        lines = _check(config)

    assert any("UID 3, 7 (the connection breaks when it is fetched)" in line for line in lines)
    with running(config, "status", "--json") as status:
        status.process.wait(60)
        told = json.loads(status.said.splitlines()[-1])["not_fetched"]
    assert [(one["folder"], one["uid"], one["attempts"]) for one in told] == [
        ("INBOX", 3, 1),
        ("INBOX", 7, 1),
    ]


@pytest.mark.parametrize("refuses", [True, False])
def test_move_is_tried(tmp_path: Path, sqlite_url: str, refuses: bool) -> None:
    """On no mail at all: what is offered and refused is told, with what is done instead."""
    script = Script({"INBOX": [Message(1, MAILS[1].raw)], "Done": []})
    if refuses:
        script.refuse["UID MOVE"] = b"NO MOVE extension not supported"
    with ScriptedImap(script).running() as server:
        block = mailbox(server.port, after_store="move", move_to="Done")
        lines = _check(configuration(tmp_path, sqlite_url, block))

    assert any("a try of it refused; mails are copied" in line for line in lines) is refuses
    assert server.uids() == [1]
    assert "SELECT" in server.commands


def test_a_servers_own_words_are_for_a_terminal(server: ImapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In full where a person reads them, without them in a file."""
    server.faults.refuse["LOGIN"] = b"NO [CONTACTADMIN] ask Anna about 4711"
    block = Mailbox(
        name="m", host="127.0.0.1", port=server.port, security="plain", username="u", password="p"
    )
    in_file = intakes.check_mailbox(block)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    on_terminal = intakes.check_mailbox(block)

    assert "[CONTACTADMIN]" in in_file[0].says
    assert "Anna" not in in_file[0].says
    assert "ask Anna about 4711" in on_terminal[0].says


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_certificate_is_named_with_its_names_and_dates(
    tmp_path: Path, security: Literal["tls", "starttls"]
) -> None:
    """Of another name, over, or of nobody known: what to do, and what the server shows."""
    authority, now = trustme.CA(), datetime.now(UTC)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for names, ends, ca, said in (
        (["mail.other.example"], now + timedelta(days=9), True, "is for another name"),
        (["127.0.0.1"], now - timedelta(days=9), True, "has ended"),
        (["127.0.0.1"], now + timedelta(days=9), False, "is not trusted"),
    ):
        issued = authority.issue_cert(*names, not_before=now - timedelta(days=30), not_after=ends)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        server = ImapServer(**{"tls" if security == "tls" else "starttls": context})
        with server.running():
            block = Mailbox(
                name="m", host="127.0.0.1", port=server.port, security=security, username="u", password="p",
                ca_file=tmp_path / "ca.pem" if ca else None,
            )  # fmt: skip
            [found] = intakes.check_mailbox(block)
        assert said in found.says
        assert f"it is for {names[0]}, from " in str(found.fix)
        assert f" to {ends:%Y-%m-%d}, signed by " in str(found.fix)
        assert "LOGIN" not in server.commands


def test_a_fault_of_the_settings_is_said_once(tmp_path: Path) -> None:
    """The mailbox is named once, and openssl cannot help where a file is missing."""
    block = Mailbox(name="m", host="127.0.0.1", port=9, username="u", password="p", ca_file=tmp_path / "none")
    [found] = intakes.check_mailbox(block)
    assert found.says.startswith(f"ca_file {tmp_path}/none cannot be used")
    assert found.fix is None
    assert 'security = "tls"' in intakes._by_hand(
        block.model_copy(update={"port": 993, "security": "starttls"})
    )


@pytest.mark.parametrize("works", [True, False])
def test_a_search_that_does_not_work_is_told(tmp_path: Path, sqlite_url: str, works: bool) -> None:
    """The mails are read nevertheless, by number; a person should know why it is slow."""
    script = Script({"INBOX": [Message(uid, MAILS[uid].raw) for uid in range(1, 4)]})
    if not works:
        script.refuse["UID SEARCH"] = b"OK nothing found"
    with ScriptedImap(script).running() as server:
        lines = _check(configuration(tmp_path, sqlite_url, mailbox(server.port)))

    assert any("does not find mails that are there" in line for line in lines) is not works
