"""The intakes: mailboxes and the listener.

A mailbox: password, login, each folder, what the server can do; folders that are read are EXAMINEd. The
listener: its port, its certificate, and its endpoints' passwords; nothing is sent anywhere.
"""

import contextlib
import errno
import socket
import ssl
import sys
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from urllib.parse import urlsplit

from ingestor.errors import ConfigurationError, CredentialsRefused, IngestorError, LoginFault
from ingestor.http.tls import server_context, validity
from ingestor.intake.mailbox.answers import FolderMissing, Refused, SearchUseless, Selected
from ingestor.intake.mailbox.context import Bell, Timing
from ingestor.intake.mailbox.login import Credential
from ingestor.intake.mailbox.session import Session, connect
from ingestor.intake.mailbox.trust import EXTRA, topmost
from ingestor.service.checks import Finding, fail, ok, warn
from ingestor.settings import Mailbox, Trust, Webhook, endpoint_passwords, login_key
from ingestor.settings.values import Listening
from ingestor.watch.troubles import ENDS_SOON

TIMING = Timing(connect=8.0, silence=8.0, command=15.0)
CLOCK_SLACK = timedelta(minutes=5)
TOKEN_CLOCK_SLACK = 120.0  # seconds; servers give tokens and signatures a few minutes
NOBODYS_UID = 2**32 - 1  # the largest that RFC 3501 allows


def check_mailbox(mailbox: Mailbox, senders: Collection[str] = ()) -> Sequence[Finding]:
    """Return what is found about `mailbox`, whose mails come from `senders`."""
    subject = f"mailbox {mailbox.name}"
    credential = Credential(mailbox)
    ends = list(_ends(mailbox, subject, datetime.now(UTC)))
    try:
        password = credential.get(Bell(), fresh=True)
    except IngestorError as error:
        return [*ends, fail(subject, _in_full(error))]
    found = [*ends, *_tokens(mailbox, credential.skew, subject)]
    try:
        session = connect(mailbox, password, TIMING, Bell())
        try:
            return [
                *found,
                ok(subject, f"logged in to {mailbox.host}:{mailbox.port} ({mailbox.security})"),
                *_folders(mailbox, session, subject),
                *_abilities(mailbox, session, subject),
                *(_trust(mailbox.trust, mailbox, session, subject, senders) if mailbox.trust else ()),
            ]
        finally:
            session.close()
    except (CredentialsRefused, LoginFault) as error:
        return [*found, fail(subject, _in_full(error))]
    except ConfigurationError as error:
        return [*found, fail(subject, str(error).removeprefix(f"{subject}: "))]
    except IngestorError as error:
        look = _certificate(mailbox) if "its certificate" in str(error) else None
        return [*found, fail(subject, _in_full(error), look or _by_hand(mailbox))]


def _tokens(mailbox: Mailbox, skew: float | None, subject: str) -> Iterator[Finding]:
    """Say that a new access token came, and how our clock stands against the server's that gave it."""
    if mailbox.oauth is None:
        return
    host = urlsplit(mailbox.oauth.endpoint("token")).hostname
    yield ok(subject, f"{host} gave an access token ({mailbox.oauth.flow})")
    if skew is not None and abs(skew) > TOKEN_CLOCK_SLACK:
        off = f"{round(abs(skew) / 60)} minutes {'fast' if skew > 0 else 'slow'}"
        yield warn(
            subject, f"this machine's clock is {off} against {host}, so tokens end at another time than we "
            "think, and what a key signs may not be valid", "set it: timedatectl set-ntp true",
        )  # fmt: skip


def _ends(mailbox: Mailbox, subject: str, now: datetime) -> Iterator[Finding]:
    """Say when the client secret, or the certificate in its place, ends."""
    oauth = mailbox.oauth
    if oauth is None:
        return
    # Here, as the daemon loads this file, and leaves all that fetches tokens to its helper process.
    from ingestor.logins.grants import certificate_end

    what, ends = "client secret", oauth.secret_ends and datetime.combine(oauth.secret_ends, time.min, UTC)
    if ends is None and oauth.flow == "client_credentials":
        with contextlib.suppress(ConfigurationError):  # the login says it
            what, ends = "certificate", certificate_end(login_key(oauth) or b"")
    if ends is None:
        return
    fix = "make a new one at the provider, put it in the old one's place, and mend secret_ends"
    if now > ends:
        yield fail(subject, f"its {what} ended on {ends:%Y-%m-%d}", fix)
    elif now > ends - ENDS_SOON:
        yield warn(subject, f"its {what} ends on {ends:%Y-%m-%d}", fix)
    else:
        yield ok(subject, f"its {what} is good until {ends:%Y-%m-%d}")


def _in_full(error: IngestorError) -> str:
    """Return an error with all that the server said, where a person reads it at a terminal."""
    return f"{error}; it said: {error.said}" if error.said and sys.stdout.isatty() else str(error)


