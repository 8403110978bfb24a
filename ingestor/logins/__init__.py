"""Access tokens for mailboxes: fetched at an authorisation server, kept in a file, and renewed in time.

Only `ingestor token` and `ingestor login` load this room: the daemon calls the first as a process of its own
and keeps the access token alone, neither an HTTP client nor the refresh token. `grants` says what is asked
for, `endpoint` asks and tells refusals apart, `state` keeps the answer.
"""

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from ingestor.errors import LoginFault
from ingestor.logins import state
from ingestor.logins.endpoint import HOURLY, Pending, ask
from ingestor.logins.grants import client_of, oauth_of, request_of
from ingestor.logins.state import Kept
from ingestor.redaction import register_secret
from ingestor.settings import Mailbox

LIFE_UNSAID: Final = 300.0
"""Seconds that a token is taken to live where the server does not say: expires_in is optional (RFC 6749)."""
RENEWED_AFTER: Final = 0.8
"""The part of a token's life after which the next one is fetched."""


class AccessToken(NamedTuple):
    """A token, when to fetch the next one, when it ends (seconds since the epoch), and what was seen.

    `fetched`: just now, not long ago. `skew`: seconds by which our clock is before the server's, if it tells.
    """

    token: str
    renew_at: float
    expires_at: float
    fetched: bool
    skew: float | None = None


def access_token(
    mailbox: Mailbox, directory: Path, *, fresh: bool = False, clock: Callable[[], float] = time.time
) -> AccessToken:
    """Return a token that is good for a while: the kept one, or (`fresh`: always) a new one.

    `directory` is the state directory, `clock` gives seconds since the epoch. One process a mailbox asks at a
    time: two that spend one refresh token would lose both. Where the server cannot be reached the kept token
    serves as long as it lives. Raises LoginFault, and ConfigurationError where a secret cannot be had.
    """
    oauth = oauth_of(mailbox)
    with state.locked(directory, mailbox.name):
        kept = state.read(directory, mailbox.name)
        if kept is None or kept.login != login_of(mailbox):
            kept = Kept(login_of(mailbox))
        now = clock()
        if kept.token and not fresh and now < kept.renew_at:
            return AccessToken(kept.token, kept.renew_at, kept.expires_at, fetched=False)
        if oauth.needs_person and kept.refresh_token is None:
            where = state.file_of(directory, mailbox.name)
            raise LoginFault(
                f"nobody has logged in to mailbox {mailbox.name} yet, as {where} has no login; run: ingestor "
                f"login {mailbox.name}",
                "needs_login", HOURLY,
            )  # fmt: skip
        form = request_of(mailbox, oauth, kept.refresh_token or "", now)
        with state.room_for(directory, mailbox.name) as keep:
            try:
                answer = ask(mailbox, oauth.endpoint("token"), form, clock)
            except LoginFault as fault:
                if fault.state == "unreachable" and kept.token and not fresh and now < kept.expires_at:
                    pause = min(now + 60.0, kept.expires_at)
                    return AccessToken(kept.token, pause, kept.expires_at, fetched=False)
                raise
            made = kept_of(mailbox, answer.values, now, kept.refresh_token)
            keep(made)
    return AccessToken(made.token, made.renew_at, made.expires_at, fetched=True, skew=answer.skew)


def kept_of(mailbox: Mailbox, values: Mapping[str, Any], now: float, refresh_token: str | None) -> Kept:
    """Return what is kept of a server's answer; it may leave the refresh token as it was (RFC 6749 6)."""
    life = values.get("expires_in")
    seconds = float(life) if isinstance(life, int | str) and str(life).isdecimal() and int(life) else 0.0
    seconds = min(seconds, 86400.0) or LIFE_UNSAID
    return Kept(
        login_of(mailbox), values.get("refresh_token") or refresh_token, values["access_token"],
        now + RENEWED_AFTER * seconds, now + seconds,
    )  # fmt: skip


def login_of(mailbox: Mailbox) -> str:
    """Return what tells this login from another under the same name, whose tokens are not used for it."""
    oauth = oauth_of(mailbox)
    parts = (oauth.endpoint("token"), oauth.flow, oauth.client_id, oauth.scopes, mailbox.username)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER_BY: Final = 5.0  # RFC 8628 3.5

