"""Agile Telecom: inbound SMS by mail and by POST."""

import re
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from ingestor.numbers import normalise_agile
from ingestor.providers.contract import (
    Credential,
    ProviderSection,
    Rules,
    Section,
    Text,
    left_out,
    none_of,
    own_number,
)
from ingestor.timestamps import zone_name

_URL = r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[A-Za-z0-9._~/-]*"
_LOOPBACK_URL = r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?/[A-Za-z0-9._~/-]*"


def _base_url(url: str) -> str:
    if not re.fullmatch(_URL, url) and not re.fullmatch(_LOOPBACK_URL, url):
        raise ValueError(
            "must be like https://http-api.agiletelecom.com/services/ (without TLS: loopback only)"
        )
    return url


# Agile's REST document names https://secure.agiletelecom.com/services/ (legacy customers) and
# https://http-api.agiletelecom.com/services/ (new customers); further guides name two other hosts.
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


_ADDRESS = re.compile(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+")


def mail_address(address: str) -> str:
    """Return one bare mail address in lower case. Raises ValueError where it is none."""
    if not _ADDRESS.fullmatch(address):
        raise ValueError("is no single mail address like smsin@agiletelecom.com")
    return address.lower()


MailAddress = Annotated[str, AfterValidator(mail_address)]


class Labels(Section):
    """Further spellings of the labels in Agile's mails, beside the built-in From, To, Date/Time, Body."""

    optional = True

    originator: tuple[Text, ...] = none_of(["Da"], "Beside From.")
    destination: tuple[Text, ...] = none_of(["A"], "Beside To.")
    date_time: tuple[Text, ...] = none_of(["Data/Ora"], "Beside Date/Time and Date.")
    text: tuple[Text, ...] = none_of(["Testo"], "Beside Body and Text.")


class Agile(ProviderSection):
    """Agile Telecom: what its mails and POSTs mean."""

    timezone: Annotated[str, AfterValidator(zone_name)] = Field(
        default="Europe/Rome",
        description="The zone of the Date/Time that Agile sends; nowhere documented, so it is a setting.",
    )
    numbers: tuple[Annotated[str, AfterValidator(own_number(normalise_agile))], ...] = none_of(
        ["+393331234333"],
        "Our own numbers. Empty accepts every destination; an SMS for any other number is "
        "quarantined, however it came.",
    )
    sender: MailAddress = Field(
        default="smsin@agiletelecom.com", description="The From address of Agile's mails."
    )
    senders: tuple[MailAddress, ...] = none_of(
        ["sms@lists.example.org"],
        "Further From addresses that are believed like it: a list or gateway that sends "
        "Agile's mails on under its own name. What looks like an SMS from anybody else is quarantined; after "
        "a change here `ingestor quarantine retry` reads it.",
    )
    subjects: tuple[Text, ...] = none_of(
        ["SMS ricevuto"],
        "Further subjects (or parts of one, in any case) beside Agile Telecom -- SMS received.",
    )
    labels: Labels = Labels.model_construct()
    api: Api | None = None

    def rules(self) -> Rules:
        """Return what follows for the readers: subjects case folded, empty labels left out."""
        return Rules(
            zone=ZoneInfo(self.timezone),
            numbers=frozenset(self.numbers),
            senders=frozenset((self.sender, *self.senders)),
            subjects=tuple(" ".join(one.split()).casefold() for one in self.subjects),
            labels={field: spellings for field, spellings in self.labels if spellings},
        )


SECTION = Agile