def _certificate(mailbox: Mailbox) -> str | None:
    """Return whose certificate the server shows, and until when; nothing is verified, and nothing sent."""
    from cryptography import x509  # here, as nobody else in `check` of a mailbox needs it

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((mailbox.host, mailbox.port), TIMING.connect) as plain:
            if mailbox.security == "starttls":
                plain.recv(4096)
                plain.sendall(b"a STARTTLS\r\n")
                plain.recv(4096)
            with context.wrap_socket(plain, server_hostname=mailbox.host) as secured:
                shown = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None
    try:
        kinds = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(one.value) for one in kinds][:5]
    except x509.ExtensionNotFound:
        names = [shown.subject.rfc4514_string()]
    dates = f"{shown.not_valid_before_utc:%Y-%m-%d} to {shown.not_valid_after_utc:%Y-%m-%d}"
    return f"it is for {', '.join(names)}, from {dates}, signed by {shown.issuer.rfc4514_string()}"


def _by_hand(mailbox: Mailbox) -> str:
    """Return a command that shows the same fault without us, or what is wrong with the port."""
    if mailbox.port == 993 and mailbox.security != "tls":
        return 'port 993 speaks TLS from the first byte: security = "tls"'
    place = f"{mailbox.host}:{mailbox.port}"
    if mailbox.security == "plain":
        return f"look by hand: nc -v {mailbox.host} {mailbox.port}"
    starttls = " -starttls imap" if mailbox.security == "starttls" else ""
    return f"look by hand: openssl s_client{starttls} -connect {place}"


def _folders(mailbox: Mailbox, session: Session, subject: str) -> Iterator[Finding]:
    """Open each folder with EXAMINE, which changes nothing, not even \\Recent."""
    for name in mailbox.folders:
        try:
            selected = session.select(session.require_folder(name), writable=False)
        except IngestorError as error:
            yield fail(subject, _in_full(error), "mend `folders`")
            continue
        yield ok(subject, f"folder {selected.name}: {selected.exists} mails")
        yield from _searching(session, subject, selected)
        yield from _clock(session, subject, selected.uidnext, datetime.now(UTC))
    if mailbox.after_store == "move" and mailbox.move_to is not None:
        if session.folder_named(mailbox.move_to) is None:
            yield warn(subject, f"move_to: there is no folder {mailbox.move_to!r}", "the first move makes it")
        else:
            yield ok(subject, f"move_to: {mailbox.move_to} is there")


def _searching(session: Session, subject: str, folder: Selected) -> Iterator[Finding]:
    """Look for the last mail by SEARCH, which some servers do not find."""
    try:
        for uid in session.newest(1):
            session.search(uid)
    except SearchUseless as useless:
        yield warn(subject, f"folder {folder.name}: {useless}", "mails are listed by number instead")
    except Refused:
        return  # the folder has been emptied since


def _clock(session: Session, subject: str, uidnext: int | None, now: datetime) -> Iterator[Finding]:
    """Compare our clock with the server's: mail that arrived in the future means that ours is slow."""
    if not uidnext or uidnext < 2:
        return
    try:
        newest = session.headers([uidnext - 1], dated=True).get(uidnext - 1)
    except Refused:
        return  # then there is nothing to compare with
    arrived = newest.received_at if newest is not None else None
    if arrived is not None and arrived > now + CLOCK_SLACK:
        yield warn(
            subject,
            f"its newest mail is from {arrived.astimezone(UTC):%Y-%m-%d %H:%M} UTC, which is in our future",
            "set this machine's clock: timedatectl set-ntp true",
        )


def _abilities(mailbox: Mailbox, session: Session, subject: str) -> Iterator[Finding]:
    """Say what the server's abilities mean for this configuration."""
    if mailbox.idle and not session.can_idle:
        yield warn(subject, f"the server offers no IDLE; mail is seen every {mailbox.poll_seconds} s")
    elif mailbox.idle:
        yield ok(subject, f"IDLE on {mailbox.folders[0]}, and a look every {mailbox.poll_seconds} s")
    else:
        yield ok(subject, f"a look every {mailbox.poll_seconds} s, without IDLE")
    if mailbox.after_store == "move" and session.can_move:
        yield from _try_move(mailbox, session, subject)
    if mailbox.after_store in {"keep", "seen"}:
        yield ok(subject, f"after_store = {mailbox.after_store} needs nothing of the server")
    elif session.can_expunge or (mailbox.after_store == "move" and session.can_move):
        yield ok(subject, f"after_store = {mailbox.after_store} can be done by the server")
    else:
        lacks = "neither a MOVE that works nor UIDPLUS" if mailbox.after_store == "move" else "no UIDPLUS"
        yield warn(
            subject,
            f"the server has {lacks}: stored mail is only flagged \\Deleted and never expunged, lest "
            "somebody else's deleted mail goes too",
            "expunge it by hand, or use after_store = keep",
        )


