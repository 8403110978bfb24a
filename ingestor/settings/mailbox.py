"""The table `[[mailbox]]`, with `[mailbox.oauth]` (access tokens) and `[mailbox.trust]` (the true sender)."""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    StrictBool,
    StrictInt,
    field_validator,
    model_validator,
)

from ingestor.providers.contract import LARGEST_KEPT, Credential, Section, Text, left_out, none_of
from ingestor.settings import values
from ingestor.settings.values import Command, FilePath, Host, Name, Port, WebAddress

PASSWORD_KEYS = ("password_credential", "password_file", "password_command", "password")
TOKEN_KEYS = ("token_command", "oauth")

EXCHANGE_ONLINE: Final = r"(?:^|\.)(?:office365\.(?:com|us)|office\.com|outlook\.(?:com|cn))$"
"""The hosts of Exchange Online's mailboxes, national clouds' too."""

_MICROSOFT: Final = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
_ADDRESSES: Final = {
    "microsoft": {
        "token": f"{_MICROSOFT}/token",
        "device": f"{_MICROSOFT}/devicecode",
        "authorization": f"{_MICROSOFT}/authorize",
    },
    "google": {
        "token": "https://oauth2.googleapis.com/token",
        "authorization": "https://accounts.google.com/o/oauth2/v2/auth",
    },
}
"""Microsoft: learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection using OAuth". Google:
developers.google.com/identity/protocols/oauth2, whose device flow does not offer the scope for mail."""

_APPLICATION_SCOPE: Final = "https://outlook.office365.com/.default"
_SCOPES: Final = {
    "microsoft": "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
    "google": "https://mail.google.com/",
}
_SECRETS: Final = ("secret_credential", "secret_file")
_KEYS: Final = ("key_credential", "key_file")


class OAuth(Section):
    """OAuth2 for the mailbox above, in place of a password: a process of its own, `ingestor token`, fetches
    access tokens and keeps them in the state directory. OPERATING.md has a recipe for each provider.
    """

    active = frozenset({"tenant", "client_id"})
    optional = True

    provider: Literal["microsoft", "google", "other"] = Field(
        examples=["microsoft"],
        description="microsoft | google | other. The first two know their addresses and scopes.",
    )
    flow: Literal["client_credentials", "service_account", "device_code", "authorization_code"] = Field(
        examples=["device_code"],
        description="client_credentials (Microsoft 365 without a user) | service_account (Google Workspace) "
        "| device_code | authorization_code: a person logs in once, by `ingestor login MAILBOX`.",
    )
    tenant: Text | None = left_out(
        "contoso.onmicrosoft.com", "microsoft: the tenant's domain or id; `consumers` for Outlook.com."
    )
    client_id: Text | None = left_out(
        "11111111-2222-3333-4444-555555555555",
        "The application's (client) id; service_account has it in its key.",
    )
    secret_credential: Credential | None = left_out(
        "imap-main-secret", "The client secret, as a systemd credential."
    )
    secret_file: FilePath | None = left_out(
        "/etc/ingestor/imap-main.secret", "The client secret, alone in a file."
    )
    key_credential: Credential | None = left_out(
        "imap-main-key",
        "In place of a secret a key, as a systemd credential: PEM with private key and "
        "certificate (client_credentials), or the JSON that Google gives (service_account).",
    )
    key_file: FilePath | None = left_out("/etc/ingestor/imap-main.pem", "The same in a file.")
    secret_ends: date | None = left_out(
        "2027-11-30",
        "The day the client secret ends: `check` warns from 14 days before. Of a certificate it is known.",
    )
    scope: Text | None = left_out(
        "https://mail.example.org/imap",
        "What is asked for; needed for `other` only where that provider wants one.",
    )
    token_url: WebAddress | None = left_out(
        "https://login.example.org/token", "`other`, and national clouds: where tokens are given."
    )
    device_url: WebAddress | None = left_out(
        "https://login.example.org/device",
        "The same for flow = device_code: where its codes are given (RFC 8628).",
    )
    authorization_url: WebAddress | None = left_out(
        "https://login.example.org/authorize",
        "The same for flow = authorization_code: the page to log in on.",
    )
    redirect_url: Text = Field(
        default="http://localhost/",
        description="authorization_code: one of those registered for the application. Nothing need answer "
        "there: its address is copied out of the browser.",
    )
    ca_file: FilePath | None = left_out(
        "/etc/ssl/private-ca.pem", "Certificate authority of a private authorisation server, in PEM."
    )

    @property
    def needs_person(self) -> bool:
        """Whether somebody must log in once, and again when the consent is lost."""
        return self.flow in {"device_code", "authorization_code"}

    def endpoint(self, what: Literal["token", "device", "authorization"]) -> str:
        """Return where tokens or device codes are given, or a person logs in (RFC 6749 3, RFC 8628 3.1)."""
        known = _ADDRESSES.get(self.provider, {}).get(what, "")
        return getattr(self, f"{what}_url") or known.format(tenant=self.tenant)

    @property
    def scopes(self) -> str:
        """What is asked for, separated by blanks; empty where the provider decides."""
        if self.scope is not None:
            return self.scope
        if self.provider == "microsoft" and self.flow == "client_credentials":
            return _APPLICATION_SCOPE
        return _SCOPES.get(self.provider, "")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        secrets = [key for key in _SECRETS if getattr(self, key) is not None]
        keys = [key for key in _KEYS if getattr(self, key) is not None]
        if len(secrets + keys) > 1:
            raise ValueError(f"has more than one secret; keep one of {', '.join(secrets + keys)}")
        if self.flow == "client_credentials" and not secrets + keys:
            raise ValueError(f"client_credentials needs one of {', '.join(_SECRETS + _KEYS)}")
        if self.flow == "service_account" and not keys:
            raise ValueError("service_account needs key_credential or key_file with Google's JSON")
        if self.needs_person and keys:
            raise ValueError(f"{self.flow} takes a client secret, no key")
        if self.flow != "service_account" and self.client_id is None:
            raise ValueError("needs client_id")
        if self.provider == "microsoft" and self.tenant is None:
            raise ValueError("microsoft needs tenant (for Outlook.com: consumers)")
        if self.provider == "microsoft" and self.flow == "service_account":
            raise ValueError("service_account is Google's; microsoft has client_credentials")
        if self.provider == "google" and self.flow in {"client_credentials", "device_code"}:
            raise ValueError(
                f"Google gives no mail by {self.flow}; use service_account (Workspace) or authorization_code"
            )
        device, page = self.flow == "device_code", self.flow == "authorization_code"
        for key, needed in (
            ("token_url", not self.endpoint("token")),
            ("device_url", device and not self.endpoint("device")),
            ("authorization_url", page and not self.endpoint("authorization")),
        ):
            if needed:
                raise ValueError(f"{self.provider} with {self.flow} needs {key}")
        return self


