"""The table `[mailbox.oauth]`: how access tokens are had, and the addresses of the known providers."""

from datetime import date
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from ingestor.providers.contract import Section, Text
from ingestor.settings.values import Credential, FilePath, WebAddress

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
    tenant: Text | None = Field(
        default=None, examples=["contoso.onmicrosoft.com"],
        description="microsoft: the tenant's domain or id; `consumers` for Outlook.com.",
    )  # fmt: skip
    client_id: Text | None = Field(
        default=None, examples=["11111111-2222-3333-4444-555555555555"],
        description="The application's (client) id; service_account has it in its key.",
    )  # fmt: skip
    secret_credential: Credential | None = Field(
        default=None, examples=["imap-main-secret"],
        description="The client secret, as a systemd credential.",
    )  # fmt: skip
    secret_file: FilePath | None = Field(
        default=None, examples=["/etc/ingestor/imap-main.secret"],
        description="The client secret, alone in a file.",
    )  # fmt: skip
    key_credential: Credential | None = Field(
        default=None, examples=["imap-main-key"],
        description="In place of a secret a key, as a systemd credential: PEM with private key and "
        "certificate (client_credentials), or the JSON that Google gives (service_account).",
    )  # fmt: skip
    key_file: FilePath | None = Field(
        default=None, examples=["/etc/ingestor/imap-main.pem"], description="The same in a file."
    )
    secret_ends: date | None = Field(
        default=None, examples=["2027-11-30"],
        description="The day the client secret ends: `check` warns from 14 days before. Of a certificate it "
        "is known.",
    )  # fmt: skip
    scope: Text | None = Field(
        default=None, examples=["https://mail.example.org/imap"],
        description="What is asked for; needed for `other` only where that provider wants one.",
    )  # fmt: skip
    token_url: WebAddress | None = Field(
        default=None, examples=["https://login.example.org/token"],
        description="`other`, and national clouds: where tokens are given.",
    )  # fmt: skip
    device_url: WebAddress | None = Field(
        default=None, examples=["https://login.example.org/device"],
        description="The same for flow = device_code: where its codes are given (RFC 8628).",
    )  # fmt: skip
    authorization_url: WebAddress | None = Field(
        default=None, examples=["https://login.example.org/authorize"],
        description="The same for flow = authorization_code: the page to log in on.",
    )  # fmt: skip
    redirect_url: Text = Field(
        default="http://localhost/",
        description="authorization_code: one of those registered for the application. Nothing need answer "
        "there: its address is copied out of the browser.",
    )
    ca_file: FilePath | None = Field(
        default=None, examples=["/etc/ssl/private-ca.pem"],
        description="Certificate authority of a private authorisation server, in PEM.",
    )  # fmt: skip

    @property
    def needs_person(self) -> bool:
        """Whether somebody must log in once, and again when the consent is lost."""
        return self.flow in {"device_code", "authorization_code"}

    @property
    def token_endpoint(self) -> str:
        """Where tokens are given (RFC 6749 3.2)."""
        return self.token_url or self._known("token")

    @property
    def device_endpoint(self) -> str:
        """Where device codes are given (RFC 8628 3.1)."""
        return self.device_url or self._known("device")

    @property
    def authorization_endpoint(self) -> str:
        """The page that a person logs in on (RFC 6749 3.1)."""
        return self.authorization_url or self._known("authorization")

    @property
    def scopes(self) -> str:
        """What is asked for, separated by blanks; empty where the provider decides."""
        if self.scope is not None:
            return self.scope
        if self.provider == "microsoft" and self.flow == "client_credentials":
            return _APPLICATION_SCOPE
        return _SCOPES.get(self.provider, "")

    def _known(self, what: str) -> str:
        return _ADDRESSES.get(self.provider, {}).get(what, "").format(tenant=self.tenant)

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
        for key, needed in (
            ("token_url", not self.token_endpoint),
            ("device_url", self.flow == "device_code" and not self.device_endpoint),
            ("authorization_url", self.flow == "authorization_code" and not self.authorization_endpoint),
        ):
            if needed:
                raise ValueError(f"{self.provider} with {self.flow} needs {key}")
        return self
