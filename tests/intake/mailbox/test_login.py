"""Who we talk to, and every way a login can end."""

import logging
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from ingestor.errors import ConfigurationError, CredentialsRefused, MailboxUnavailable
from ingestor.intake.mailbox import connection
from ingestor.intake.mailbox.context import Bell
from ingestor.intake.mailbox.session import Session, connect
from ingestor.settings import Mailbox
from tests.intake.mailbox.desk import OFTEN, QUICK, Desk, mail
from tests.servers.imap.server import CAPABILITIES, ImapServer
from tests.waiting import until


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A private certificate authority."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate in a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def context_of(certificate: trustme.LeafCert) -> "connection.ssl.SSLContext":
    context = connection.ssl.SSLContext(connection.ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def logged_in(mailbox: Mailbox, password: str = "demo") -> Session:
    return connect(mailbox, password, QUICK, Bell())


def test_implicit_tls_with_a_private_authority(desk: Desk, authority: trustme.CA, ca_file: Path) -> None:
    """`ca_file` makes a private server's certificate good; the push works through TLS as well."""
    server = ImapServer(tls=context_of(authority.issue_cert("127.0.0.1")))
    with server.running():
        thread = desk.thread(server.port, security="tls", ca_file=str(ca_file))
        until(lambda: thread.state == "watching")

        server.deliver(mail(1))

        until(lambda: desk.has(1))
        thread.stop()
        assert thread.join(30)


@pytest.mark.parametrize("piece", [10, 65536])
def test_exists_in_one_tls_record_with_the_continuation(
    desk: Desk, authority: trustme.CA, ca_file: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that we, or TLS, have already taken off the socket are not waited for there."""
    monkeypatch.setattr(connection, "_PIECE", piece)
    server = ImapServer(tls=context_of(authority.issue_cert("127.0.0.1")))
    server.faults.exists_with_continuation = mail(1)
    with server.running():
        thread = desk.thread(server.port, security="tls", ca_file=str(ca_file))

        until(lambda: desk.has(1))
        thread.stop()
        assert thread.join(30)


def test_a_certificate_of_unknown_origin_is_refused(desk: Desk, authority: trustme.CA) -> None:
    """Without its authority a certificate is not trusted: no login is sent, and we say what to do."""
    server = ImapServer(tls=context_of(authority.issue_cert("127.0.0.1")))
    with server.running(), pytest.raises(MailboxUnavailable, match=r"not trusted.*ca_file"):
        logged_in(desk.mailbox(server.port, security="tls"))
    assert server.commands == []


def test_a_certificate_of_another_name_is_refused(desk: Desk, authority: trustme.CA, ca_file: Path) -> None:
    """The name must be right, too."""
    server = ImapServer(tls=context_of(authority.issue_cert("imap.example.org")))
    with server.running(), pytest.raises(MailboxUnavailable, match=r"another name .* correct `host`"):
        logged_in(desk.mailbox(server.port, security="tls", ca_file=str(ca_file)))
    assert server.commands == []


def test_tls_to_a_port_that_speaks_none(desk: Desk, server: ImapServer) -> None:
    """The wrong port for `security` is told as that."""
    with pytest.raises(MailboxUnavailable, match="right port"):
        logged_in(desk.mailbox(server.port, security="tls"))


@pytest.mark.parametrize("security", ["tls", "starttls", "plain"])
def test_a_server_that_takes_the_connection_and_says_nothing(desk: Desk, security: str) -> None:
    """The time for a connection covers TLS and the greeting, too (imapclient up to 3.1 waited for ever)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mailbox = desk.mailbox(listener.getsockname()[1], security=security)
        with pytest.raises(MailboxUnavailable, match=r"no answer|takes longer"):
            connect(mailbox, "demo", replace(QUICK, connect=0.1), Bell())


def test_a_ca_file_that_cannot_be_used(desk: Desk, server: ImapServer, tmp_path: Path) -> None:
    """A missing or wrong `ca_file` is a fault of the configuration."""
    (tmp_path / "junk.pem").write_text("no certificate")
    for name in ("missing.pem", "junk.pem"):
        with pytest.raises(ConfigurationError, match="ca_file"):
            logged_in(desk.mailbox(server.port, security="tls", ca_file=str(tmp_path / name)))


def test_starttls(desk: Desk, authority: trustme.CA, ca_file: Path) -> None:
    """STARTTLS comes before the login, and the capabilities are asked for again behind it."""
    server = ImapServer(starttls=context_of(authority.issue_cert("127.0.0.1")))
    with server.running():
        server.deliver(mail(1))

        desk.thread(server.port, start=False, security="starttls", ca_file=str(ca_file)).run_once()

        assert desk.has(1)
        assert server.commands.index("STARTTLS") < server.commands.index("LOGIN")


def test_starttls_never_falls_back(desk: Desk, server: ImapServer) -> None:
    """Where STARTTLS is not offered, or refused, no password is sent."""
    with pytest.raises(MailboxUnavailable, match="no STARTTLS; the password was not sent"):
        logged_in(desk.mailbox(server.port, security="starttls"))

    server.capabilities = (*CAPABILITIES, "STARTTLS")
    with pytest.raises(MailboxUnavailable):
        logged_in(desk.mailbox(server.port, security="starttls"))
    assert not {"LOGIN", "AUTHENTICATE"} & set(server.commands)


def test_bytes_smuggled_in_before_tls_are_refused(desk: Desk) -> None:
    """What somebody in the line appends to the STARTTLS answer is not taken for the server's words."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hello\r\n")
            for line in lines:
                tag, command = line.split()[:2]
                if command == b"STARTTLS":
                    connection.sendall(tag + b" OK go\r\n* CAPABILITY IMAP4rev1 EVIL\r\n")
                    return
                connection.sendall(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n" + tag + b" OK done\r\n")

    with listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(MailboxUnavailable, match="somebody may be in the line"):
            logged_in(desk.mailbox(listener.getsockname()[1], security="starttls"))
        thread.join(30)


def test_plain_only_to_this_machine(desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere gets no password in the clear, whatever it is called."""

    class Elsewhere:
        is_loopback = False

    monkeypatch.setattr(connection, "ip_address", lambda _: Elsewhere)

    with pytest.raises(MailboxUnavailable, match="use tls"):
        logged_in(desk.mailbox(server.port))
    logged_in(desk.mailbox(server.port, allow_plain=True)).close()
    assert server.commands.count("LOGIN") == 1


def test_a_wrong_password_is_a_state_of_its_own(
    desk: Desk, server: ImapServer, logged: list[dict[str, object]]
) -> None:
    """It is shouted once and tried again slowly: no loop that locks the account, no secret in the log."""
    thread = desk.thread(
        server.port, password="planted-secret", timing=replace(QUICK, refused_first=0.1, refused_longest=0.1)
    )
    until(lambda: server.commands.count("LOGIN") >= 3)

    assert thread.state == "refused"
    errors = [entry for entry in logged if entry["log_level"] == "error"]
    assert len(errors) == 1
    assert "refuses the user name or password" in str(errors[0]["reason"])
    assert "planted-secret" not in repr(logged)
    assert desk.source_state() == "refused"

    server.call(lambda: setattr(server, "password", "planted-secret"))
    server.deliver(mail(1))
    until(lambda: desk.has(1))


def test_the_poll_does_not_hasten_the_next_try_of_a_wrong_password(desk: Desk, server: ImapServer) -> None:
    """However often the mailbox is polled, the login is not repeated with it."""
    thread = desk.thread(server.port, timing=OFTEN, password="wrong")
    until(lambda: thread.state == "refused")

    assert not thread.join(0.5)
    assert server.commands.count("LOGIN") == 1


@pytest.mark.parametrize("answer", [b"NO [AUTHENTICATIONFAILED] no", b"NO wrong", b"NO [EXPIRED] change it"])
def test_what_counts_as_a_refused_password(desk: Desk, server: ImapServer, answer: bytes) -> None:
    """A plain NO, and the codes that say so."""
    server.faults.refuse["LOGIN"] = answer
    with pytest.raises(CredentialsRefused):
        logged_in(desk.mailbox(server.port))


@pytest.mark.parametrize(
    "answer",
    [
        b"NO [UNAVAILABLE] later", b"NO [LIMIT] too many connections", b"NO [INUSE] locked",
        b"NO User is authenticated but not connected.", b"BAD syntax",
    ],
)  # fmt: skip
def test_what_does_not_count_as_a_refused_password(desk: Desk, server: ImapServer, answer: bytes) -> None:
    """A server that puts us off has not judged the password."""
    server.faults.refuse["LOGIN"] = answer
    with pytest.raises(MailboxUnavailable):
        logged_in(desk.mailbox(server.port))


@pytest.mark.parametrize("after", range(0, 40, 3))
def test_a_connection_cut_during_the_login_is_no_refusal(desk: Desk, server: ImapServer, after: int) -> None:
    """imapclient calls a cut in LOGIN a LoginError; it is none, at whichever byte."""
    server.faults.refuse["LOGIN"] = b"NO [AUTHENTICATIONFAILED] no such user"
    server.faults.cut["LOGIN"] = after
    with pytest.raises(MailboxUnavailable, match="closed the connection"):
        logged_in(desk.mailbox(server.port))


def test_names_and_passwords_beyond_ascii(desk: Desk) -> None:
    """They go through SASL PLAIN, which is UTF-8; where that is not offered the sentence says so."""
    server = ImapServer(username="bücher@example.org", password="größe ✓")
    with server.running():
        mailbox = desk.mailbox(server.port, username="bücher@example.org")
        logged_in(mailbox, "größe ✓").close()
        with pytest.raises(CredentialsRefused):
            logged_in(mailbox, "größer ✓")

        server.capabilities = tuple(set(CAPABILITIES) - {"AUTH=PLAIN"})
        with pytest.raises(MailboxUnavailable, match="AUTH=PLAIN"):
            logged_in(mailbox, "größe ✓")


def test_no_password_where_it_is_not_wanted(desk: Desk, server: ImapServer) -> None:
    """LOGINDISABLED is heeded: the password is not sent in vain."""
    server.capabilities = ("IMAP4rev1", "LOGINDISABLED")
    with pytest.raises(MailboxUnavailable, match="takes no password on this connection"):
        logged_in(desk.mailbox(server.port))
    assert "LOGIN" not in server.commands


def test_a_password_with_quotes(desk: Desk) -> None:
    """Quotes and backslashes in a password arrive as they are."""
    server = ImapServer(password='a"b\\c d')
    with server.running():
        logged_in(desk.mailbox(server.port), 'a"b\\c d').close()


def test_the_socket_is_tuned(desk: Desk, server: ImapServer) -> None:
    """Small commands leave at once, and a dead peer is noticed."""
    session = logged_in(desk.mailbox(server.port))
    tuned = session.wire.sock
    assert tuned.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert tuned.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert tuned.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
    session.close()


def test_literals_are_not_formatted_for_a_debug_log(
    desk: Desk, server: ImapServer, caplog: pytest.LogCaptureFixture
) -> None:
    """imapclient logs each line and literal at debug level, at half its speed: nothing of that is left."""
    server.deliver(mail(1, "the planted text"))
    caplog.set_level(logging.DEBUG)
    session = logged_in(desk.mailbox(server.port))
    session.select("INBOX", writable=False)
    assert b"planted" in session.bodies([1])[1]
    session.close()

    assert session.wire.debug == 0
    assert "planted" not in caplog.text
    assert "demo" not in caplog.text.replace("Logged in as demo", "")


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead IPv6 route does not eat the time of the IPv4 address behind it."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=0)
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    dead = ("127.0.0.1", 1)
    monkeypatch.setattr(
        connection.socket, "getaddrinfo",
        lambda *_, **__: [(*kind, dead), (*kind, ("127.0.0.1", server.port))],
    )  # fmt: skip

    logged_in(desk.mailbox(server.port)).close()
    silent.close()


def test_a_name_that_does_not_exist(desk: Desk) -> None:
    """A wrong host name is told as that."""
    with pytest.raises(MailboxUnavailable, match=r"imap\.invalid:993: the name cannot be looked up"):
        logged_in(desk.mailbox(993, host="imap.invalid", security="tls"))
