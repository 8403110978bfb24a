"""Opens what the walk found, layer by layer, until there are leaves: mailboxes and mails."""

import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

from ingestor.errors import InputUnreadable
from ingestor.intake.files.blocks import Blocks, LongMail
from ingestor.intake.files.containers import (
    TarDamaged,
    apple_mail,
    buffered_zip,
    dovecot_mail,
    ends_in_a_list,
    tar_members,
    zip_members,
)
from ingestor.intake.files.mbox import Dialect, separator_end
from ingestor.intake.files.parse import split, unquoted
from ingestor.intake.files.streams import BombSuspected, Budget, Decompressed, Stream
from ingestor.intake.files.walk import (
    BYTE_ORDER_MARK,
    COMPRESSED,
    FileReference,
    Kind,
    references,
    refusal,
    sniff,
    why_no_mail,
)
from ingestor.providers.contract import LARGEST_PARSED
from ingestor.redaction import as_text, one_line

_LISTEN_SECONDS = 0.2
_MAILDIR_FOLDER = re.compile(r"(?:^|[/!])(?:cur|new)/[^/]+\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a leaf stands: a file, and the way into it where it is an archive."""

    path: str
    member: str | None = None

    def __str__(self) -> str:
        return one_line(self.path if self.member is None else f"{self.path}!{self.member}")

    @property
    def in_maildir(self) -> bool:
        """Say whether a member of an archive stands where a Maildir has its mails."""
        return self.member is not None and _MAILDIR_FOLDER.search(self.member) is not None

    @property
    def name(self) -> str:
        return (self.member or self.path).rpartition("/")[2]

    def inside(self, name: str) -> "Place":
        return Place(self.path, name if self.member is None else f"{self.member}!{name}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """The innermost: a mailbox, a mail, something unknown, or what cannot be read (`fault`).

    `listed` is the folder or archive whose list it belongs to. `mark` is the length of the byte order mark
    left out in front, `offset` the place of what `stream` gives; `looks` what it seemed without --format.
    """

    kind: Kind
    place: Place
    stream: Stream
    listed: Place | None
    mark: int = 0
    offset: int = 0
    fault: InputUnreadable | None = None
    looks: Kind | None = None
    in_maildir: bool = False


class Interrupted(Exception):
    """The user wants to end: it steers, it is no error."""


class _File:
    """The physical file: counts what is read of it, and hears before each read that the user wants to end."""

    def __init__(self, file: BinaryIO, name: str, budget: Budget, stopping: Callable[[], bool]) -> None:
        self._file = file
        self._name = name
        self._budget = budget
        self._stopping = stopping
        self._waits = file is _stdin()

    def _listen(self) -> None:
        """Raise Interrupted where the user wants to end, even while nothing comes through a pipe."""
        while not self._stopping():
            try:
                if not self._waits or select.select([self._file], [], [], _LISTEN_SECONDS)[0]:
                    return
            except (OSError, ValueError):
                return  # no descriptor: nothing to wait for
        raise Interrupted

    def read(self, count: int = -1) -> bytes:
        self._listen()
        try:
            piece = self._file.read(count)
        except OSError as error:
            raise InputUnreadable(f"{self._name} cannot be read: {error.strerror}") from None
        self._budget.take(len(piece))
        return piece

    def readinto(self, view: memoryview) -> int:
        self._listen()
        try:
            got: int = self._file.readinto(view)  # type: ignore[attr-defined]  # raw files and buffered ones have it
        except OSError as error:
            raise InputUnreadable(f"{self._name} cannot be read: {error.strerror}") from None
        self._budget.take(got)
        return got

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


class OpenFile:
    """One file of the walk, opened; iterate it for its leaves. Each is to be read before the next."""

    def __init__(
        self, reference: FileReference, forced: Kind | None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """`forced` is the kind of every leaf. Raises `InputUnreadable`; reading it, `Interrupted` as well."""
        path = as_text(reference.path)
        self._path = path
        self._name = one_line(path)
        self._stopping = stopping
        self._forced = Kind.MAIL if reference.is_mail else forced
        self._in_maildir = reference.is_mail  # one that begins with a `From ` line is a mail all the same
        self._listed = None if reference.folder is None else Place(as_text(reference.folder))
        self._seekable = reference.size is not None and reference.path != "-"
        self._size = reference.size or 0
        self._plain = False
        self.budget = Budget(self._name, reference.size)
        try:
            if reference.fault:
                raise InputUnreadable(f"{self._name}: {reference.fault}")
            if reference.path == "-":
                stdin = _stdin()
                if stdin is None:
                    raise InputUnreadable("stdin is closed: there is nothing to read")
                self._file: BinaryIO = stdin
            else:
                self._file = open(reference.path, "rb", buffering=0)  # noqa: SIM115, PTH123 -- closed by close()
        except OSError as error:
            raise InputUnreadable(f"{self._name} cannot be opened: {_advised(error)}") from None

    def close(self) -> None:
        if self._path != "-":
            self._file.close()

    @property
    def change(self) -> str | None:
        """Say how the size of a file that was read to its end changed meanwhile; None where it did not."""
        if not self._seekable:
            return None
        size = self.budget.taken if self._plain else os.fstat(self._file.fileno()).st_size
        difference = size - self._size
        if not difference:
            return None
        how = "longer" if difference > 0 else "shorter"
        return f"it became {how} by {abs(difference):,} bytes while it was read"

    def __iter__(self) -> Iterator[Leaf]:
        """Yield the leaves in the order of the file. Raises `InputUnreadable`, also as `BombSuspected`."""
        file = _File(self._file, self._name, self.budget, self._stopping)
        yield from self._unfold(Stream(file), Place(self._path), self._listed, 0, file)

    def _unfold(
        self, stream: Stream, place: Place, listed: Place | None, depth: int, file: _File | None
    ) -> Iterator[Leaf]:
        self.budget.check_depth(depth)
        kind = sniff(stream.head())
        if kind is Kind.MAIL and ends_in_a_list(stream.head()):
            kind = Kind.EMLX
        if kind in COMPRESSED:
            inner = Stream(Decompressed(stream, kind, str(place), self.budget))
            yield from self._unfold(inner, place, listed, depth + 1, None)
        elif kind is Kind.ZIP:
            yield from self._unzip(stream, place, depth, file)
        elif kind is Kind.TAR:
            for name, member in tar_members(stream, str(place), self.budget):
                yield from self._unfold_member(member, place.inside(as_text(name)), place, depth)
        elif kind is Kind.EMLX:
            offset, mail = apple_mail(stream, str(place))
            yield Leaf(Kind.MAIL, place, Stream(io.BytesIO(mail)), listed, offset=offset)
        elif kind is Kind.DBOX:
            yield from self._unfold_dbox(stream, place, listed, depth)
        else:
            self._plain = depth == 0
            yield self._leaf(kind, stream, place, listed)

    def _unfold_member(self, stream: Stream, place: Place, archive: Place, depth: int) -> Iterator[Leaf]:
        """Unfold a member of an archive: damage in it ends this member only."""
        try:
            yield from self._unfold(stream, place, archive, depth + 1, None)
        except BombSuspected:
            raise
        except InputUnreadable as fault:
            if isinstance(fault, TarDamaged) and fault.archive == str(archive):
                raise
            yield Leaf(Kind.UNKNOWN, place, Stream(None), archive, fault=fault)

    def _unfold_dbox(self, stream: Stream, place: Place, listed: Place | None, depth: int) -> Iterator[Leaf]:
        offset, mail = dovecot_mail(stream, str(place))
        inner = Stream(io.BytesIO(mail))
        kind = sniff(inner.head())
        if kind in COMPRESSED:
            self.budget.check_depth(depth + 1)
            inner = Stream(Decompressed(inner, kind, str(place), self.budget))
        elif kind is Kind.REFUSED:
            raise InputUnreadable(f"{place} holds a mail that is {refusal(inner.head())}")
        yield Leaf(Kind.MAIL, place, inner, listed, offset=offset)

    def _unzip(self, stream: Stream, place: Place, depth: int, file: _File | None) -> Iterator[Leaf]:
        if file is not None and self._seekable:
            file.seek(0)
            archive = cast("BinaryIO", file)  # zipfile needs read, seek and tell only
        else:
            archive = buffered_zip(stream, str(place))
        for name, member in zip_members(archive, str(place), self.budget):
            inside = place.inside(as_text(name))
            if isinstance(member, InputUnreadable):
                yield Leaf(Kind.UNKNOWN, inside, Stream(None), place, fault=member)
            else:
                yield from self._unfold_member(member, inside, place, depth)

    def _leaf(self, kind: Kind, stream: Stream, place: Place, listed: Place | None) -> Leaf:
        head = stream.head()
        mark = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
        stream.skip(mark)
        if fault := self._refused(kind, head, place, listed):
            return Leaf(Kind.UNKNOWN, place, stream, listed, mark, fault=InputUnreadable(fault))
        in_maildir = self._in_maildir or place.in_maildir
        if kind is Kind.EMPTY or self._forced is None:
            return Leaf(kind, place, stream, listed, mark, in_maildir=in_maildir)
        looks = None if self._in_maildir else kind
        return Leaf(self._forced, place, stream, listed, mark, looks=looks, in_maildir=in_maildir)

    def _refused(self, kind: Kind, head: bytes, place: Place, listed: Place | None) -> str | None:
        """Say why no reading may be forced on what begins with `head`, and no place make a mail of it."""
        if kind is Kind.REFUSED:
            return f"{place} is {refusal(head)}"
        is_blank = kind is Kind.MBOX and not head.strip(b"\0")
        if kind not in (Kind.UNKNOWN, Kind.MBOX) or (kind is Kind.MBOX and not is_blank):
            return None
        # Behind whatever a mailbox begins with there may be mails: forced, it is read for them.
        is_called_mail = self._forced is Kind.MAIL or listed is None or place.in_maildir
        why = why_no_mail(head) if is_called_mail and self._forced is not Kind.MBOX else None
        return f"{place} {why}" if why else None


def _stdin() -> BinaryIO | None:
    """Return stdin without its buffer, whose content `select` does not see; None where it is closed."""
    buffered = getattr(sys.stdin, "buffer", None)
    return getattr(buffered, "raw", buffered)


def _advised(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{error.strerror}; run the import as a user who may read it"
    return error.strerror or type(error).__name__


class Found(NamedTuple):
    """A mail and its place; `size` is set where `raw` is only its beginning, `fault` where there is none."""

    place: Place
    offset: int
    raw: bytes
    size: int | None = None
    fault: str | None = None


def each_mail(paths: Sequence[str]) -> Iterator[Found]:
    """Yield every mail at or below `paths`, in the order of an import; what cannot be read is a fault."""
    for _, reference in references(paths):
        try:
            with closing(OpenFile(reference, None)) as opened:
                for leaf in opened:
                    yield from _in_leaf(leaf)
        except InputUnreadable as fault:
            yield Found(Place(as_text(reference.path)), 0, b"", fault=str(fault))


def _in_leaf(leaf: Leaf) -> Iterator[Found]:
    place = leaf.place
    try:
        if leaf.fault or leaf.kind is Kind.UNKNOWN:
            fault = str(leaf.fault or f"{place} is neither mail, mailbox nor archive")
            yield Found(place, 0, b"", fault=fault)
            return
        dialect = Dialect.MBOX if leaf.kind is Kind.MBOX else None
        for piece in Blocks(leaf.stream, dialect, lambda _: True, offset=leaf.mark + leaf.offset):
            if isinstance(piece, LongMail):
                if not piece.gap:
                    raw = bytes((piece.raw or piece.header)[:LARGEST_PARSED])
                    yield Found(place, piece.offset, raw, size=piece.size)
                continue
            data = bytes(piece.data)
            if dialect is None:
                skipped = separator_end(data, 0, len(data))
                yield Found(place, piece.offset + skipped, data[skipped:])
                continue
            for start, end, verbatim in split(data).mails:
                mail = unquoted(data[start:end], dialect, verbatim=verbatim)
                yield Found(place, piece.offset + start, mail)
    except InputUnreadable as fault:
        yield Found(place, 0, b"", fault=str(fault))
