"""Mailboxes that log in by access tokens: a real Dovecot that asks a real authorisation server about each."""

import base64
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ingestor.errors import CredentialsRefused, LoginFault, MailboxUnavailable
from ingestor.intake.mailbox.connection import Client
from ingestor.intake.mailbox.context import Bell, Stopped, Timing
from ingestor.intake.mailbox.login import Credential, entering
from ingestor.intake.mailbox.session import Session, connect
from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.logins import log_in
from ingestor.redaction import redact
from ingestor.settings import Mailbox, load
from tests.conftest import missing
from tests.intake.mailbox.desk import QUICK, RULES, Desk, mail
from tests.servers.authorization import CLIENT, AuthorizationServer
from tests.servers.dovecot import DovecotServer, unavailable
from tests.servers.scripted_imap import ScriptedImap, Talk
from tests.waiting import until

PATIENCE = 120.0
"""A helper process takes seconds to start where many tests run at once."""


@dataclass
class Office:
    """A Dovecot, the authorisation server that it asks, and the folder of the configuration."""

    authority: AuthorizationServer
    dovecot: DovecotServer
    folder: Path

    def mailbox(self, user: str) -> Mailbox:
        """Return the mailbox of `user` from a configuration file, as the helper process will read it."""
        self.authority.username = user
        path = self.folder / "ingestor.toml"
        path.write_text(
            f'[database]\nurl = "sqlite:///{self.folder}/archive.db"\n[[mailbox]]\nname = "main"\n'
            f'host = "127.0.0.1"\nport = {self.dovecot.imaps_port}\nca_file = "{self.dovecot.ca_file}"\n'
            f'username = "{user}"\npoll_seconds = 1\n[mailbox.oauth]\nprovider = "other"\n'
            f'flow = "device_code"\nclient_id = "{CLIENT}"\ntoken_url = "{self.authority.url}/token"\n'
            f'device_url = "{self.authority.url}/device"\n'
        )
        return load(path, None).mailbox[0]

    def log_in(self, mailbox: Mailbox) -> None:
        """Be the person who logs in."""
        log_in(mailbox, self.folder, lambda _: None, lambda: "", sleep=lambda _: None)


@pytest.fixture(scope="module")
def _servers() -> Iterator[tuple[AuthorizationServer, DovecotServer]]:
    if reason := unavailable():
        missing(reason)
    with AuthorizationServer().running() as authority:
        dovecot = DovecotServer(introspection=f"{authority.url}/introspect")
        yield authority, dovecot
        dovecot.close()


@pytest.fixture
def office(_servers: tuple[AuthorizationServer, DovecotServer], tmp_path: Path) -> Office:
    """Both servers as new."""
    authority, dovecot = _servers
    authority.life, authority.refusals, authority.rotates = 3600, [], True
    authority.introspected.clear()
    return Office(authority, dovecot, tmp_path)


def thread_of(desk: Desk, mailbox: Mailbox, timing: Timing = QUICK) -> MailboxThread:
    thread = MailboxThread(mailbox, RULES, desk.writer, desk.engine, desk.run_id, timing=timing)
    desk.threads.append(thread)
    thread.start()
    return thread


@pytest.mark.dovecot
def test_a_login_by_device_code_reads_the_mailbox(desk: Desk, office: Office) -> None:
    """Until the person has logged in the state is `needs_login`, tried again each hour; then mail is read."""
    mailbox = office.mailbox(office.dovecot.account())
    office.dovecot.deliver(mailbox.username, [mail(1)])
    thread = thread_of(desk, mailbox)
    until(lambda: desk.source_state() == "needs_login", seconds=PATIENCE)
    until(lambda: 3600 < thread.stall_limit < 5000)
    thread.stop()
    assert thread.join(30)

    office.log_in(mailbox)
    thread = thread_of(desk, mailbox)

    until(lambda: desk.has(1), seconds=PATIENCE)
    until(lambda: thread.state == "watching", seconds=PATIENCE)
    assert office.authority.introspected == [True]


