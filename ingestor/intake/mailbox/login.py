"""How a mailbox is entered: a password or an access token, and every way that a login can end told apart.

XOAUTH2 is Google's and Microsoft's (developers.google.com/workspace/gmail/imap/xoauth2-protocol), OAUTHBEARER
the standard (RFC 7628). Tokens come from a helper process, `ingestor token`: what fetches them stays there.
"""

import contextlib
import imaplib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from imapclient import IMAPClient

from ingestor.errors import CredentialsRefused, IngestorError, LoginFault, MailboxUnavailable
from ingestor.intake.mailbox.answers import in_full, loggable
from ingestor.intake.mailbox.connection import Wire
from ingestor.intake.mailbox.context import Bell, Stopped, ready
from ingestor.logs import get_logger
from ingestor.redaction import forget_secret, register_secret
from ingestor.settings import Mailbox, secret
from ingestor.settings.mailbox import EXCHANGE_ONLINE

HELPER_SECONDS: Final = 40.0
"""Twice what the helper process needs at worst: its wait for another one, and one answer."""
_ENDING_SECONDS: Final = 1.0
_LARGEST: Final = 262144

_PASSING: Final = re.compile(
    r"\[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG|THROTTLED)\b|\btoo many\b|\bsimultaneous\b|\bconcurrent\b"
    r"|\btemporar(y|ily)\b|\btry (again|later)\b",
    re.IGNORECASE,
)
"""What passes by itself (RFC 5530 3, and what servers say without a code); any other NO is a refusal."""

_HOSTS: Final = {
    "microsoft": EXCHANGE_ONLINE,
    "google": r"(?:^|\.)(?:gmail|googlemail)\.com$",
}
_CHAPTER: Final = "see OPERATING.md, `Logins by OAuth2`"
_CAUSES: Final = {
    ("microsoft", True): "Exchange Online says no more than that; it is one of: the object id given to "
    "New-ServicePrincipal was not the one under Enterprise applications; the application or user has no "
    "permission for this mailbox; IMAP is switched off for it",
    ("microsoft", False): f"Exchange Online and Outlook.com take no passwords any more; {_CHAPTER}",
    ("google", True): "one of: IMAP is switched off for the account; `username` is not the account that "
    "logged in; the consent was taken back or does not hold the scope https://mail.google.com/",
    ("google", False): "Gmail takes an app password (16 letters, with 2-step login), never the account's "
    f"own; or IMAP is switched off; or {_CHAPTER}",
}
"""By provider, and whether a token was refused."""

Entered = TypeVar("Entered")

log = get_logger(__name__)


class Credential:
    """What one mailbox is entered with: its password, or an access token that is fetched when it is due."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._token = ""
        self._hidden = ""
        self._renew_at = self._expires_at = 0.0
        self.skew: float | None = None
        """Seconds by which our clock is before the authorisation server's, where one was asked."""
        self._aged = False

    @property
    def doubtful(self) -> bool:
        """Whether what was given last is a token that may be at fault itself: not made just now, or over."""
        return self._aged or 0.0 < self._expires_at < time.time()

    def get(self, stop: Bell, *, fresh: bool = False) -> str:
        """Return the password or token; `fresh`: a new token, however long the known one lives.

        Raises LoginFault, ConfigurationError, and Stopped when the bell rings.
        """
        mailbox = self._mailbox
        if mailbox.oauth is None or mailbox.password is not None:
            given = secret(mailbox)
            if mailbox.token_command is not None:
                self._hide(given)
            return given
        if fresh or time.time() >= self._renew_at:
            self._renew(stop, fresh=fresh)
        else:
            self._aged = True
        return self._token

    def _renew(self, stop: Bell, *, fresh: bool) -> None:
        try:
            given = _asked(self._mailbox, stop, fresh=fresh)
        except IngestorError as fault:
            if fresh or time.time() >= self._expires_at:
                raise
            log.warning(
                "no new access token for a mailbox; the old one serves while it lasts",
                mailbox=self._mailbox.name, reason=str(fault),
            )  # fmt: skip
            self._aged = True
            return
        self._token, self._aged, self.skew = given["token"], not given["fetched"], given["skew"]
        self._renew_at, self._expires_at = given["renew_at"], given["expires_at"]
        self._hide(self._token)

    def _hide(self, token: str) -> None:
        """Hide `token` from the log, and no more the one before it."""
        if self._hidden != token:
            forget_secret(self._hidden)
        self._hidden = token
        register_secret(token)


