"""A login that needs a person, from a server without a browser: by a device code, or by a copied address."""

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from ingestor.errors import LoginFault
from ingestor.logins import kept_of, oauth_of, state
from ingestor.logins.endpoint import HOURLY, Pending, ask
from ingestor.logins.grants import client_of
from ingestor.redaction import register_secret
from ingestor.settings import Mailbox

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
    given = ask(mailbox, oauth.device_endpoint, form, clock).values
    page = given.get("verification_uri") or given.get("verification_url")
    tell(f"On any machine open {page}")
    tell(f"log in as {mailbox.username}, and enter the code {given.get('user_code')}")
    interval, deadline = float(given.get("interval") or 5), clock() + float(given.get("expires_in") or 900)
    while clock() < deadline:
        sleep(interval)
        form = {"grant_type": _DEVICE_GRANT, "device_code": given["device_code"]}
        try:
            return ask(
                mailbox, oauth.token_endpoint, {**form, **client_of(mailbox, oauth, clock())}, clock
            ).values
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
    tell(f"In a browser on any machine open\n\n  {oauth.authorization_endpoint}?{urlencode(query)}\n")
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
    return ask(mailbox, oauth.token_endpoint, form, clock).values