def _try_move(mailbox: Mailbox, session: Session, subject: str) -> Iterator[Finding]:
    """Try MOVE on a mail that is not there, with `move_to` open: nobody's mail is touched."""
    target = session.folder_named(mailbox.move_to or "")
    if target is None:
        return
    try:
        if not session.select(target, writable=True).writable:
            yield warn(subject, f"move_to: {mailbox.move_to} can only be read")
            return
        session.move([NOBODYS_UID], target)
    except Refused as refusal:
        if session.refuses_move:
            yield ok(
                subject,
                "MOVE is offered, and a try of it refused; mails are copied and expunged instead "
                f"({_in_full(refusal)})",
            )
        else:
            yield warn(subject, f"move_to: {mailbox.move_to} cannot be opened: {_in_full(refusal)}")


def _trust(
    trust: Trust, mailbox: Mailbox, session: Session, subject: str, senders: Collection[str]
) -> Iterator[Finding]:
    """Say what [mailbox.trust] will do, and whether it can."""
    does = {
        "record": "each verdict is kept beside the SMS",
        "require": "a mail of ours whose sender is not proven goes to the quarantine",
    }[trust.policy]
    if trust.method == "dkim":
        yield from _name_servers(trust, subject, does, senders)
        return
    try:
        session.select(session.require_folder(mailbox.folders[0]), writable=False)
    except FolderMissing:
        return  # that is told already
    for uid in session.newest(1):
        noted = topmost(session.whole_header(uid), trust.authserv_id)
        if isinstance(noted, str):
            fix = "look at its header: your mail server must write the topmost Authentication-Results"
            yield warn(subject, f"trust: of the newest mail in {mailbox.folders[0]}: {noted}", fix)
        else:
            yield ok(subject, f"trust: the newest mail has what your mail server noted; {does}")
        return
    yield ok(subject, f"trust: there is no mail yet to look at; {does}")


def _name_servers(trust: Trust, subject: str, does: str, senders: Collection[str]) -> Iterator[Finding]:
    """Ask about the domains of the senders."""
    try:
        from ingestor.intake.mailbox.signatures import Keys
    except ImportError:
        yield fail(subject, 'trust: method = "dkim" needs what is not installed', f"pip install {EXTRA}")
        return
    for domain in sorted({one.rpartition("@")[2] for one in senders}):
        if Keys(trust.resolvers).answers(domain):
            yield ok(subject, f"trust: a name server answers about {domain}; {does}")
        else:
            told, waits = (warn, "no verdict") if trust.policy == "record" else (fail, "mails wait for one")
            fix = f"look by hand: dig TXT {domain}"
            yield told(subject, f"trust: no name server answers about {domain}; {waits}", fix)


def check_webhook(webhook: Webhook) -> Sequence[Finding]:
    """Return what is found about the listener of `webhook`."""
    return [port(webhook, "webhook"), *certificate(webhook, datetime.now(UTC)), *passwords(webhook)]


def port(section: Listening, subject: str) -> Finding:
    """Say whether its address and port can be listened on, by binding to it for a moment."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            section.host, section.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as listening:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"fine if that is the running daemon; else see: ss -ltnp 'sport = :{section.port}'"
            return warn(subject, f"somebody listens on {section.listen} already", fix)
        if error.errno == errno.EACCES:
            fix = "use a port above 1023 behind a proxy, or grant CAP_NET_BIND_SERVICE"
            return fail(subject, f"this user may not listen on {section.listen}", fix)
        fix = "give `listen` an address of this machine"
        return fail(subject, f"{section.listen} cannot be listened on ({error.strerror})", fix)
    return ok(subject, f"{section.listen} is free")


def certificate(webhook: Webhook, now: datetime) -> Iterator[Finding]:
    """Say whether the certificate fits its key, and for how long it is good."""
    if webhook.tls_certificate is None or webhook.tls_key is None:
        return
    try:
        server_context(webhook.tls_certificate, webhook.tls_key)
        good = validity(webhook.tls_certificate)
    except ConfigurationError as error:
        yield fail("webhook", str(error))
        return
    chain, begins, ends = webhook.tls_certificate, good.begins, good.ends
    if now < begins:
        yield fail(
            "webhook", f"{chain} is not good before {begins:%Y-%m-%d %H:%M} UTC", "is the clock right?"
        )
    elif now > ends:
        yield fail("webhook", f"{chain} ended on {ends:%Y-%m-%d %H:%M} UTC", "renew the certificate")
    elif now > ends - ENDS_SOON:
        yield warn("webhook", f"{chain} ends on {ends:%Y-%m-%d}", "renew the certificate")
    else:
        yield ok("webhook", f"{chain} is good until {ends:%Y-%m-%d}")


def passwords(webhook: Webhook) -> Iterator[Finding]:
    """Say whether every endpoint's Basic passwords can be read. How strong its path is, the cautions say."""
    for name, endpoint in webhook.named:
        try:
            endpoint_passwords(endpoint)
        except ConfigurationError as error:
            yield fail("webhook", f"endpoint {name}: {error}")
        else:
            yield ok("webhook", f"endpoint {name} is complete")
