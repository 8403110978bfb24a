"""`[[answer]]`, `[answers]` and `[opt_out]`: what is answered to whom, by which rule, within which limits."""

import re
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from ingestor.numbers import normalise_agile
from ingestor.providers import POST_READERS
from ingestor.providers.contract import Section, Text, left_out, none_of, own_number
from ingestor.settings.values import Hours, Name, like
from ingestor.timestamps import zone_name

TEXT_NAMES = ("our_number", "sender", "date", "time")
"""What may stand in braces in the text of an answer; nothing of the incoming SMS is among it."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Language = Literal["en", "it", "es", "de", "fr-ca"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

sender = like(
    r"(?=.*[A-Za-z])[A-Za-z0-9 ._&+-]{1,11}|\+?[0-9]{1,16}",  # as Agile's REST document allows it
    "is no sender: at most 11 letters and digits, or a number of at most 16 digits",
)
Sender = Annotated[str, AfterValidator(sender)]


def _text(written: str) -> str:
    for name in re.findall(r"\{([^{}]*)\}", written):
        if name not in TEXT_NAMES:
            known = ", ".join(f"{{{one}}}" for one in TEXT_NAMES)
            raise ValueError(f"has {{{name}}}, which is none of {known}")
    return written


_prefix = like(r"\+[0-9]{1,15}", "is no beginning of a number; write it like +3989")


class Answer(Section):
    """An automated answer; repeat the block for each further one. An SMS gets one at most: words of opt-out,
    opt-in and help come before keywords, and those before `any`; among equals the first in the file."""

    optional = True

    name: Name = Field(
        examples=["stop"],
        description="What the archive calls the rule. Keep it: it is part of each decision.",
    )
    on: Literal["opt_out", "opt_in", "help", "keyword", "any"] = Field(
        examples=["opt_out"],
        description="opt_out | opt_in | help | keyword | any. opt_out is the confirmation of a STOP: it "
        "leaves although the number is out, once until a START.",
    )
    keywords: tuple[Text, ...] = none_of(
        ["ORARI", "HOURS"], 'For on = "keyword": the first word of the SMS, in any case.'
    )
    numbers: tuple[Annotated[str, AfterValidator(own_number(normalise_agile))], ...] = none_of(
        ["+393331234333"], "Only SMS to these numbers of ours; empty: to every one."
    )
    hours: Hours | None = left_out("08:00-20:00", "Only SMS that came within; left out: always.")
    days: tuple[Day, ...] = Field(
        default=DAYS, examples=[["mon", "tue", "wed", "thu", "fri"]],
        description="Only SMS that came on these days; of hours over midnight the day they began.",
    )  # fmt: skip
    timezone: Annotated[str, AfterValidator(zone_name)] = Field(
        default="Europe/Rome", description="The zone of hours and days, and of {date} and {time}."
    )
    sender: Sender = Field(
        examples=["+393331234333"],
        description="Whom the answer comes from: a number or a registered alias. There is no default: what "
        "is allowed depends on the country; `ingestor check` tries it.",
    )
    text: Annotated[Text, AfterValidator(_text)] = Field(
        examples=["You will get no more messages from {our_number}. Send START to undo."],
        description="What is answered. {our_number}, {sender}, {date} and {time} are replaced; nothing of "
        "the incoming SMS is ever repeated.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.on == "keyword") != bool(self.keywords):
            raise ValueError('keywords and on = "keyword" go together')
        return self


class Answers(Section):
    """Limits of automated answers. What they hold back stands in the archive, with the reason."""

    optional = True

    max_age_seconds: Annotated[StrictInt, Field(ge=10, le=86400)] = Field(
        default=600, description="An SMS older than this is not answered."
    )
    confirmation_max_age_seconds: Annotated[StrictInt, Field(ge=10, le=86400)] = Field(
        default=300, description="The same for the confirmation of a STOP."
    )
    per_number: Annotated[StrictInt, Field(ge=1)] = Field(
        default=5, description="So many answers to one number within per_number_seconds, confirmations apart."
    )
    per_number_seconds: Annotated[StrictInt, Field(ge=1)] = Field(default=3600, description="See per_number.")
    equal_texts: Annotated[StrictInt, Field(ge=1)] = Field(
        default=3, description="So many equal answers to one number within equal_texts_seconds."
    )
    equal_texts_seconds: Annotated[StrictInt, Field(ge=1)] = Field(
        default=86400, description="See equal_texts."
    )
    per_minute: Annotated[StrictInt, Field(ge=1)] = Field(
        default=30, description="So many answers a minute to all numbers together."
    )
    per_hour: Annotated[StrictInt, Field(ge=1)] = Field(
        default=300, description="So many answers an hour to all numbers together."
    )
    credit_floor: Annotated[Decimal, Field(ge=0)] = Field(
        default=Decimal(0), examples=["5.00"],
        description="No answer while the account has less than this, in EUR; write it in quotes.",
    )  # fmt: skip
    deny: tuple[Annotated[str, AfterValidator(_prefix)], ...] = none_of(
        ["+3989"], "Numbers that begin so are never answered."
    )
    confirm: tuple[Literal[POST_READERS], ...] = Field(  # type: ignore[valid-type]  # names that the providers' table gives
        default=("agile",),
        description="Providers whose STOPs are confirmed by us. Infobip may confirm by a rule of its own.",
    )


class OptOut(Section):
    """Words that opt a sender out, beside STOP and its like in five languages, which always count."""

    languages: tuple[Language, ...] = none_of(
        ["en", "it"],
        "Let ordinary replies of these languages opt out, too. en: END QUIT CANCEL REMOVE; "
        "it: BASTA ANNULLA CANCELLA; es: CANCELAR; de: ENDE; fr-ca: TD.",
    )
    stop: tuple[Text, ...] = none_of(
        ["NO", "NON SCRIVETEMI"],
        "Further words that close the number written to. After a change the daemon reads all SMS "
        "for them at its next start; `ingestor optout scan` does it at once.",
    )
    stop_all: tuple[Text, ...] = none_of(["BASTA A TUTTI"], "Further words that close every number of ours.")
    start: tuple[Text, ...] = none_of(
        ["RIPRENDI"], "Further words that undo a STOP, beside START, UNSTOP and DEBUT."
    )
    help: tuple[Text, ...] = none_of(
        ["INFO"], "Further words that ask for help, beside HELP, AIDE, AIUTO, HILFE and AYUDA."
    )
