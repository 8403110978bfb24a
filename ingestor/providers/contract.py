"""What a provider folder owes: payload bytes in, readings out, and never an exception.

A provider knows what bytes mean. It does no I/O, and knows neither where they came from nor the archive.

A new one is a folder `ingestor/providers/<folder>/` and a line in the table of `providers/__init__.py`:
* its `__init__.py` has SECTION, a `ProviderSection`: the provider's own table of the configuration file, by
  the folder's name, and what follows from it for its readers;
* a module that reads its mails (`MailReader`), one that reads its POSTs (`PostReader`), or both;
* `samples/`: `documented.body` with its expected records in `documented.json` beside it, and the same payload
  at the head of the reader; further ones at will. `tests/providers/conformance` holds every reader to them.

Lines of the table may share a folder, hence its section and rules: a further kind of POST is a further
module. One that reads delivery reports gives `Report`s, which are no SMS and lie in a table of their own.
"""

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ingestor.numbers import Number, OriginatorKind, normalise_plusless
from ingestor.record import InboundSms

LARGEST_PARSED: Final = 1 << 20
"""A mail of ours beyond this many bytes (1 MiB) is kept and quarantined unparsed: it is no SMS."""

LARGEST_KEPT: Final = 32 << 20
"""Of a mail beyond this many bytes (32 MiB) only the first LARGEST_PARSED are kept: in an import always, from
a mailbox where `max_mail_bytes` says nothing else."""


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


class Report(NamedTuple):
    """What became of a message that we sent; `message_id` is the id we gave it.

    `status` is one of accepted, buffered, delivered, expired, rejected, deleted, undeliverable, failed,
    unknown, unclear; `status_raw` the word and the number as they came. `part` of `parts` counts from 1.
    `price` is the number as text, `done_at` aware UTC. Every text is one that a database holds.
    """

    parser: str
    shape: str
    message_id: str
    status: str
    status_raw: str
    part: int
    parts: int
    destination: str | None
    operator: str | None
    price: str | None
    done_at: datetime | None

    def __repr__(self) -> str:
        return f"Report({self.shape}, {self.status}, part {self.part} of {self.parts})"


ANOTHER_SENDER = "sender_not_listed"
"""Reason of a mail with our subject and a whole block from somebody who is not one of the senders."""

ANOTHER_FORWARDER = "forwarder_not_listed"
"""Reason of an SMS inside a mail (attached, journaled) that was passed on by nobody of the senders."""

NEAR_MISSES = {
    ANOTHER_SENDER: "from {who}, who is not one of [agile] senders",
    ANOTHER_FORWARDER: "passed on by {who}, who is not one of [agile] senders",
}
"""These codes in words; {who} stands in the kept bytes alone, for it names a person."""


def near_miss_in_words(reason: str, who: str = "somebody") -> str:
    """Return a quarantine's `reason` in words, whatever it is."""
    return NEAR_MISSES[reason].format(who=who) if reason in NEAR_MISSES else reason


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Somebody else's mail: it is counted and otherwise left alone. `sender` is its From address, if any.

    Where it looks like ours in part, `missing` says what else it lacks: `block`, `subject`, or both.
    """

    sender: str | None = field(default=None, repr=False)
    missing: str | None = None


Reading = Readable | Unreadable | NotOurs


class Explanation(NamedTuple):
    """Why a mail comes to its `reading`: the `rule` that decided, and the lines it looked at.

    Both are for a person at a terminal, never for a log: the lines are the mail's own.
    """

    reading: Reading
    rule: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What readers need to know of the settings.

    `zone` is the provider's clock; `numbers` are our own destinations, normalised (empty: every one);
    `senders` are the From addresses that are believed, in lower case. `subjects` (case folded, single blanks)
    and `labels` (of a mail, by field name) are further spellings beside the provider's own.
    """

    zone: ZoneInfo
    numbers: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset(("smsin@agiletelecom.com",))
    subjects: tuple[str, ...] = ()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


CREDENTIAL_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}"


def _credential(name: str) -> str:
    if not re.fullmatch(CREDENTIAL_NAME, name):
        raise ValueError("is no credential name: letters, digits, dot, dash and underscore, no path")
    return name


# Its plug-ins, of which we have none, are looked for in each installed package: 4 ms of every start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