def credential_of(mailbox: Mailbox) -> str:
    """Return what `mailbox` is entered with, for a command that connects once; raises as `Credential.get`."""
    return Credential(mailbox).get(Bell())


def entering(credential: Credential, stop: Bell, enter: Callable[[str], Entered]) -> Entered:
    """Return what `enter` makes of the credential; a token refused though it was good is replaced, twice.

    A server may revoke a token, clocks differ, and one may end on its way: only a token that was made just
    now and still lives proves that the login itself is refused.
    """
    tries = 3
    while True:
        tries -= 1
        try:
            return enter(credential.get(stop, fresh=tries < 2))
        except CredentialsRefused:
            if not tries or not credential.doubtful:
                raise


def _asked(mailbox: Mailbox, stop: Bell, *, fresh: bool) -> Mapping[str, Any]:
    if mailbox.home is None:
        raise LoginFault(
            f"mailbox {mailbox.name} stands in no file, so no token is to be had", "misconfigured"
        )
    words = ["--config", str(mailbox.home.config), "token", mailbox.name, *(["--fresh"] if fresh else [])]
    kept = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    try:
        process = subprocess.Popen(  # noqa: S603 - ourselves, without a shell; the token comes by the pipe
            [sys.executable, "-P", "-m", "ingestor", *words], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**kept, "STATE_DIRECTORY": str(mailbox.home.state)},
        )  # fmt: skip
    except OSError as fault:
        raise LoginFault(f"the helper process cannot be started: {fault.strerror}") from None
    answer = _answer(process, stop)
    try:
        given = json.loads(answer)
    except ValueError:
        raise LoginFault(
            f"the helper process gave no answer; see: ingestor token {mailbox.name} | cat"
        ) from None
    if "fault" not in given:
        return dict(given)
    refused = LoginFault(given["fault"], given["state"], given["pause"])
    refused.said = given["said"]
    raise refused


def _answer(process: "subprocess.Popen[bytes]", stop: Bell) -> bytes:
    """Return all that `process` prints, waiting for its end no longer than the bell is still."""
    said, deadline = b"", time.monotonic() + HELPER_SECONDS
    if process.stdout is None:
        raise ValueError("its output must be a pipe")
    with process.stdout as pipe:
        while len(said) < _LARGEST and (left := deadline - time.monotonic()) > 0:
            found = ready(left, pipe, stop)
            if stop.fileno() in found:
                break
            if pipe.fileno() in found:
                piece = os.read(pipe.fileno(), 65536)
                if not piece:
                    break
                said += piece
    _end(process)
    if stop.rung:
        raise Stopped
    return said


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Wait a moment for the process, which has answered or is asked to end; never kill it.

    It heeds a wish to end only while no refresh token of its is under way.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDING_SECONDS)
        return
    process.terminate()
    threading.Thread(target=process.wait, name="login helper", daemon=True).start()


class NotOpened(MailboxUnavailable):
    """The server knows the login, and does not open the mailbox: tried again slowly."""


