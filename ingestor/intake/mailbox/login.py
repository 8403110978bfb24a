"""From a configured mailbox to a logged-in session: TLS first, and every way a login can end told apart."""

import imaplib
import re
import ssl

from ingestor.errors import ConfigurationError, CredentialsRefused, IngestorError
from ingestor.intake.mailbox.session import Client, Session
from ingestor.intake.mailbox.stream import Stream
from ingestor.intake.mailbox.waiting import Bell, Timing
from ingestor.intake.mailbox.wire import Wire
from ingestor.intake.mailbox.words import in_full, loggable, speaking
from ingestor.settings import Mailbox

_PASSING = re.compile(
    r"\[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG|THROTTLED)\b|\btoo many\b|\bsimultaneous\b|\bconcurrent\b"
    r"|\btemporar(y|ily)\b|\btry (again|later)\b|\bauthenticated but not connected\b",
    re.IGNORECASE,
)
"""What passes by itself (RFC 5530 3, and what servers say without a code); any other NO is a refusal."""


def connect(mailbox: Mailbox, password: str, timing: Timing, stop: Bell) -> Session:
    """Connect to `mailbox`, secure the connection as configured, log in, and return the session.

    Raises MailboxUnavailable; CredentialsRefused only where the server itself refused the login;
    ConfigurationError where the CA file cannot be used.
    """
    context = _tls_context(mailbox) if mailbox.security != "plain" else None
    encrypted = mailbox.security == "tls"
    with speaking(f"{mailbox.host}:{mailbox.port}"):
        wire = Wire(
            Stream(mailbox.host, mailbox.port, timing=timing, stop=stop),
            tls=context if encrypted else None,
            local_only=mailbox.security == "plain" and not mailbox.allow_plain,
        )
    try:
        session = Session(Client(wire, encrypted=encrypted), wire)
        with session.speaking():
            if mailbox.security == "starttls":
                _start_tls(session, context)
            _log_in(session, mailbox.username, password)
    except BaseException:
        wire.shutdown()
        raise
    return session


def _tls_context(mailbox: Mailbox) -> ssl.SSLContext:
    if mailbox.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(mailbox.ca_file))
    except OSError as fault:  # ssl.SSLError is one, too
        raise ConfigurationError(
            f"mailbox {mailbox.name}: ca_file {mailbox.ca_file} cannot be used "
            f"({'it is no PEM certificate' if isinstance(fault, ssl.SSLError) else fault.strerror})"
        ) from None


def _start_tls(session: Session, context: ssl.SSLContext | None) -> None:
    if not session.client.has_capability("STARTTLS"):
        raise session.wire.fault("it offers no STARTTLS; the password was not sent")
    session.client.starttls(context)


def _log_in(session: Session, username: str, password: str) -> None:
    """Log in, and tell a refused password from everything else that a login can end in."""
    client = session.client
    if session.wire.state != "NONAUTH":
        raise session.wire.fault("it greets us as logged in already (PREAUTH), nobody knows as whom")
    by_sasl = bool(client.has_capability("AUTH=PLAIN"))
    by_login = not client.has_capability("LOGINDISABLED")
    ascii_only = (username + password).isascii()  # LOGIN is ASCII; SASL PLAIN carries UTF-8
    if not by_sasl and not by_login:
        raise session.wire.fault("it takes no password on this connection; try another setting of `security`")
    if not by_sasl and not ascii_only:
        raise session.wire.fault("it offers no AUTH=PLAIN, which a name or password beyond ASCII needs")
    try:
        if by_login and ascii_only:
            client.login(username, password)
        else:
            client.plain_login(username, password)
    except imaplib.IMAP4.error as refusal:
        # imapclient calls every fault in here a LoginError, a cut connection included: ask what caused it.
        raise _judged(session, refusal.__context__ or refusal) from None


def _judged(session: Session, cause: BaseException) -> Exception:
    words = in_full(cause.args[0] if cause.args else "")
    fault: IngestorError
    if isinstance(cause, imaplib.IMAP4.abort) or "command error: BAD" in words:
        fault = session.wire.fault("it broke the login off")
    elif _PASSING.search(words):
        fault = session.wire.fault(f"it puts the login off ({loggable(words)})")
    else:
        fault = CredentialsRefused(
            f"{session.wire.host}:{session.wire.port}: it refuses the user name or password "
            f"({loggable(words)}); mend the credential, then: systemctl restart ingestor"
        )
    fault.said = words
    return fault
