"""Notices: a mail (SMTP) and webhooks whose body is a template, signed. What they say is told nowhere else.

Their texts hold names of the configuration, states and counts: no number beyond its last four digits, no
text of an SMS, no secret.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from http.client import HTTPException
from string import Template
from typing import Final

from ingestor.errors import ConfigurationError, IngestorError
from ingestor.redaction import redact
from ingestor.settings import kept_secret
from ingestor.settings.watch import WatchMail, WatchWebhook, web_url
from ingestor.watch.conditions import Condition

SECONDS: Final = 10.0
"""For each wait of a POST or a mail."""
_SIGNED: Final = "whsec_"


class NotSent(IngestorError):
    """Nobody heard it; `retry` says whether that may pass."""


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """POST `body` to `url`. Raises NotSent, without the URL."""
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError("the URL to call must begin with https:// or http://")
    request = urllib.request.Request(  # noqa: S310 - looked at above
        url, body, {"User-Agent": "ingestor", "Content-Type": "text/plain; charset=utf-8", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - looked at above
            answer.read(1024)
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise NotSent(f"it was answered with {refusal.code}") from None
    except (OSError, HTTPException, ValueError) as fault:
        reason = getattr(fault, "reason", fault)
        raise NotSent(f"it could not be sent ({type(reason).__name__})") from None


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told: `state` is `begun` where something of it begins, else `over`."""

    state: str
    title: str
    text: str
    host: str


def notice_of(told: Sequence[Condition], host: str, now: datetime) -> Notice:
    """Return one notice about all of `told`, those that begin first, the grave before the others."""
    begun = sorted((one for one in told if one.state == "told"), key=lambda one: not one.grave)
    over = [one for one in told if one.state == "over"]
    first = (begun or over)[0]
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    kind = "over" if not begun else "NOT well" if first.grave else "to look at"
    lines = [
        f"{one.subject}: {one.says}, since {one.began_at:%Y-%m-%d %H:%M} UTC. To do: {one.fix}."
        for one in begun
    ]
    lines += [
        f"Over: {one.subject}: {one.says}; it lasted {_lasted(one, now)}, since "
        f"{one.began_at:%Y-%m-%d %H:%M} UTC." for one in over
    ]  # fmt: skip
    title = f"ingestor on {host}: {kind}: {first.subject}: {first.says}{more}"
    text = "\n".join([*lines, "`ingestor status` tells how it is now."])
    return Notice("begun" if begun else "over", redact(" ".join(title.split())), redact(text), host)


def _lasted(one: Condition, now: datetime) -> str:
    minutes = max(1, round(((one.gone_at or now) - one.began_at).total_seconds() / 60))
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"


def mail(settings: WatchMail, notice: Notice, now: datetime) -> None:
    """Send `notice` by mail. Raises NotSent, or ConfigurationError where the password cannot be had.

    With an empty envelope sender, so that nothing ever bounces to us (RFC 3834); a submission server that
    refuses it gets the From address.
    """
    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    # Python 3.13.5 doubles the blank before a word that must be encoded: what we write ourselves is ASCII.
    message["Subject"] = notice.title[:200].replace("…", "...")
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(notice.text)
    with logged_in(settings) as server:
        try:
            server.send_message(message, from_addr="", to_addrs=settings.to)
        except smtplib.SMTPSenderRefused:
            server.send_message(message, from_addr=settings.sender, to_addrs=settings.to)


@contextlib.contextmanager
def logged_in(settings: WatchMail) -> Iterator[smtplib.SMTP]:
    """Give the mail server, logged in where that is asked for; raises as `mail` does, for the block too."""
    password = kept_secret(settings.password_credential, settings.password_file)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        with _connected(settings, context) as server:
            if settings.username is not None:
                server.login(settings.username, password or "")
            yield server
    except (OSError, smtplib.SMTPException, ValueError) as fault:
        code = f" {fault.smtp_code}" if isinstance(fault, smtplib.SMTPResponseException) else ""
        raise NotSent(f"the mail server did not take it ({type(fault).__name__}{code})") from None


def _connected(settings: WatchMail, context: ssl.SSLContext) -> smtplib.SMTP:
    if settings.security == "tls":
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=SECONDS, context=context)
    server = smtplib.SMTP(settings.host, settings.port, timeout=SECONDS)
    if settings.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def webhook(settings: WatchWebhook, notice: Notice) -> None:
    """Post `notice`. Raises NotSent, or ConfigurationError where a secret cannot be had.

    Signed as standardwebhooks.com says where there is a secret: HMAC-SHA-256 over id, time and body.
    """
    url = url_of(settings)
    values = {"title": notice.title, "text": notice.text, "host": notice.host, "state": notice.state}
    as_json = "json" in settings.content_type
    body = filled(settings.body, values, as_json=as_json).encode()
    headers = {"Content-Type": settings.content_type}
    for line in settings.headers:
        name, _, value = line.partition(":")
        one_line = " ".join(filled(value, values, as_json=False).split())
        headers[name.strip()] = one_line.encode("latin-1", "replace").decode("latin-1")
    secret = kept_secret(settings.signing_credential, settings.signing_file)
    post(url, body, headers | (signed(secret, body) if secret is not None else {}))


def url_of(settings: WatchWebhook) -> str:
    """Return where to; raises ConfigurationError (without it) where it cannot be had, or is no URL."""
    url = kept_secret(settings.url_credential, settings.url_file) or settings.url or ""
    try:
        return web_url(url)
    except ValueError as fault:
        raise ConfigurationError(f"the URL of a [[watch.webhook]] {fault}") from None


def filled(template: str, values: Mapping[str, str], *, as_json: bool) -> str:
    """Return `template` with $title, $text, $host and $state filled in, for JSON as its strings want it."""
    if as_json:
        values = {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in values.items()}
    return Template(template).safe_substitute(values)


def signed(secret: str, body: bytes) -> dict[str, str]:
    """Return headers that prove `body` ours and fresh. Raises ConfigurationError where the secret is none."""
    identity, moment = f"msg_{uuid.uuid4().hex}", str(int(time.time()))
    try:
        key = base64.b64decode(secret[len(_SIGNED) :]) if secret.startswith(_SIGNED) else secret.encode()
    except ValueError:
        raise ConfigurationError(f"the signing secret is no base64 behind {_SIGNED}") from None
    content = f"{identity}.{moment}.".encode() + body
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {"webhook-id": identity, "webhook-timestamp": moment, "webhook-signature": f"v1,{digest}"}
