"""Access tokens for mailboxes: fetched at an authorisation server, kept in a file, and renewed in time.

Only `ingestor token` and `ingestor login` load this room: the daemon calls the first as a process of its own
and keeps the access token alone, so that it carries neither an HTTP client nor a word of the refresh token.
`grants` says what is asked for, `endpoint` asks and tells refusals apart, `state` keeps the answer, and
`person` leads through a login.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ingestor.errors import ConfigurationError, LoginFault
from ingestor.logins import state
from ingestor.logins.endpoint import HOURLY, ask
from ingestor.logins.grants import request_of
from ingestor.logins.state import Kept
from ingestor.settings import Mailbox, OAuth

LIFE_UNSAID: Final = 300.0
"""Seconds that a token is taken to live where the server does not say: expires_in is optional (RFC 6749)."""
RENEWED_AFTER: Final = 0.8
"""The part of a token's life after which the next one is fetched."""


class AccessToken(NamedTuple):
    """A token, when to fetch the next one, when it ends (seconds since the epoch), and what was seen.

    `fetched`: just now, not long ago. `skew`: seconds by which our clock is before the server's, None where
    nobody was asked or the server does not tell.
    """

    token: str
    renew_at: float
    expires_at: float
    fetched: bool
    skew: float | None = None


def oauth_of(mailbox: Mailbox) -> OAuth:
    """Return the mailbox's table. Raises ConfigurationError where it logs in otherwise."""
    if mailbox.oauth is None:
        raise ConfigurationError(
            f"mailbox {mailbox.name} has no [mailbox.oauth]; OPERATING.md, `Logins by OAuth2`, shows one"
        )
    return mailbox.oauth


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
                answer = ask(mailbox, oauth.token_endpoint, form, clock)
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
    parts = (oauth.token_endpoint, oauth.flow, oauth.client_id, oauth.scopes, mailbox.username)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
