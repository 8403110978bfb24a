"""The books of a run: how far each input was read, whether that is still the same, what came of it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from sqlalchemy import Engine

from ingestor.archive import runs
from ingestor.archive.items import InputProgress
from ingestor.archive.queries import copies_before
from ingestor.errors import ConfigurationError, InputUnreadable
from ingestor.intake.files.leaves import Place
from ingestor.intake.files.parse import Findings
from ingestor.intake.files.streams import Stream
from ingestor.providers.contract import near_miss_in_words
from ingestor.record import Outcome

LONGEST_NAME = 1000
"""Bytes of a path or a member's name: a longer one is kept short in the books, whole with its arrivals."""

MOST_LISTED = 1000
"""Remarks of one sort beyond this many are only counted."""

_PIECE = 1 << 20


def find(engine: Engine, run_id: int) -> runs.Run:
    """Return the import `run_id`, to be taken up again. Raises ConfigurationError when there is none."""
    try:
        run = runs.find_run(engine, run_id)
    except LookupError:
        raise ConfigurationError(f"there is no run {run_id}; `ingestor status` lists the last runs") from None
    if run.command != runs.IMPORT:
        raise ConfigurationError(f"run {run_id} was `{run.command}`, not an import; only imports are resumed")
    return run


class InputChanged(InputUnreadable):
    """A resumed input is not what had been read: going on would lose or double mails."""


class Books:
    """Opens inputs for one run. A dry run (without `run_id`) keeps none: each input is at its beginning."""

    def __init__(
        self, engine: Engine | None, run_id: int | None, before: Callable[[], None] = lambda: None
    ) -> None:
        """`before` is called before each write, to leave room for others."""
        self._engine = engine
        self.run_id = run_id
        self._before = before
        self._numbers = count(1)
        earlier = runs.inputs(engine, run_id) if engine is not None and run_id is not None else ()
        self._known = {(one.path, one.member): one for one in earlier}

    def begin(self, place: Place) -> runs.RunInput:
        """Return how far the input at `place` had been read."""
        path, member = _key(place)
        known = self._known.pop((path, member), None)
        if known is not None:
            return known
        if self._engine is None or self.run_id is None:
            return runs.RunInput(next(self._numbers), path, member, None, 0, None)
        self._before()
        return runs.RunInput(
            runs.begin_input(self._engine, self.run_id, path, member), path, member, None, 0, None
        )

    def has_read(self, place: Place, size: int) -> bool:
        """Say whether an earlier process of this run read an input of so many bytes to its end."""
        known = self._known.get(_key(place))
        return known is not None and known.position == size

    def copies(self, place: Place, offset: int) -> Iterable[tuple[bytes, int]]:
        """Give how many mails of each content key the archive has of an mbox before `offset`."""
        if self._engine is None or not offset:
            return ()
        return copies_before(self._engine, place.path, place.member, offset)

    def missing(self) -> list[tuple[str, str]]:
        """Return path and sentence of each input that was not read to its end and was not met again."""
        return [
            (one.path, _gone(one))
            for one in self._known.values()
            if one.position and (one.size is None or one.position < one.size)
        ]

    def end(self) -> None:
        """Record that the run reached its end."""
        if self._engine is not None and self.run_id is not None:
            self._before()
            runs.end_run(self._engine, self.run_id, datetime.now(UTC))


def _key(place: Place) -> tuple[str, str | None]:
    """Return the place as the books have it: an index of PostgreSQL's takes no key beyond 2.7 kB."""
    return _short(place.path), None if place.member is None else _short(place.member)


def _short(name: str) -> str:
    whole = name.encode("utf-8", "replace")
    if len(whole) <= LONGEST_NAME:
        return name
    return f"{name[:100]}…{name[-100:]} ({hashlib.sha256(whole).hexdigest()})"


def _gone(one: runs.RunInput) -> str:
    place = Place(one.path, one.member)
    return (
        f"{place} had been read up to {one.position} and is not there any more; what was read of it is safe"
    )


@dataclass(slots=True)
class StreamInput:
    """A mailbox or a mail of its own: positions are offsets in the decompressed stream."""

    place: Place
    earlier: runs.RunInput
    hasher: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _reached: int | None = None

    def catch_up(self, stream: Stream, mark: int) -> int:
        """Read what was read before (`mark` bytes are consumed); return its end. Raises `InputChanged`."""
        left = self.earlier.position - mark
        if left <= 0:
            return mark
        while left:
            piece = stream.read(min(left, _PIECE))
            if not piece:
                raise InputChanged(_changed(self.place, "is shorter than what had been read of it"))
            self.hasher.update(piece)
            left -= len(piece)
        if self.earlier.sha256 != self.hasher.digest():
            raise InputChanged(_changed(self.place, "is not the same as when it was read"))
        return self.earlier.position

    def progress(self, position: int, sha256: bytes, size: int | None = None) -> InputProgress:
        """Return the step to `position`; `size` once the end was seen."""
        since = self.earlier.position if self._reached is None else self._reached
        self._reached = position
        return InputProgress(self.earlier.id, position, sha256, size, since)