def log_in(client: IMAPClient, wire: Wire, mailbox: Mailbox, credential: str) -> None:
    """Log in with a password or token.

    Raises CredentialsRefused, MailboxUnavailable, and what imaplib raises where the line breaks.
    """
    if wire.state != "NONAUTH":
        raise wire.fault("it greets us as logged in already (PREAUTH), nobody knows as whom")
    offered = {one for one in ("OAUTHBEARER", "XOAUTH2", "PLAIN") if client.has_capability(f"AUTH={one}")}
    try:
        if mailbox.by_token:
            _with_token(wire, mailbox, credential, offered)
        else:
            _with_password(client, wire, mailbox, credential, offered)
    except imaplib.IMAP4.error as refusal:
        # imapclient calls every fault in here a LoginError, a cut connection included: ask what caused it.
        raise _judged(wire, mailbox, refusal.__context__ or refusal) from None


def _with_token(wire: Wire, mailbox: Mailbox, token: str, offered: set[str]) -> None:
    user = mailbox.username
    if "OAUTHBEARER" in offered:
        # RFC 7628 3.1; a name's comma and equals sign are written as RFC 5801 4 says.
        name = user.replace("=", "=3D").replace(",", "=2C")
        first = f"n,a={name},\1host={wire.host}\1port={wire.port}\1auth=Bearer {token}\1\1"
        mechanism, last = "OAUTHBEARER", b"\1"
    elif "XOAUTH2" in offered:
        first = f"user={user}\1auth=Bearer {token}\1\1"
        mechanism, last = "XOAUTH2", b""
    else:
        raise wire.fault("it offers neither OAUTHBEARER nor XOAUTH2, so it takes no access token")
    answers = iter((first.encode(), last))
    # A refusal may come as a challenge, which wants an answer without content before the server says NO.
    wire.authenticate(mechanism, lambda _: next(answers, None))


def _with_password(
    client: IMAPClient, wire: Wire, mailbox: Mailbox, password: str, offered: set[str]
) -> None:
    user, by_sasl = mailbox.username, "PLAIN" in offered
    by_login = not client.has_capability("LOGINDISABLED")
    ascii_only = (user + password).isascii()  # LOGIN is ASCII; SASL PLAIN carries UTF-8
    if not by_sasl and not by_login:
        if offered:
            raise LoginFault(
                f"{wire.host}:{wire.port}: it takes OAuth2 only, no password; {_CHAPTER}", "refused", 3600.0
            )
        raise wire.fault("it takes no password on this connection; try another setting of `security`")
    if not by_sasl and not ascii_only:
        raise wire.fault("it offers no AUTH=PLAIN, which a name or password beyond ASCII needs")
    if by_login and ascii_only:
        client.login(user, password)
    else:
        client.plain_login(user, password)


def _judged(wire: Wire, mailbox: Mailbox, cause: BaseException) -> Exception:
    words = in_full(cause.args[0] if cause.args else "")
    fault: IngestorError
    if isinstance(cause, imaplib.IMAP4.abort) or "command error: BAD" in words:
        fault = wire.fault("it broke the login off")
    elif "authenticated but not connected" in words.lower():
        fault = NotOpened(
            f"{wire.host}:{wire.port}: it puts the login off: it knows the user and does not open the "
            "mailbox (authenticated but not connected): too many connections, a login without permission "
            "for this mailbox, or a passing fault of the server; tried again slowly"
        )
    elif _PASSING.search(words):
        fault = wire.fault(f"it puts the login off ({loggable(words)})")
    else:
        what = "access token" if mailbox.by_token else "user name or password"
        causes = _CAUSES.get((_provider(mailbox, words), mailbox.by_token), "")
        fault = CredentialsRefused(
            f"{wire.host}:{wire.port}: it refuses the {what} ({loggable(words)}); {causes and causes + '; '}"
            "mend the credential, then: systemctl restart ingestor"
        )
    fault.said = words
    return fault


def _provider(mailbox: Mailbox, words: str) -> str:
    if mailbox.oauth is not None and mailbox.oauth.provider != "other":
        return mailbox.oauth.provider
    if "support.google.com" in words:
        return "google"
    host = mailbox.host.rstrip(".").lower()
    return next((name for name, known in _HOSTS.items() if re.search(known, host)), "")
