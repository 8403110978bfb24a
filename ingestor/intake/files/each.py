"""Every mail of some files, one after the other in this process: to be looked at, not to be imported."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ingestor.errors import InputUnreadable
from ingestor.intake.files.blocks import MAX_PARSED, Blocks, LongMail
from ingestor.intake.files.folders import Identity, walk
from ingestor.intake.files.kinds import Kind
from ingestor.intake.files.mbox import Dialect, split, unquoted
from ingestor.intake.files.reading import leading_separator
from ingestor.intake.files.sources import OpenFile, Place, Source


class Found(NamedTuple):
    """A mail and its place; `size` is set where `raw` is only its beginning, `fault` where there is none."""

    place: Place
    offset: int
    raw: bytes
    size: int | None = None
    fault: str | None = None


def each_mail(paths: Sequence[str]) -> Iterator[Found]:
    """Yield every mail at or below `paths`, in the order of an import; what cannot be read is a fault."""
    seen: set[Identity] = set()
    for path in paths:
        for reference in walk(path, seen):
            try:
                opened = OpenFile(reference, None)
            except InputUnreadable as fault:
                yield Found(Place(reference.path), 0, b"", fault=str(fault))
                continue
            try:
                for source in opened:
                    yield from _in_source(source)
            except InputUnreadable as fault:
                yield Found(Place(reference.path), 0, b"", fault=str(fault))
            finally:
                opened.close()


def _in_source(source: Source) -> Iterator[Found]:
    place = source.place
    try:
        if source.fault:
            raise source.fault
        if source.kind is Kind.UNKNOWN:
            yield Found(place, 0, b"", fault=f"{place} is neither mail, mailbox nor archive")
        elif source.kind is Kind.MBOX:
            yield from _in_mbox(source)
        elif source.kind is Kind.MAIL:
            whole = source.stream.whole()
            if whole is not None:
                skipped = leading_separator(whole)
                yield Found(place, source.mark + source.offset + skipped, whole[skipped:])
                return
            for piece in Blocks(source.stream, None, lambda _: True, offset=source.mark + source.offset):
                yield (
                    _long(place, piece)
                    if isinstance(piece, LongMail)
                    else Found(place, piece.offset, bytes(piece.data))
                )
    except InputUnreadable as fault:
        yield Found(place, 0, b"", fault=str(fault))


def _in_mbox(source: Source) -> Iterator[Found]:
    dialect = Dialect.MBOX
    for piece in Blocks(source.stream, dialect, lambda _: True, offset=source.mark):
        if isinstance(piece, LongMail):
            if piece.gap is None:
                yield _long(source.place, piece)
            continue
        data = bytes(piece.data)
        kind = piece.dialect or dialect
        for start, end, verbatim in split(data, kind).mails:
            yield Found(
                source.place, piece.offset + start, unquoted(data[start:end], kind, verbatim=verbatim)
            )


def _long(place: Place, mail: LongMail) -> Found:
    return Found(place, mail.offset, bytes((mail.raw or mail.header)[:MAX_PARSED]), size=mail.size)
