"""`[agile.api]`: how Agile's REST API is reached, for what is sent.

Source: Agile's REST document. Its base URLs are https://secure.agiletelecom.com/services/ (legacy customers)
and https://http-api.agiletelecom.com/services/ (new customers); further guides name two other hosts.
"""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from ingestor.providers.contract import Section, Text, left_out

_URL = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[A-Za-z0-9._~/-]*")
_LOOPBACK_URL = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?/[A-Za-z0-9._~/-]*")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


def _base_url(url: str) -> str:
    if not _URL.fullmatch(url) and not _LOOPBACK_URL.fullmatch(url):
        raise ValueError(
            "must be like https://http-api.agiletelecom.com/services/ (without TLS: loopback only)"
        )
    return url


def _credential(name: str) -> str:
    if not _CREDENTIAL.fullmatch(name):
        raise ValueError("is no credential name: letters, digits, dot, dash and underscore, no path")
    return name


Credential = Annotated[str, AfterValidator(_credential)]


class Api(Section):
    """Agile's REST API, for `send`, `credit` and automated answers; without this table nothing is sent."""

    optional = True

    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        default="https://http-api.agiletelecom.com/services/",
        description="The documented address of new customers; that of legacy customers is "
        "https://secure.agiletelecom.com/services/.",
    )
    api_key_credential: Credential | None = left_out(
        "agile-api-key",
        "The X-Api-Key, as a systemd credential. One of api_key_credential, api_key_file, or a "
        "username with its password.",
    )
    api_key_file: Path | None = left_out("/etc/ingestor/agile-api.key", "The same from a file.")
    username: Text | None = left_out("sms@example.org", "Basic authentication instead of a key.")
    password_credential: Credential | None = left_out(
        "agile-api-password", "Its password, as a systemd credential."
    )
    password_file: Path | None = left_out("/etc/ingestor/agile-api.password", "The same from a file.")
    ca_file: Path | None = left_out(
        "/etc/ssl/private-ca.pem",
        "Certificate authority of a proxy of yours, in PEM; in place of the system's own.",
    )
    connect_seconds: Annotated[StrictInt, Field(ge=1, le=120)] = Field(
        default=10, description="How long a connection with TLS may take; what fails in it was not sent."
    )
    answer_seconds: Annotated[StrictInt, Field(ge=1, le=300)] = Field(
        default=30, description="How long request and answer may take; what fails in it may have been sent."
    )
    rate: Annotated[StrictInt, Field(ge=1, le=500)] = Field(
        default=10, description="Requests a second at most, of each process."
    )
    retry_5xx: StrictBool = Field(
        default=False,
        description="Try again after HTTP 500, 502 and 504, as Agile advises, though the message may have "
        "been sent: at your own risk of doubles.",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        keys = [self.api_key_credential, self.api_key_file]
        passwords = [self.password_credential, self.password_file]
        given = [one for one in (*keys, *passwords) if one is not None]
        if len(given) != 1 or (self.username is None) != all(one is None for one in passwords):
            raise ValueError(
                "needs one way in: api_key_credential, api_key_file, or username with password_credential or "
                "password_file"
            )
        return self
