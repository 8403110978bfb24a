"""The folders of the small IMAP server: messages, UIDs, UIDVALIDITY, and the faults a test may script."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Source = bytes | Callable[[int], bytes]
"""A mail's bytes, or what makes them from its UID when they are asked for (large folders cost no memory)."""


@dataclass(slots=True, eq=False)
class Message:
    """One mail of a box. `size` is what RFC822.SIZE answers: a server may lie about it."""

    uid: int
    source: Source
    size: int
    flags: set[str] = field(default_factory=set)
    gone: bool = False

    @property
    def raw(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source(self.uid)


@dataclass
class Faults:
    """What the server does wrong, on purpose. Every field may be changed while it runs.

    A `cut` entry is used up when it strikes, so that the next attempt succeeds; `cut_always` stays.
    """

    split_lines: bool = False
    """Each untagged line leaves in two TCP segments, as pymap's do."""
    delay: float = 0.0
    """Seconds before each answer."""
    silent: bool = False
    """Swallow everything and answer nothing: a peer behind a dead router."""
    bye_in_idle: bool = False
    """Answer IDLE, then BYE and close."""
    exists_with_continuation: bytes | None = None
    """A mail that arrives just as IDLE begins: its EXISTS shares a segment with the continuation."""
    exists_before_continuation: bytes | None = None
    """The same, but its EXISTS comes before the continuation."""
    quiet_idle: bool = False
    """IDLE is accepted, and nothing is ever pushed."""
    cut: dict[str, int] = field(default_factory=dict)
    """Command name to the number of bytes of its answer after which the connection is closed, once."""
    cut_always: dict[str, int] = field(default_factory=dict)
    cut_body_of: set[int] = field(default_factory=set)
    """UIDs whose body is cut in the middle of its literal, every time."""
    missing_body: dict[int, int] = field(default_factory=dict)
    """UID to how many more times its FETCH row comes without a body."""
    empty_body: dict[int, int] = field(default_factory=dict)
    """UID to how many more times its body comes with no byte in it."""
    missing_row: dict[int, int] = field(default_factory=dict)
    """UID to how many more times its FETCH row does not come at all."""
    foreign_rows: bool = False
    """Other people's flag changes come as extra FETCH rows in the middle of an answer."""
    refuse: dict[str, bytes] = field(default_factory=dict)
    """Command name to the tagged answer it gets, like `b"NO [UNAVAILABLE] try later"`."""
    search_line: int | None = None
    """Answer every SEARCH with one line of at least so many bytes."""
    search_chunk: int | None = None
    """Answer a SEARCH with one untagged line for each so many numbers."""
    listed: tuple[str, ...] = ()
    """Lines that LIST answers beside those of its own folders."""
    on_command: Callable[[str, bytes], None] | None = None
    """Called with the name and the arguments of each command before it is carried out."""


class Box:
    """One folder. Not thread-safe: reach it through `ImapServer.call` from another thread."""

    def __init__(self, uidvalidity: int = 1, first_uid: int = 1) -> None:
        self.uidvalidity = uidvalidity
        self.uidnext = first_uid
        self.messages: list[Message] = []
        self.watchers: set[asyncio.Event] = set()
        self.read_only = False
        self.keep_uidnext = True
        """False: SELECT says no UIDNEXT, which some old servers do."""

    def deliver(self, source: Source, flags: Iterable[str] = (), size: int | None = None) -> int:
        """Add a mail at the end, tell everybody who watches, and return its UID."""
        message = Message(self.uidnext, source, 0, set(flags))
        message.size = size if size is not None else len(message.raw)
        self.messages.append(message)
        self.uidnext += 1
        self.notify()
        return message.uid

    def remove(self, messages: Iterable[Message]) -> None:
        """Expunge `messages`, and tell everybody who watches."""
        for message in messages:
            message.gone = True
        self.messages = [message for message in self.messages if not message.gone]
        self.notify()

    def renumber(self, uidvalidity: int, first_uid: int = 1) -> None:
        """Give the folder a new UIDVALIDITY and its mails new UIDs, as a rebuilt server does."""
        self.uidvalidity = uidvalidity
        for number, message in enumerate(self.messages):
            message.uid = first_uid + number
        self.uidnext = first_uid + len(self.messages)

    def notify(self) -> None:
        for watcher in self.watchers:
            watcher.set()