@dataclass(slots=True)
class ListInput:
    """The single mails of a folder or an archive: the position is a place in their list."""

    place: Place
    earlier: runs.RunInput
    count: int = 0
    _chain: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def catching_up(self) -> bool:
        """Say whether the next file had been read before."""
        return self.count < self.earlier.position

    def add(self, name: str, content_sha256: bytes) -> InputProgress | None:
        """Take the next file; return the step, None while catching up. Raises `InputChanged`."""
        was_before = self.catching_up
        self._chain.update(name.encode("utf-8", "replace") + b"\0" + content_sha256)
        self.count += 1
        if not was_before:
            return InputProgress(self.earlier.id, self.count, self._chain.digest(), None, self.count - 1)
        if not self.catching_up and self._chain.digest() != self.earlier.sha256:
            raise InputChanged(_changed(self.place, "does not begin with the same files as when it was read"))
        return None

    def end(self) -> InputProgress:
        """Return the last step: now the length of the list is known. Raises `InputChanged` if it is short."""
        if self.catching_up:
            raise InputChanged(_changed(self.place, "holds fewer files than had been read of it"))
        return InputProgress(self.earlier.id, self.count, self._chain.digest(), self.count, self.count)


def _changed(place: Place, how: str) -> str:
    return f"{place} {how}; import it again without --resume: what is stored already will not be doubled"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to be told about a place in the input, in words without personal content."""

    place: str
    offset: int
    reason: str
    length: int = 0


@dataclass(slots=True)
class Listing:
    """Remarks of one sort: the first MOST_LISTED of them, and how many and how long all are."""

    remarks: list[Remark] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def add(self, place: str, offset: int, reason: str, length: int = 0) -> None:
        """Note `reason`, and `length` bytes, at `offset` of what stands at `place`."""
        self.count += 1
        self.size += length
        if len(self.remarks) < MOST_LISTED:
            self.remarks.append(Remark(place, offset, reason, length))


@dataclass(slots=True)
class Tally:
    """Counts of one process; the balance of a resumed run is in the archive."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    mails: int = 0
    mail_bytes: int = 0
    separator_bytes: int = 0
    odd_separators: int = 0
    gaps: Listing = field(default_factory=Listing)
    no_mail: dict[str, Listing] = field(default_factory=dict)
    """Files of folders and archives that hold no mail, by what their names end in."""
    mailbox_like: Listing = field(default_factory=Listing)
    """Those among them in which lines stand as mails begin with."""
    quarantined: Listing = field(default_factory=Listing)
    overruled: Listing = field(default_factory=Listing)
    """Mailboxes that were read as one mail each, because the user wanted so."""
    left_out: Listing = field(default_factory=Listing)
    """Files that were not opened: what they hold is read under another name, or they hold nothing."""
    failures: list[str] = field(default_factory=list)
    failure_count: int = 0
    notes: list[str] = field(default_factory=list)
    outside: int = 0
    """Ignored, because they are SMS of other days than --since and --until ask for."""
    senders: Counter[str] = field(default_factory=Counter)
    look_alikes: Counter[str] = field(default_factory=Counter)
    """Ignored mails with something of ours, by what they lacked."""
    taken: int = 0
    """Bytes read of the files themselves."""

    @property
    def read(self) -> int:
        """How many items have their outcome."""
        return sum(self.outcomes.values())

    def add_no_mail(self, place: str, name: str, size: int, beginnings: int) -> None:
        """Note a file without any mail in which `beginnings` lines stand as mails begin with."""
        ending = name.rpartition(".")[2].lower() if "." in name.strip(".") else ""
        self.no_mail.setdefault(f".{ending}" if ending else "without ending", Listing()).add(
            place, 0, "neither mail, mailbox nor archive", size
        )
        if beginnings:
            words = f"{beginnings:,} lines in it stand as mails begin with; --format mbox reads it"
            self.mailbox_like.add(place, 0, words, size)

    def add(self, found: Findings, origin: tuple[Place, int] | None) -> None:
        """Count what a stretch that begins at `origin` came to, but for the outcomes of its mails."""
        self.mails += found.mails
        self.mail_bytes += found.mail_bytes
        self.separator_bytes += found.separators
        self.odd_separators += found.odd
        self.outside += found.outside
        self.senders.update(found.senders)
        self.look_alikes.update(found.look_alikes)
        if origin is not None:
            place, base = origin
            for offset, length, reason in found.gaps:
                self.gaps.add(str(place), base + offset, reason, length)

    def add_quarantined(self, place: str, offset: int, reason: str) -> None:
        self.quarantined.add(place, offset, near_miss_in_words(reason))

    def add_failure(self, reason: str) -> None:
        self.failure_count += 1
        if len(self.failures) < MOST_LISTED:
            self.failures.append(reason)
