"""Conditions, and the notices that tell of them.

What is wrong becomes open, is told once it has lasted, and once more when it is over. A trouble must last for
the minimum age before anybody is told, and be gone for as long before it is over: so one that comes and goes
a hundred times an hour is one condition, and two messages. The state stands in SQL. Who still has to hear of
it stands there as `owed`, and is taken out before it is told: a kill in between may cost that message, but
none is ever sent twice.

Notices are a mail (SMTP) and webhooks whose body is a template, signed. What they say is told nowhere else.

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
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from string import Template
from typing import Any, Final

from sqlalchemy import ColumnElement, Engine, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ingestor.archive.engine import reading, writing
from ingestor.archive.tables import conditions
from ingestor.errors import ConfigurationError
from ingestor.redaction import redact
from ingestor.settings import kept_secret
from ingestor.settings.watch import WatchMail, WatchWebhook, web_url
from ingestor.watch.pings import SECONDS, NotSent, post
from ingestor.watch.troubles import Trouble

_INSERT: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """One row: `state` is `open`, `told` or `over`; times are aware UTC; `host` is empty where all share it.

    `gone_at`: since when it is not seen any more. `owed`: the channels that have still to hear of its state.
    """

    condition: str
    subject: str
    host: str
    state: str
    says: str
    fix: str
    grave: bool
    began_at: datetime
    gone_at: datetime | None = None
    owed: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What makes it the same condition."""
        return self.condition, self.subject, self.host


def step(
    known: Mapping[Key, Condition], troubles: Iterable[Trouble], now: datetime, age: timedelta,
    channels: Collection[str], unjudged: Collection[str] = (),
) -> dict[Key, Condition]:  # fmt: skip
    """Return the conditions at `now`, from those known so far and what is wrong now.

    `age`: how long a trouble lasts before it is told, and is gone before it is over. `channels` hear of it.
    Conditions of the names in `unjudged` could not be looked at, and stay as they are.
    """
    wrong = {(one.condition, one.subject, one.host): one for one in troubles}
    after = {}
    for key in {**known, **wrong}:
        before, trouble = known.get(key), wrong.get(key)
        if before is not None and (key[0] in unjudged):
            after[key] = before
        elif trouble is not None:
            after[key] = _goes_on(before, trouble, now, age, channels)
        elif before is not None and (one := _fades(before, now, age, channels)) is not None:
            after[key] = one
    return after


def _goes_on(
    before: Condition | None, trouble: Trouble, now: datetime, age: timedelta, channels: Collection[str]
) -> Condition:
    key = (trouble.condition, trouble.subject, trouble.host)
    if before is None or before.state == "over":
        began = before.began_at if before is not None and before.owed else now
        before = Condition(*key, "open", trouble.says, trouble.fix, trouble.grave, began)
    one = replace(before, says=trouble.says, fix=trouble.fix, grave=trouble.grave, gone_at=None)
    if one.state == "open" and now - one.began_at >= age:
        one = replace(one, state="told", owed=tuple(channels))
    return one


def _fades(before: Condition, now: datetime, age: timedelta, channels: Collection[str]) -> Condition | None:
    if before.state == "over":
        return before if before.owed else None
    one = before if before.gone_at is not None else replace(before, gone_at=now)
    if one.gone_at is None or now - one.gone_at < age:
        return one
    heard = tuple(channel for channel in channels if channel not in one.owed)
    # Who never heard of its beginning need not hear of its end.
    return replace(one, state="over", owed=heard) if one.state == "told" and heard else None


def load(engine: Engine, host: str) -> dict[Key, Condition]:
    """Return the conditions that all share and those of `host`. Raises IngestorError."""
    with reading(engine) as connection:
        rows = connection.execute(select(conditions).where(conditions.c.host.in_(("", host)))).mappings()
        found = [
            Condition(**{**row, "grave": bool(row["grave"]), "owed": tuple(row["owed"].split())})
            for row in rows
        ]
    return {one.key: one for one in found}


def save(engine: Engine, before: Mapping[Key, Condition], after: Mapping[Key, Condition]) -> None:
    """Write down what differs between `before` and `after`. Raises IngestorError.

    A row that another daemon has changed meanwhile stays as that one left it.
    """
    gone, changed = (
        before.keys() - after.keys(),
        [one for one in after.values() if before.get(one.key) != one],
    )
    if not gone and not changed:
        return
    with writing(engine) as connection:
        for key in gone:
            connection.execute(delete(conditions).where(*_is(before[key])))
        for one in changed:
            if one.key in before:
                connection.execute(update(conditions).where(*_is(before[one.key])).values(_values(one)))
            else:
                insert = _INSERT[engine.dialect.name](conditions).values(_values(one))
                connection.execute(insert.on_conflict_do_nothing())


def claim(engine: Engine, one: Condition, owed: tuple[str, ...]) -> bool:
    """Write down that `one` is owed to `owed` from now on; return False where somebody else was faster."""
    with writing(engine) as connection:
        done = connection.execute(update(conditions).where(*_is(one)).values(owed=" ".join(owed)))
        return done.rowcount == 1


def _is(one: Condition) -> tuple[ColumnElement[bool], ...]:
    """Return what finds the row of `one`, while it says what `one` says of who was told."""
    names = ("condition", "subject", "host", "state", "owed")
    values = _values(one)
    return tuple(conditions.c[name] == values[name] for name in names)


def _values(one: Condition) -> dict[str, object]:
    return {
        "condition": one.condition, "subject": one.subject, "host": one.host, "state": one.state,
        "says": one.says, "fix": one.fix, "grave": int(one.grave), "began_at": one.began_at,
        "gone_at": one.gone_at, "owed": " ".join(one.owed),
    }  # fmt: skip


_SIGNED: Final = "whsec_"


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
    """Return the headers by which the receiver knows that `body` is ours, and fresh.

    Raises ConfigurationError where the secret is none.
    """
    identity, moment = f"msg_{uuid.uuid4().hex}", str(int(time.time()))
    try:
        key = base64.b64decode(secret[len(_SIGNED) :]) if secret.startswith(_SIGNED) else secret.encode()
    except ValueError:
        raise ConfigurationError(f"the signing secret is no base64 behind {_SIGNED}") from None
    content = f"{identity}.{moment}.".encode() + body
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {"webhook-id": identity, "webhook-timestamp": moment, "webhook-signature": f"v1,{digest}"}