Tell = Callable[[str], None]


def log_in(
    mailbox: Mailbox, directory: Path, tell: Tell, read: Callable[[], str], *,
    sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.time,
) -> None:  # fmt: skip
    """Lead a person through the mailbox's flow and keep what comes of it in the state directory.

    `tell` shows a line, `read` returns one that was typed. Raises LoginFault where it comes to nothing.
    """
    if oauth_of(mailbox).flow == "device_code":
        answer = _by_device_code(mailbox, tell, sleep, clock)
    else:
        answer = _by_copied_address(mailbox, tell, read, clock)
    if not answer.get("refresh_token"):
        raise LoginFault(
            "the server gave no refresh token, so the login would end within the hour; ask for offline "
            "access in `scope` (Microsoft and others: offline_access)",
            "needs_login", HOURLY,
        )  # fmt: skip
    with state.locked(directory, mailbox.name), state.room_for(directory, mailbox.name) as keep:
        keep(kept_of(mailbox, answer, clock(), None))


def _by_device_code(
    mailbox: Mailbox, tell: Tell, sleep: Callable[[float], None], clock: Callable[[], float]
) -> Mapping[str, Any]:
    """RFC 8628: the person opens a page anywhere and types a code; we ask until that is done."""
    oauth = oauth_of(mailbox)
    form = {"client_id": oauth.client_id or "", "scope": oauth.scopes}
    given = ask(mailbox, oauth.endpoint("device"), form, clock).values
    page = given.get("verification_uri") or given.get("verification_url")
    tell(f"On any machine open {page}")
    tell(f"log in as {mailbox.username}, and enter the code {given.get('user_code')}")
    interval, deadline = float(given.get("interval") or 5), clock() + float(given.get("expires_in") or 900)
    while clock() < deadline:
        sleep(interval)
        form = {"grant_type": _DEVICE_GRANT, "device_code": given["device_code"]}
        form |= client_of(mailbox, oauth, clock())
        try:
            return ask(mailbox, oauth.endpoint("token"), form, clock).values
        except Pending as pending:
            interval += _SLOWER_BY if pending.slower else 0.0
        except LoginFault as fault:
            if fault.state != "unreachable":
                raise
            interval *= 2  # RFC 8628 3.5: after a time-out less often
    raise LoginFault("the code has run out; run the command again", "needs_login", HOURLY)


def _by_copied_address(
    mailbox: Mailbox, tell: Tell, read: Callable[[], str], clock: Callable[[], float]
) -> Mapping[str, Any]:
    """RFC 6749 4.1 with PKCE (RFC 7636): the address that the browser ends on carries the code."""
    oauth = oauth_of(mailbox)
    verifier, mark = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "response_type": "code", "client_id": oauth.client_id, "redirect_uri": oauth.redirect_url,
        "scope": oauth.scopes, "state": mark, "login_hint": mailbox.username,
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
        **({"access_type": "offline", "prompt": "consent"} if oauth.provider == "google" else {}),
    }  # fmt: skip
    tell(f"In a browser on any machine open\n\n  {oauth.endpoint('authorization')}?{urlencode(query)}\n")
    tell(f"and log in as {mailbox.username}. The browser ends on an address that begins with")
    tell(f"{oauth.redirect_url} and may find nothing there. Copy that whole address, and paste it here:")
    found = parse_qs(urlsplit(read().strip()).query)
    if found.get("error"):
        raise LoginFault("the login was refused in the browser; run the command again", "needs_login", HOURLY)
    if found.get("state") != [mark] or not found.get("code"):
        raise LoginFault("that address is not of this login; run the command again", "needs_login", HOURLY)
    register_secret(found["code"][0])
    form = {
        "grant_type": "authorization_code", "code": found["code"][0], "redirect_uri": oauth.redirect_url,
        "code_verifier": verifier, **client_of(mailbox, oauth, clock()),
    }  # fmt: skip
    return ask(mailbox, oauth.endpoint("token"), form, clock).values
