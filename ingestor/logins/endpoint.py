"""The authorisation server: one POST a question, and every refusal told apart with what to do about it.

RFC 6749 5.2 and RFC 8628 3.5 name the errors; AADSTS numbers are Microsoft's (learn.microsoft.com, "Microsoft
Entra authentication and authorization error codes"). Of an error's words only these two reach a log: the
description quotes names of users.
"""

import json
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from ingestor.errors import ConfigurationError, LoginFault
from ingestor.logins.grants import oauth_of
from ingestor.redaction import one_line, redact
from ingestor.settings import Mailbox, OAuth

SECONDS: Final = 10.0
"""How long one answer may take: other work waits for it."""
HOURLY: Final = 3600.0
"""The pause before a login is tried again that only a person can mend."""
CLOCK_SLACK: Final = 120.0
_LARGEST: Final = 262144

_CONSENT: Final = frozenset({"unauthorized_client", "consent_required", "AADSTS65001", "AADSTS65004"})
_SECRET: Final = frozenset(
    {"invalid_client", "deleted_client", "AADSTS7000215", "AADSTS7000222", "AADSTS700027"}
)
_LOGIN: Final = frozenset(
    {"invalid_grant", "interaction_required", "login_required", "access_denied", "authorization_declined",
     "expired_token", "bad_verification_code"}
)  # fmt: skip
_CLOCK: Final = re.compile(r"AADSTS700024|short-lived token|\b(?:iat|nbf|exp)\b.*(?:past|future|time)")


class Answer(NamedTuple):
    """What a server answered, and by how many seconds our clock is before its own (None: it does not say)."""

    values: Mapping[str, Any]
    skew: float | None


class Pending(Exception):
    """A person has not logged in yet; `slower`: and is asked for too often."""

    def __init__(self, *, slower: bool) -> None:
        super().__init__()
        self.slower = slower


def ask(mailbox: Mailbox, url: str, form: Mapping[str, str], clock: Callable[[], float]) -> Answer:
    """POST `form` and return the answer; `clock` gives seconds since the epoch.

    Raises LoginFault for every refusal, ConfigurationError where `ca_file` cannot be used, and Pending.
    """
    host, given = urlsplit(url).hostname, oauth_of(mailbox).ca_file
    ca_file = None if given is None else str(given)
    try:
        with urllib3.PoolManager(ca_certs=ca_file, retries=False, timeout=SECONDS) as pool:
            response = pool.request(
                "POST", url, body=urlencode(form), redirect=False, preload_content=False,
                headers={
                    "Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json",
                },
            )  # fmt: skip
            body = response.read(_LARGEST)
    except (HTTPError, OSError) as fault:
        if ca_file is not None and isinstance(fault, FileNotFoundError):
            raise ConfigurationError(f"mailbox {mailbox.name}: ca_file {ca_file} is not there") from None
        raise LoginFault(f"{host}: the authorisation server cannot be reached ({_why(fault)})") from None
    skew = _skew(response.headers.get("Date"), clock())
    values = _values(body)
    if response.status == 200 and ("access_token" in values or "device_code" in values):
        return Answer(values, skew)
    if values.get("error") in {"authorization_pending", "slow_down"}:
        raise Pending(slower=values["error"] == "slow_down")
    refused = refusal(mailbox, response.status, values, skew)
    if response.status == 429 or response.status >= 500:
        refused.pause = _retry_after(response.headers.get("Retry-After"))
    refused.said = redact(one_line(str(values.get("error_description", ""))))[:500]
    raise refused


def refusal(mailbox: Mailbox, status: int, values: Mapping[str, Any], skew: float | None) -> LoginFault:
    oauth = oauth_of(mailbox)
    host = urlsplit(oauth.endpoint("token")).hostname
    description = str(values.get("error_description", ""))
    error = str(values.get("error", ""))
    error = error if re.fullmatch(r"[A-Za-z_]{1,40}", error) else ""
    number = re.search(r"AADSTS\d{4,7}", description)
    seen = {one for one in (error, number and number[0]) if one}
    words = f"{host}: {' '.join(sorted(seen)) or f'HTTP {status}'}"
    if status == 429 or status >= 500 or error in {"temporarily_unavailable", "server_error"}:
        return LoginFault(f"{words}: the authorisation server is busy; it is asked again")
    asserts = oauth.key_credential is not None or oauth.key_file is not None
    if asserts and (_CLOCK.search(description) or (skew is not None and abs(skew) > CLOCK_SLACK)):
        return LoginFault(f"{words}: {clock_words(skew)}", "clock", HOURLY)
    if seen & _CONSENT:
        return LoginFault(f"{words}: {_consent(oauth)}", "needs_consent", HOURLY)
    if seen & _SECRET:
        return LoginFault(
            f"{words}: the client secret or key is wrong, or has ended; make a new one (of a secret its "
            "value, not its id), put it in the old one's place, then: systemctl restart ingestor",
            "needs_secret", HOURLY,
        )  # fmt: skip
    if seen & _LOGIN and oauth.needs_person:
        return LoginFault(f"{words}: {_lost(mailbox, oauth)}", "needs_login", HOURLY)
    if seen & _LOGIN:
        return LoginFault(
            f"{words}: it gives no token for {oauth.flow}: the key was deleted, or `username` is no mailbox "
            "of that organisation",
            "refused", HOURLY,
        )  # fmt: skip
    return LoginFault(
        f"{words}: it refuses the request; look at provider, tenant, client_id and scope of [mailbox.oauth]",
        "misconfigured", HOURLY,
    )  # fmt: skip


def clock_words(skew: float | None) -> str:
    """Return the sentence on a clock that is `skew` seconds before the server's (negative: behind)."""
    off = "off" if skew is None else f"{round(abs(skew) / 60)} minutes {'fast' if skew > 0 else 'slow'}"
    return f"this machine's clock is {off}, so what it signs is not valid; run: timedatectl set-ntp true"


def _consent(oauth: OAuth) -> str:
    if oauth.provider == "google":
        return (
            "the service account may not act for the mailbox; in the Google admin console, API controls, "
            f"domain-wide delegation, allow its client id the scope {oauth.scopes}"
        )
    if oauth.provider == "microsoft":
        return (
            "an administrator must agree once: https://login.microsoftonline.com/"
            f"{oauth.tenant}/adminconsent?client_id={oauth.client_id}"
        )
    return "the application may not have this; its administrator must allow it"


def _lost(mailbox: Mailbox, oauth: OAuth) -> str:
    why = {
        "google": " (Google: a changed password, six months unused, or seven days while the consent screen "
        "is in Testing)",
        "microsoft": " (Microsoft: a changed password, a new sign-in rule, or long unused)",
    }.get(oauth.provider, "")
    return f"the login is no longer good{why}; run: ingestor login {mailbox.name}"


def _values(body: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(body)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _skew(date: str | None, now: float) -> float | None:
    try:
        return now - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None


def _retry_after(seconds: str | None) -> float | None:
    return min(float(seconds), HOURLY) if seconds and seconds.isdecimal() else None


def _why(fault: Exception) -> str:
    """Return the kind of a network fault; its words hold addresses and, of TLS, whatever the peer sent."""
    kinds = {
        "NameResolutionError": "its name is not known",
        "ConnectTimeoutError": f"no answer in {SECONDS:.0f} s",
        "ReadTimeoutError": f"no answer in {SECONDS:.0f} s",
        "SSLError": "its certificate is not trusted",
        "NewConnectionError": "nobody listens there",
    }  # fmt: skip
    return kinds.get(type(fault).__name__, type(fault).__name__)