class Trust(Section):
    """Whether the mails of the mailbox above come from whom they say; without it nobody asks. OPERATING.md,
    "Only the true sender".
    """

    optional = True
    active = frozenset({"method", "policy"})

    method: Literal["dkim", "rfc8601", "exchange-online"] = Field(
        default="dkim",
        description="dkim: their signature, by the key in the DNS (needs the extra `trust`) | rfc8601: what "
        "your own mail server noted at the top, in Authentication-Results | exchange-online: likewise of "
        "Microsoft 365, which names no server there.",
    )
    policy: Literal["record", "require"] = Field(
        default="record",
        description="record: the verdict is kept beside the SMS | require: a mail of ours whose sender is "
        "not proven goes to the quarantine. `status` says when that is safe.",
    )
    authserv_id: Text | None = left_out(
        "mx.example.org", "rfc8601: the name your mail server puts first in Authentication-Results."
    )
    resolvers: tuple[Annotated[str, AfterValidator(values.name_server)], ...] = none_of(
        ["127.0.0.1"], "dkim: name servers to ask, ADDRESS or ADDRESS:PORT; empty: those of /etc/resolv.conf."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.method == "rfc8601") != (self.authserv_id is not None):
            raise ValueError('authserv_id and method = "rfc8601" go together')
        if self.resolvers and self.method != "dkim":
            raise ValueError('resolvers are for method = "dkim"')
        return self


class Home(NamedTuple):
    """Where a process of its own finds a mailbox again: the configuration file, and the state directory."""

    config: Path
    state: Path