Text = Annotated[str, Field(min_length=1)]
Credential = Annotated[str, AfterValidator(_credential)]
"""The name of a systemd credential: a plain file name."""


class Section(BaseModel):
    """A table of the configuration file: frozen, no unknown keys, and inputs never repeated in an error.

    Attribute names are the TOML keys, and the docstring and the descriptions are what the sample file and the
    reference page say; `examples` is the value shown where the default would teach nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    active: ClassVar[frozenset[str]] = frozenset()
    """Optional keys that the sample file sets; the others stand there commented out."""

    optional: ClassVar[bool] = False
    """True where the sample file comments the whole table out: not everybody has it."""


def left_out(example: Any, description: str) -> Any:
    """Return the field of a key that is None where it is left out; the sample file shows `example`."""
    return Field(default=None, examples=[example], description=description)


def none_of(example: Sequence[Any], description: str) -> Any:
    """Return the field of an array that is empty where it is left out; the sample file shows `example`."""
    return Field(default=(), examples=[example], description=description)


class ProviderSection(Section):
    """A provider's own table of the configuration file."""

    @abstractmethod
    def rules(self) -> Rules:
        """Return what the provider's readers need to know."""


def own_number(normalise: Callable[[str], Number]) -> Callable[[str], str]:
    """Return the check of one of our own numbers, read the way its provider writes destinations.

    It raises ValueError, in words for the user and without the number.
    """

    def check(raw: str) -> str:
        number = normalise(raw)
        if number.kind not in {OriginatorKind.MSISDN, OriginatorKind.SHORT}:
            raise ValueError("is no phone number; write it like +393331234333")
        return number.value

    return check


PluslessNumber = Annotated[str, AfterValidator(own_number(normalise_plusless))]


class PluslessSection(ProviderSection):
    """The table of a provider whose numbers come without plus, and whose times with their offset."""

    numbers: tuple[PluslessNumber, ...] = ()

    def rules(self) -> Rules:
        return Rules(ZoneInfo("UTC"), frozenset(self.numbers))


class Post(NamedTuple):
    """One POST as it came: raw body, raw query string, content type and encoding, and when (aware UTC)."""

    body: bytes
    query: bytes
    content_type: str
    arrived_at: datetime
    content_encoding: str = ""

    def __repr__(self) -> str:
        return f"Post({len(self.body)} bytes, arrived_at={self.arrived_at!r})"


class Answer(NamedTuple):
    """What the provider must be told once its payload is durable."""

    status: int
    content_type: str
    body: bytes


NO_MEMORY: Final = "there is not enough memory to read it"
"""Why a mail or POST is not read, where it cannot wait for better times."""


class MailReader(Protocol):
    """A module that reads mails. No function raises, whatever the bytes, but `read_mail` MemoryError."""

    PARSER: str
    """Its name and version; what stands before the first dot is its line in the table of providers."""

    def may_be_ours(self, header: bytes, rules: Rules) -> bool:
        """Say from header lines alone (at least From and Subject) whether the whole mail must be read."""

    def explain_mail(self, raw: bytes, rules: Rules, size: int | None = None) -> Explanation:
        """Return the reading of `raw` and what decided it; with a `size`, `raw` is its beginning alone."""

    def sender_shown(self, raw: bytes) -> str:
        """Return from whom the mail `raw` says it comes, fit for a line on a terminal."""

    def sender_of(self, raw: bytes, rules: Rules) -> str | None:
        """Return the one From address of `raw` in lower case, None where it is none of the senders."""

    def is_ours(self, header: bytes, rules: Rules) -> bool:
        """Say from header lines alone whether the mail is ours beyond doubt, whatever its body."""

    def read_mail(self, raw: bytes, rules: Rules) -> Reading:
        """Return what the whole mail `raw` (any line ends, no mbox separator) means."""

    def oversized(self, raw_head: bytes, size: int, kept: int, rules: Rules) -> Unreadable | NotOurs:
        """Return the verdict on a mail of `size` bytes, too long to be read, of which `kept` are archived."""


class PostReader(Protocol):
    """A module that reads POSTs, of SMS or of delivery reports. It never raises, whatever the bytes."""

    PARSER: str
    ACCEPTED: Answer

    def read_post(self, post: Post, rules: Rules) -> Sequence[Readable | Report | Unreadable]:
        """Return one reading an item, in the order of the payload; empty where it carries none."""
