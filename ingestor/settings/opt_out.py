"""`[opt_out]`: which words of an SMS opt out, beside the built-in ones."""

from typing import Literal

from pydantic import Field

from ingestor.providers.contract import Section, Text

Language = Literal["en", "it", "es", "de", "fr-ca"]


class OptOut(Section):
    """Words that opt a sender out, beside STOP and its like in five languages, which always count."""

    languages: tuple[Language, ...] = Field(
        default=(), examples=[["en", "it"]],
        description="Let ordinary replies of these languages opt out, too. en: END QUIT CANCEL REMOVE; "
        "it: BASTA ANNULLA CANCELLA; es: CANCELAR; de: ENDE; fr-ca: TD.",
    )  # fmt: skip
    stop: tuple[Text, ...] = Field(
        default=(), examples=[["NO", "NON SCRIVETEMI"]],
        description="Further words that close the number written to. After a change the daemon reads all SMS "
        "for them at its next start; `ingestor optout scan` does it at once.",
    )  # fmt: skip
    stop_all: tuple[Text, ...] = Field(
        default=(), examples=[["BASTA A TUTTI"]], description="Further words that close every number of ours."
    )
    start: tuple[Text, ...] = Field(
        default=(), examples=[["RIPRENDI"]],
        description="Further words that undo a STOP, beside START, UNSTOP and DEBUT.",
    )  # fmt: skip
    help: tuple[Text, ...] = Field(
        default=(), examples=[["INFO"]],
        description="Further words that ask for help, beside HELP, AIDE, AIUTO, HILFE and AYUDA.",
    )  # fmt: skip