class Mailbox(Section):
    """A mailbox to read over IMAP; repeat the block for each further one. Mail of others is never touched."""

    active = frozenset({"port", "security", "password_credential"})

    name: Name = Field(
        examples=["main"],
        description="What logs, `status` and the archive call it. Keep it: the place reached in the mailbox "
        "is kept under this name.",
    )
    host: Host = Field(examples=["imap.example.org"], description="The IMAP server.")
    port: Port = Field(default=993, description="993 with tls; 143 when left out with starttls or plain.")
    security: Literal["tls", "starttls", "plain"] = Field(
        default="tls",
        description="tls | starttls | plain. Certificates are always verified; plain is for loopback only, "
        "unless allow_plain = true.",
    )
    allow_plain: StrictBool = Field(
        default=False, description='Let security = "plain" send the password readable over a network.'
    )
    ca_file: FilePath | None = left_out(
        "/etc/ssl/private-ca.pem",
        "Certificate authority of a private server, in PEM; in place of the system's own.",
    )
    username: Text = Field(examples=["sms@example.org"], description="The login.")
    password_credential: Credential | None = left_out(
        "imap-main",
        "The password, in ONE of four ways, or access tokens (token_command, [mailbox.oauth]). "
        "Best: a systemd credential (LoadCredential= or LoadCredentialEncrypted= of the unit).",
    )
    password_file: FilePath | None = left_out(
        "/etc/ingestor/imap-main.password",
        "A file that holds the password alone, readable by the service user only.",
    )
    password_command: Command | None = Field(
        default=None, examples=[["pass", "show", "imap/main"]], repr=False,
        description="A program that prints the password; run without a shell.",
    )  # fmt: skip
    password: SecretStr | None = left_out("…", "The password itself, written here: discouraged.")
    token_command: Command | None = Field(
        default=None, examples=[["oauth2-token", "main"]], repr=False,
        description="A program that prints an OAuth2 access token; called at each connect, without a shell.",
    )  # fmt: skip
    folders: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        default=("INBOX",), description="IDLE watches the first; all are read at each wake-up and poll."
    )
    idle: StrictBool = Field(default=True, description="Be told of new mail at once (IDLE) where offered.")
    poll_seconds: Annotated[StrictInt, Field(ge=1, le=86400)] = Field(
        default=60, description="Look again after this long, told or not."
    )
    max_mail_bytes: Annotated[StrictInt, Field(ge=1024)] = Field(
        default=LARGEST_KEPT,
        description="Of a mail larger than this only the header and the first MiB are kept (quarantined).",
    )
    after_store: Literal["keep", "seen", "move", "delete"] = Field(
        default="keep",
        description="What happens on the server to a mail whose SMS is durable: keep | seen | move | delete. "
        "Quarantined mail and mail that is not ours stays as it is.",
    )
    move_to: Text | None = left_out("Stored", 'The folder for after_store = "move".')
    oauth: OAuth | None = None
    trust: Trust | None = None

    _home: Home | None = PrivateAttr(default=None)

    @property
    def home(self) -> Home | None:
        """Where `ingestor token` finds this mailbox again; None where no file was read."""
        return self._home

    @property
    def by_token(self) -> bool:
        """Whether an access token is sent in place of a password."""
        return self.oauth is not None or self.token_command is not None

    @model_validator(mode="before")
    @classmethod
    def _port_of_security(cls, table: Any) -> Any:
        if isinstance(table, dict) and "port" not in table and table.get("security") in {"starttls", "plain"}:
            return {**table, "port": 143}
        return table

    @field_validator("folders")
    @classmethod
    def _folders_once(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        seen = ["INBOX" if name.upper() == "INBOX" else name for name in folders]
        if len(set(seen)) < len(seen):
            raise ValueError("names a folder twice")
        return folders

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [key for key in (*PASSWORD_KEYS, *TOKEN_KEYS) if getattr(self, key) is not None]
        if not given:
            ways = ", ".join((*PASSWORD_KEYS, *TOKEN_KEYS))
            raise ValueError(f"has no password; give one of {ways}")
        if len(given) > 1:
            raise ValueError(f"has more than one password; keep one of {', '.join(given)}")
        if self.security == "plain" and not self.allow_plain and not values.is_loopback(self.host):
            raise ValueError(
                'security = "plain" sends the password readable over the network; '
                'use "tls" or "starttls", or set allow_plain = true'
            )
        if (
            self.trust is not None
            and self.trust.method == "exchange-online"
            and not re.search(EXCHANGE_ONLINE, self.host.lower().rstrip("."))
        ):
            raise ValueError('trust.method = "exchange-online" is for outlook.office365.com and its kin')
        if self.after_store == "move" and self.move_to is None:
            raise ValueError('after_store = "move" needs move_to')
        if self.after_store == "move" and self.move_to in self.folders:
            raise ValueError("move_to is one of folders; moved mail would be read again for ever")
        return self
