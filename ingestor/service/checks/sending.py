"""What automated answers need: the API with each sender tried as a simulation, and what each text costs."""

import uuid
from collections.abc import Iterator, Sequence

from ingestor.errors import IngestorError
from ingestor.replies.access import client_of
from ingestor.replies.agile import AgileClient, Message
from ingestor.replies.parts import parts_of
from ingestor.replies.verdicts import Fate
from ingestor.service.checks import Finding, fail, ok, warn
from ingestor.settings import Settings
from ingestor.settings.replies import Answer

_SUBJECT = "agile.api"


def check(settings: Settings) -> Sequence[Finding]:
    """Return what is found about `[agile.api]` and every `[[answer]]`; nothing is sent."""
    try:
        client = client_of(settings)
    except IngestorError as error:
        return [fail(_SUBJECT, str(error))]
    return [*_account(client), *_senders(client, settings.answer), *_texts(settings.answer)]


def _account(client: AgileClient) -> Iterator[Finding]:
    try:
        yield ok(_SUBJECT, f"the key is accepted; credit {client.credit()} EUR")
    except IngestorError as error:
        yield fail(_SUBJECT, str(error), "mend [agile.api]; the API's address is base_url")


def _senders(client: AgileClient, rules: Sequence[Answer]) -> Iterator[Finding]:
    """Simulate a message from each sender, to that number itself where it is one."""
    for sender in dict.fromkeys(rule.sender for rule in rules):
        number = next((n for rule in rules if rule.sender == sender for n in rule.numbers), None)
        number = number or (sender if sender.startswith("+") else "+393351234567")
        verdict = client.send(
            Message(str(uuid.uuid4()), number, sender, "ingestor check", delivery=False, simulation=True)
        )
        if verdict.fate is Fate.ACCEPTED:
            yield ok(_SUBJECT, f"sender {sender}: a simulated message is accepted")
        elif verdict.fate is Fate.REFUSED:
            yield fail(_SUBJECT, f"sender {sender}: {verdict.words}", "mend it before anybody is answered")
        else:
            words = verdict.words.removesuffix("; it may have been sent")
            yield warn(_SUBJECT, f"sender {sender}: not known whether it is allowed ({words})")


def _texts(rules: Sequence[Answer]) -> Iterator[Finding]:
    for rule in rules:
        found = parts_of(rule.text)
        if found.culprits:
            yield warn(
                f"answer {rule.name}",
                f"its text is UCS-2 because of {', '.join(found.culprits)}: 70 characters a part, not 160",
                "write it without, or pay for more parts",
            )
        elif found.parts > 1:
            yield warn(f"answer {rule.name}", f"its text takes {found.parts} parts")
