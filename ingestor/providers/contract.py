"""What a provider folder owes: payload bytes in, readings out, and never an exception.

A provider knows what bytes mean. It does no I/O, and knows neither where they came from nor the archive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from ingestor.record import InboundSms


class Readable(NamedTuple):
    """Ours, and read whole. `parser` names what read it and its version, like `agile.mail/1`."""

    sms: InboundSms
    parser: str
    message_id: str | None = None
    subject: str | None = None


class Unreadable(NamedTuple):
    """Ours, but it goes to the quarantine. `reason` is words without any personal content."""

    reason: str
    parser: str
    message_id: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Somebody else's mail: it is counted and otherwise left alone. `sender` is its From address, if any."""

    sender: str | None = field(default=None, repr=False)


Reading = Readable | Unreadable | NotOurs


@dataclass(frozen=True, slots=True)
class Rules:
    """What readers need to know of the settings.

    `zone` is the provider's clock; `numbers` are our own destinations, normalised (empty: every one);
    `sender` is the one From address, in lower case; `labels` are further spellings of the mail's four
    labels by field name (`originator`, `destination`, `date_time`, `text`), beside the built-in ones.
    """

    zone: ZoneInfo
    numbers: frozenset[str] = frozenset()
    sender: str = "smsin@agiletelecom.com"
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Post(NamedTuple):
    """One POST as it came: raw body, raw query string, content type and encoding, and when (aware UTC)."""

    body: bytes
    query: bytes
    content_type: str
    arrived_at: datetime
    content_encoding: str = ""

    def __repr__(self) -> str:
        return f"Post({len(self.body)} bytes, arrived_at={self.arrived_at!r})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider must be told once its payload is durable."""

    status: int
    content_type: str
    body: bytes


class MailReader(Protocol):
    """A module that reads mails. Neither function raises, whatever the bytes."""

    PARSER: str

    def may_be_ours(self, header: bytes, rules: Rules) -> bool:
        """Say from header lines alone (at least From and Subject) whether the mail is ours."""

    def read_mail(self, raw: bytes, rules: Rules) -> Reading:
        """Return what the whole mail `raw` (any line ends, no mbox separator) means."""


class PostReader(Protocol):
    """A module that reads POSTs. It never raises, whatever the bytes."""

    PARSER: str
    ACCEPTED: Answer

    def read_post(self, post: Post, rules: Rules) -> Sequence[Readable | Unreadable]:
        """Return one reading an item, in the order of the payload; empty where it carries none."""
