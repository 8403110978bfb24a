"""What leaves: automated answers (the API, each sender as a simulation, the cost of each text), and notices.

Of [watch] and [metrics] is tried whether anybody would hear; a test notice is sent where it is asked for.
"""

import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec

from ingestor.errors import IngestorError
from ingestor.replies.agile import AgileClient, Message, client_of
from ingestor.replies.parts import parts_of
from ingestor.replies.verdicts import Fate
from ingestor.service.checks import Check, Finding, fail, intakes, ok, warn
from ingestor.settings import Settings, kept_secret
from ingestor.settings.replies import Answer
from ingestor.settings.watch import PINGS, WatchMail, WatchWebhook, web_url
from ingestor.watch import notices
from ingestor.watch.conditions import Condition
from ingestor.watch.watcher import Send, channels_of

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


def watching(settings: Settings) -> Iterator[tuple[str, Check]]:
    """Yield what is to be tried, by its subject. Nothing is told to anybody."""
    watch = settings.watch
    if (mail := watch.mail) is not None:
        yield _named("watch.mail", partial(_mail, mail))
    for number, hook in enumerate(watch.webhook, 1):
        yield _named(f"watch.webhook {number}", partial(_webhook, hook))
    for what in PINGS:
        if watch.place_of(what) != (None, None):
            yield _named(f"watch.{what}", partial(_ping, settings, what))
    if (metrics := settings.metrics) is not None:
        extra = "pip install 'agile-sms-ingestor[metrics]'"
        if find_spec("prometheus_client") is None:
            yield "metrics", lambda: [fail("metrics", "it needs what is not installed", extra)]
        else:
            yield "metrics", lambda: [intakes.port(metrics, "metrics")]


def notify(settings: Settings) -> Iterator[tuple[str, Check]]:
    """Yield the sending of a test notice to everybody who is told, by its subject."""
    now = datetime.now(UTC)
    test = Condition(
        "test", "test", "", "told", "somebody asked for this notice; nothing is wrong", "nothing", False, now
    )  # fmt: skip
    for name, send in channels_of(settings).items():
        subject = f"watch.{name.replace('-', ' ')}"
        yield _named(subject, partial(_sent, send, test, now))


def _named(subject: str, tried: Callable[[], str]) -> tuple[str, Check]:
    def check() -> Sequence[Finding]:
        try:
            return [ok(subject, tried())]
        except IngestorError as error:
            return [fail(subject, str(error), "mend [watch]; nobody would hear of anything")]

    return subject, check


def _mail(mail: WatchMail) -> str:
    with notices.logged_in(mail) as server:
        server.noop()
    return f"{mail.host}:{mail.port} lets us in ({mail.security}); `check --notify` sends a test notice"


def _webhook(hook: WatchWebhook) -> str:
    notices.url_of(hook)
    secret = kept_secret(hook.signing_credential, hook.signing_file)
    if secret is not None:
        notices.signed(secret, b"")
    return f"URL{' and signing secret' if secret else ''} can be read; `check --notify` sends a test notice"


def _ping(settings: Settings, what: str) -> str:
    url = kept_secret(*settings.watch.place_of(what))
    try:
        web_url(url or "")
    except ValueError as fault:
        raise IngestorError(f"its URL {fault}") from None
    return "its URL can be read"


def _sent(send: Send, test: Condition, now: datetime) -> str:
    send([test], socket.gethostname(), now)
    return "a test notice was sent"
