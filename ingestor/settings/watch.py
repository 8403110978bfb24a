"""How the daemon is watched: [metrics] for who asks, [watch] for whom it tells."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictInt, model_validator

from ingestor.providers.contract import Credential, Section, Text, left_out, none_of
from ingestor.settings import values
from ingestor.settings.replies import Day
from ingestor.settings.values import FilePath, Host, Hours, Port

PINGS: Final = ("ping", "import_ping", "backup_ping")
"""The jobs of which a dead-man switch may hear, each by a URL of its own."""


def web_url(written: str) -> str:
    """Return a URL to call. Raises ValueError in words that do not repeat it."""
    try:
        parts = urlsplit(written)
        _ = parts.port
    except ValueError:
        raise ValueError("is no URL: its host or port cannot be read") from None
    if parts.scheme not in {"https", "http"}:
        raise ValueError("must begin with https:// or http://")
    if not parts.hostname or re.search(r"[\s\x00-\x1f]", written):
        raise ValueError("is no URL: it names no host, or has blanks in it")
    return written


def _not_empty(hours: str) -> str:
    begin, _, end = hours.partition("-")
    if begin == end:
        raise ValueError("begins and ends at the same time")
    return hours


_header = values.like(r"[A-Za-z0-9-]+: *[^\r\n]*", 'must be a header line, like "Title: $title"')
_number = values.like(r"\+?[0-9]{3,15}", "is no number like +393331234333, or a short code")
_PART = r'[^@\s<>,;"\x80-\U0010ffff]+'
_address = values.like(f"{_PART}@{_PART}", "must be a plain mail address")
Address = Annotated[str, AfterValidator(_address)]


def _loopback(written: str) -> str:
    listen = values.listen_address(written)
    if not values.is_loopback(values.split_listen(listen)[0]):
        raise ValueError(
            "must be an address of this machine alone, like 127.0.0.1:9469; what asks from elsewhere comes "
            "through an agent or a proxy on this machine"
        )
    return listen


class Metrics(values.Listening):
    """/metrics for Prometheus, /healthz and /readyz, on a port of their own; without this section none of it.

    No number and no text is in it, and nothing asks the database.
    """

    active = frozenset({"listen"})
    optional = True

    listen: Annotated[str, AfterValidator(_loopback)] = Field(
        default="127.0.0.1:9469", description="ADDRESS:PORT to listen on: a loopback address."
    )


class WatchMail(Section):
    """Notices by mail: what begins and what is over, once each. They carry Auto-Submitted: auto-generated."""

    active = frozenset({"port", "security"})
    optional = True

    host: Host = Field(examples=["mail.example.org"], description="The SMTP server.")
    port: Port = Field(default=587, description="587 with starttls, 465 with tls, 25 for a relay.")
    security: Literal["tls", "starttls", "plain"] = Field(
        default="starttls",
        description="tls | starttls | plain (for loopback, and for a relay that asks for no password).",
    )
    ca_file: FilePath | None = left_out(
        "/etc/ssl/private-ca.pem",
        "Certificate authority of a private server, in PEM; in place of the system's own.",
    )
    username: Text | None = left_out("alerts@example.org", "The login, where the server asks for one.")
    password_credential: Credential | None = left_out(
        "watch-mail", "A systemd credential that holds its password."
    )
    password_file: FilePath | None = left_out("/etc/ingestor/watch-mail.password", "The same from a file.")
    sender: Address = Field(examples=["ingestor@example.org"], description="The From address.")
    to: Annotated[tuple[Address, ...], Field(min_length=1)] = Field(
        examples=[["ops@example.org"]], description="Who hears of it."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [self.password_credential, self.password_file]
        if (self.username is not None) != (given.count(None) == 1):
            raise ValueError("username goes together with one of password_credential, password_file")
        if self.username is not None and self.security == "plain" and not values.is_loopback(self.host):
            raise ValueError('security = "plain" sends the password readable over the network')
        return self


class WatchWebhook(Section):
    """Notices by a POST whose body is a template; repeat the block for each further one."""

    active = frozenset({"content_type"})
    optional = True

    url: Annotated[str, AfterValidator(web_url)] | None = Field(
        default=None, examples=["https://ntfy.example.org/ingestor"], repr=False,
        description="Where to, in ONE of three ways. Written here it is no secret.",
    )  # fmt: skip
    url_credential: Credential | None = left_out("watch-url", "A systemd credential that holds the URL.")
    url_file: FilePath | None = left_out("/etc/ingestor/watch-url", "The same from a file.")
    body: Text = Field(
        default='{"title": "$title", "text": "$text", "host": "$host", "state": "$state"}',
        description="The body; $title, $text, $host and $state (begun | over) are filled in, in JSON quoted.",
    )
    content_type: Text = Field(default="application/json", description="Its Content-Type.")
    headers: tuple[Annotated[str, AfterValidator(_header)], ...] = none_of(
        ["Title: $title"], "Further header lines, filled in like the body."
    )
    signing_credential: Credential | None = left_out(
        "watch-signing", "A systemd credential with the secret that signs each POST (standardwebhooks.com)."
    )
    signing_file: FilePath | None = left_out("/etc/ingestor/watch-signing", "The same from a file.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if [self.url, self.url_credential, self.url_file].count(None) != 2:
            raise ValueError("needs one of url, url_credential, url_file")
        return self


class Expect(Section):
    """From where SMS are expected: silence for longer becomes a condition. Repeat the block for each."""

    active = frozenset({"hours"})
    optional = True

    mailbox: Text | None = left_out("main", "The name of a mailbox, or else")
    number: Annotated[str, AfterValidator(_number)] | None = left_out(
        "+393331234333", "one of our numbers, with + and country."
    )
    hours: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        default=24, description="So many hours without an SMS are silence; quiet ones do not count."
    )
    quiet_hours: Annotated[Hours, AfterValidator(_not_empty)] | None = left_out(
        "20:00-07:00", "When nothing is expected, local time."
    )
    quiet_days: tuple[Day, ...] = none_of(["sat", "sun"], "Days on which nothing is expected.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mailbox is None) == (self.number is None):
            raise ValueError("needs a mailbox or a number, not both")
        if len(set(self.quiet_days)) == 7:
            raise ValueError("expects nothing on any day")
        return self


class Watch(Section):
    """Whom the daemon tells how it is, by itself; nothing of it is ever in the way of an SMS."""

    optional = True

    ping_credential: Credential | None = left_out(
        "ping-url",
        "A systemd credential that holds the ping URL of a dead-man switch (healthchecks.io and "
        "its kin): called at most once a minute, after every mailbox and the listener have finished a cycle, "
        "with /fail behind it when a source is overdue. Who has the URL can silence the alarm: a secret.",
    )
    ping_file: FilePath | None = left_out("/etc/ingestor/ping-url", "The same from a file.")

    import_ping_credential: Credential | None = left_out(
        "import-ping-url",
        "The same for imports, with a URL of its own: /start when one begins, then itself "
        "or /fail, all with the same rid. Only who may read it pings, like `sudo ingestor import`.",
    )
    import_ping_file: FilePath | None = left_out("/etc/ingestor/import-ping-url", "The same from a file.")
    backup_ping_credential: Credential | None = left_out(
        "backup-ping-url",
        "The same for `ingestor backup`, with a URL of its own; its unit needs the LoadCredential= too.",
    )
    backup_ping_file: FilePath | None = left_out("/etc/ingestor/backup-ping-url", "The same from a file.")
    after_minutes: Annotated[StrictInt, Field(ge=1, le=1440)] = Field(
        default=5,
        description="How long something is wrong before it is told, and right again before that is told.",
    )
    mail: WatchMail | None = None
    webhook: tuple[WatchWebhook, ...] = ()
    expect: tuple[Expect, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what in PINGS:
            if None not in self.place_of(what):
                raise ValueError(f"has {what}_credential and {what}_file; keep one")
        return self

    def place_of(self, what: str) -> tuple[str | None, Path | None]:
        """Return the credential and the file of the ping URL `what`, one of PINGS."""
        return getattr(self, f"{what}_credential"), getattr(self, f"{what}_file")
