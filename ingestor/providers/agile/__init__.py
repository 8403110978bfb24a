"""Agile Telecom: inbound SMS by mail and by POST."""

import re
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from ingestor.numbers import normalise_agile
from ingestor.providers.agile.api import Api
from ingestor.providers.contract import ProviderSection, Rules, Section, Text, none_of, own_number
from ingestor.timestamps import zone_name

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
    labels: Labels = Labels()
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