@pytest.mark.dovecot
def test_a_hundred_reconnects_with_tokens_of_five_seconds(office: Office) -> None:
    """None of the logins fails, though each of the tokens ends while they go on."""
    mailbox = office.mailbox(office.dovecot.account())
    office.authority.life = 5
    office.log_in(mailbox)
    credential, stop, given = Credential(mailbox), Bell(), set()

    def enter(token: str) -> Session:
        given.add(token)
        return connect(mailbox, token, QUICK, stop)

    for _ in range(100):
        entering(credential, stop, enter).close()
        time.sleep(0.12)

    good = office.authority.introspected.count(True)
    print(f"{len(given)} tokens, {len(office.authority.introspected) - good} refused by the server")
    assert (good, len(given) >= 3) == (100, True)


@pytest.mark.dovecot
@pytest.mark.parametrize("offered", ["OAUTHBEARER", "XOAUTH2"])
def test_a_revoked_token_is_replaced_at_once(
    office: Office, offered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that the server revoked before its time costs one more login; both mechanisms, and their NO."""
    mailbox = office.mailbox(office.dovecot.account())
    office.log_in(mailbox)
    real = Client.has_capability
    hidden = {f"AUTH={one}" for one in ("OAUTHBEARER", "XOAUTH2") if one != offered}
    monkeypatch.setattr(Client, "has_capability", lambda self, name: name not in hidden and real(self, name))
    credential, stop = Credential(mailbox), Bell()

    def enter(token: str) -> Session:
        return connect(mailbox, token, QUICK, stop)

    entering(credential, stop, enter).close()
    office.authority.tokens.clear()

    entering(credential, stop, enter).close()

    assert office.authority.introspected == [True, False, True]


@pytest.mark.dovecot
def test_a_token_that_never_does_is_refused_slowly(desk: Desk, office: Office) -> None:
    """A new token that is refused is a refusal: said once, tried again in minutes."""
    mailbox = office.mailbox(office.dovecot.account())
    office.log_in(mailbox)
    office.authority.tokens.clear()
    office.authority.life = -1
    thread = thread_of(desk, mailbox, replace(QUICK, token_refused_first=50.0))

    until(lambda: desk.source_state() == "refused", seconds=PATIENCE)

    until(lambda: 25 <= thread.stall_limit - 20 <= 51)
    [detail] = desk.column("SELECT detail FROM sources")
    assert re.search("refuses the access token", str(detail))


@pytest.mark.dovecot
def test_the_old_token_outlives_a_server_that_is_away(office: Office) -> None:
    """While no new token is to be had the old one serves, whatever is wrong; a stop waits for nobody."""
    mailbox = office.mailbox(office.dovecot.account())
    office.log_in(mailbox)
    credential = Credential(mailbox)
    token = credential.get(Bell())
    credential._renew_at = 0.0
    (office.folder / "ingestor.toml").write_text("broken")

    assert credential.get(Bell()) == token
    with pytest.raises(LoginFault):
        credential.get(Bell(), fresh=True)
    rung = Bell()
    rung.ring()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        Credential(mailbox).get(rung)
    assert time.monotonic() - begin < 5


Answer = Callable[[Talk, str, bytes, bytes], bool]


def refusing(words: str, challenge: bytes = b"") -> Answer:
    """Return what says `words` to each login; a `challenge` before them must be answered without content."""

    def answer(talk: Talk, command: str, _: bytes, tag: bytes) -> bool:
        if command not in {"AUTHENTICATE", "LOGIN"}:
            return False
        if command == "AUTHENTICATE":
            talk.send(b"+ \r\n")
            talk.line()
        if challenge:
            talk.send(b"+ " + base64.b64encode(challenge) + b"\r\n")
            if talk.line() != b"":
                return talk.hang_up(b"* BYE that was no empty line\r\n")
        return talk.end(tag, words.encode())

    return answer


def by_token(desk: Desk, port: int, **keys: object) -> Mailbox:
    """Return a mailbox that logs in by a token."""
    table = {"provider": "other", "flow": "device_code", "client_id": "c", "token_url": "https://h/t",
             "device_url": "https://h/d", **keys}  # fmt: skip
    return desk.mailbox(port, password=None, oauth=table)


@pytest.mark.parametrize(
    ("provider", "words", "causes"),
    [
        (
            {"provider": "microsoft", "tenant": "t"}, "NO AUTHENTICATE failed.",
            "object id.*Enterprise applications.*no permission for this mailbox.*IMAP is switched off",
        ),
        (
            {"provider": "google", "flow": "authorization_code"},
            "NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)",
            "IMAP is switched off.*not the account.*consent was taken back",
        ),
        ({}, "NO [AUTHENTICATIONFAILED] Authentication failed.", "the access token.*mend the credential"),
    ],
)  # fmt: skip
def test_a_bare_no_to_a_token_names_the_causes(
    desk: Desk, scripted: ScriptedImap, provider: dict[str, object], words: str, causes: str
) -> None:
    """The challenge that tells a refusal is answered emptily; of the NO the causes are told in one line."""
    scripted.script.capabilities = "IMAP4rev1 AUTH=XOAUTH2"
    scripted.script.on_command = refusing(words, b'{"status":"400","schemes":"Bearer"}')

    with pytest.raises(CredentialsRefused, match=causes) as refused:
        connect(by_token(desk, scripted.port, **provider), "token", QUICK, Bell())

    assert "\n" not in str(refused.value)
    assert scripted.commands[-1] != "LOGIN"


@pytest.mark.parametrize(
    ("host", "words", "causes"),
    [
        ("127.0.0.1", "NO [ALERT] Application-specific password required: https://support.google.com/x",
         "app password"),
        ("outlook.office365.com", "NO LOGIN failed.", "take no passwords any more.*Logins by OAuth2"),
        ("imap.gmail.com", "NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)",
         "app password.*switched off"),
        ("mail.example.org", "NO LOGIN failed.", "refuses the user name or password .login failed.; mend"),
    ],
)  # fmt: skip
def test_a_bare_no_to_a_password_names_the_causes(
    desk: Desk, scripted: ScriptedImap, monkeypatch: pytest.MonkeyPatch, host: str, words: str, causes: str
) -> None:
    """Where the large providers take no passwords, or app passwords alone, the refusal says so."""
    scripted.script.on_command = refusing(words)
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *more, **named: real("127.0.0.1", *more, **named))
    mailbox = desk.mailbox(scripted.port, host=host, allow_plain=True)

    with pytest.raises(CredentialsRefused, match=causes):
        connect(mailbox, "demo", QUICK, Bell())


def test_a_server_that_takes_oauth2_only(desk: Desk, scripted: ScriptedImap) -> None:
    """No password is sent where only tokens are taken: one line says so, with the chapter to read."""
    scripted.script.capabilities = "IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2 AUTH=OAUTHBEARER"

    with pytest.raises(LoginFault, match=r"OAuth2 only.*OPERATING\.md, `Logins by OAuth2`") as fault:
        connect(desk.mailbox(scripted.port), "demo", QUICK, Bell())

    assert fault.value.state == "refused"
    assert not {"LOGIN", "AUTHENTICATE"} & set(scripted.commands)


def test_a_server_that_takes_no_token(desk: Desk, scripted: ScriptedImap) -> None:
    """A token is never sent as a password."""
    with pytest.raises(MailboxUnavailable, match="neither OAUTHBEARER nor XOAUTH2"):
        connect(by_token(desk, scripted.port), "token", QUICK, Bell())

    assert not {"LOGIN", "AUTHENTICATE"} & set(scripted.commands)


def test_authenticated_but_not_connected_is_no_refusal(desk: Desk, scripted: ScriptedImap) -> None:
    """Exchange's words for too many connections, or no permission, are told as that; the pauses are long."""
    scripted.script.on_command = refusing("NO User is authenticated but not connected.")
    thread = thread_of(desk, desk.mailbox(scripted.port))

    until(lambda: thread.state == "unreachable")

    until(lambda: thread.stall_limit > 30)
    assert scripted.commands.count("LOGIN") == 1


def test_a_token_command(desk: Desk, scripted: ScriptedImap) -> None:
    """What a program prints is sent as the access token, and asked for at each connect."""
    scripted.script.capabilities = "IMAP4rev1 AUTH=XOAUTH2"
    sent: list[bytes] = []

    def answer(talk: Talk, command: str, _: bytes, tag: bytes) -> bool:
        if command == "AUTHENTICATE":
            talk.send(b"+ \r\n")
            sent.append(base64.b64decode(talk.line()))
            return talk.end(tag)
        return False

    scripted.script.on_command = answer
    mailbox = desk.mailbox(scripted.port, password=None, token_command=["echo", "printed-token"])
    stop = Bell()

    entering(Credential(mailbox), stop, lambda token: connect(mailbox, token, QUICK, stop)).close()

    assert sent == [b"user=demo\1auth=Bearer printed-token\1\1"]
    assert redact("printed-token") == "***"
