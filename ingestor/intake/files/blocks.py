"""Cuts a stream of any length into blocks of whole mails, in bounded memory.

Blocks are split apart in other processes, and give the same mails as the file in one piece. Of a mail longer
than a block the bytes are kept only if its header says that it is ours.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ingestor.archive.rows import ContentKey
from ingestor.errors import InputUnreadable
from ingestor.intake.files import mbox
from ingestor.intake.files.streams import Stream
from ingestor.providers.contract import LARGEST_KEPT, LARGEST_PARSED

BLOCK = 2 << 20
"""Bytes that travel together: any mail that is parsed fits in, and a dozen of them fit in memory."""

MOST_MAILS = 2500
"""About how many mails a block may hold: a block is never split over two transactions."""

_CONTEXT = 4  # bytes before a line that tell whether an empty line precedes it


@dataclass(frozen=True, slots=True)
class Block:
    """Whole mails: `data` is valid until the next block; `sha256` is over the stream up to its end."""

    offset: int
    data: memoryview
    sha256: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(slots=True)
class LongMail:
    """One mail longer than a block: `raw` is what was kept (None: not ours, or packed since).

    `size` and `content_key` are over all of it; `gap` is its length where it is no mail at all.
    """

    offset: int
    separators: int
    size: int
    header: bytes
    raw: bytes | bytearray | None
    content_key: bytes
    gap: int
    end: int
    sha256: bytes
    odd: bool


class _Collector:
    def __init__(self, *, wanted: bool) -> None:
        self.size = 0
        self.kept: bytearray | None = bytearray() if wanted else None
        self._content_key = ContentKey()
        self._wanted = wanted
        self.tail = b""

    def feed(self, piece: bytes) -> None:
        self.size += len(piece)
        self.tail = (self.tail + piece[-4:])[-4:]
        if self.kept is None:
            return
        if len(self.kept) < LARGEST_KEPT + 1:
            self.kept += piece[: LARGEST_KEPT + 1 - len(self.kept)]
        self._content_key.feed(piece)

    def raw(self, tail: int) -> bytes | bytearray | None:
        """Return what is kept, without the last `tail` bytes of the whole."""
        if self.kept is None:
            return None
        if len(self.kept) > LARGEST_KEPT:
            return bytes(self.kept[:LARGEST_PARSED])
        del self.kept[len(self.kept) - tail :]
        return self.kept  # not copied: it may have 32 MiB

    def content_key(self) -> bytes:
        return self._content_key.digest()


class Blocks:
    """Reads `stream` from `offset` on and cuts it.

    `wanted` says from a header whether the mail is ours. `dialect` None reads the whole stream as one mail.
    `buffer` (of `BLOCK` bytes) may be used again for the next stream. With `doubted` a last mail that the
    stream ends inside of is held back, and every last mail while `doubted` says so (its file is written to);
    `held` is then its length with its separator, which counts as not read. `offset`: given out.
    """

    def __init__(
        self,
        stream: Stream,
        dialect: mbox.Dialect | None,
        wanted: Callable[[bytes], bool],
        *,
        offset: int = 0,
        hasher: "hashlib._Hash | None" = None,
        buffer: bytearray | None = None,
        doubted: Callable[[], bool] | None = None,
    ) -> None:
        self.held = 0
        self.found = False
        self.is_more_than_blank = False
        self._doubted = doubted if dialect is not None else None
        self._stream = stream
        self._dialect = dialect
        self._wanted = wanted
        self.offset = offset
        self._hasher = hasher or hashlib.sha256()
        self._buffer = bytearray(BLOCK) if buffer is None else buffer
        self._fill = 0
        self._ended = False
        self._trouble: InputUnreadable | None = None

    def __iter__(self) -> Iterator[Block | LongMail]:
        """Yield the stream in order. A damaged stream gives its whole mails first and then raises."""
        while True:
            self._refill()
            if self._fill == 0:
                break
            end = self._boundary()
            if self._ended and end == self._fill and self._doubted is not None and not self._trouble:
                end = self._before_a_cut_mail()
                if not end:
                    self.held = self._fill
                    break
            if not self.found:
                self.found = self._begins_a_mail(end)
                self.is_more_than_blank |= bool(self._buffer[: self._fill].strip())
            if end:
                view = memoryview(self._buffer)[:end]
                self._hasher.update(view)
                yield Block(self.offset, view, self._hasher.digest())
                self._drop(end)
            elif self._trouble:
                break
            elif long_mail := self._long_mail():
                yield long_mail
        if self._trouble:
            raise self._trouble

    @property
    def sha256(self) -> bytes:
        """The hash of the stream up to `offset`."""
        return self._hasher.digest()

    def _begins_a_mail(self, end: int) -> bool:
        buffer, fill = self._buffer, self._fill
        if buffer.startswith(b"From ") or mbox.is_header_line(buffer, 0, fill):
            return True
        # Where more follows the next block begins with a separator.
        return end == fill and mbox.next_separator(buffer, 0, fill)[0] >= 0

    def _before_a_cut_mail(self) -> int:
        """Return where the last mail's separator begins if the stream ends inside that mail, else the end."""
        buffer, fill = self._buffer, self._fill
        begin, counted = 0, False
        after = mbox.separator_end(buffer, 0, fill)
        if mbox.uses_lengths(self._dialect or mbox.Dialect.MBOX) and mbox.has_lengths(buffer, fill):
            while True:
                stop, separator, next_after = mbox.next_boundary(buffer, after, fill, with_lengths=True)
                if separator < 0:
                    counted = stop >= 0
                    break
                begin, after = separator, next_after
        elif begin := mbox.last_separator(buffer, fill, fill):
            after = mbox.separator_end(buffer, begin, fill)
        if not after and not mbox.is_header_line(buffer, 0, fill):
            return fill  # no mail at all
        is_doubtful = self._doubted is not None and self._doubted()
        return begin if is_doubtful or not (counted or mbox.ends_whole(buffer, after, fill)) else fill

    def _refill(self) -> None:
        view = memoryview(self._buffer)
        while self._fill < len(view) and not self._ended and not self._trouble:
            try:
                got = self._stream.readinto(view[self._fill :])
            except InputUnreadable as trouble:
                self._trouble = trouble
                return
            self._ended = got == 0
            self._fill += got

    def _drop(self, count: int) -> None:
        rest = self._fill - count
        self._buffer[:rest] = self._buffer[count : self._fill]
        self._fill = rest
        self.offset += count

    def _boundary(self) -> int:
        """Return where the last mail that is surely whole ends, 0 if the first one is not."""
        if self._dialect is None:
            return self._fill if self._ended else 0
        buffer, fill = self._buffer, self._fill
        with_lengths = mbox.uses_lengths(self._dialect) and mbox.has_lengths(buffer, fill)
        crowd = buffer.count(mbox.CANDIDATE, 0, fill)
        if self._ended and crowd <= MOST_MAILS:
            return fill
        # Nothing follows the end, nor a damaged place: what stands before it decides alone.
        sure, believed = fill - mbox.LOOKAHEAD, mbox.BELIEVED_LENGTH
        if self._trouble or self._ended:
            sure, believed = fill, 0
        if crowd > MOST_MAILS:
            sure = min(sure, fill * MOST_MAILS // crowd)
        if not with_lengths:
            return mbox.last_separator(buffer, max(0, sure), fill) or (fill if self._ended else 0)
        cut = 0
        after = mbox.separator_end(buffer, 0, fill)
        while cut <= sure - believed:
            _, separator, next_after = mbox.next_boundary(buffer, after, fill, with_lengths=True)
            if separator < 0 or separator > sure:
                break
            cut, after = separator, next_after
        return cut or (fill if self._ended else 0)

    def _long_mail(self) -> LongMail | None:
        buffer, start, before = self._buffer, self.offset, self._hasher.copy()
        in_mbox = self._dialect is not None
        after = mbox.separator_end(buffer, 0, self._fill)
        odd = bool(after) and mbox.is_odd(bytes(buffer[:after]))
        is_mail = bool(after) or not in_mbox or mbox.is_header_line(buffer, 0, self._fill)
        body = mbox.header_end(buffer, after, self._fill)
        header = bytes(buffer[after : body if 0 < body < after + LARGEST_PARSED else after + LARGEST_PARSED])
        collector = _Collector(wanted=is_mail and self._wanted(header))
        self._hasher.update(buffer[:after])
        at = after
        while True:
            sure = self._fill if self._ended else self._fill - mbox.LOOKAHEAD
            separator = mbox.next_separator(buffer, max(0, at - 1), self._fill)[0] if in_mbox else -1
            found = 0 <= separator <= sure
            stop = separator if found else sure
            piece = bytes(memoryview(buffer)[at:stop])
            collector.feed(piece)
            self._hasher.update(piece)
            if found or self._ended:
                self._drop(stop)
                if not found and is_mail and self._is_cut(collector.tail):
                    self.held, self.offset, self._hasher = self.offset - start, start, before
                    return None
                break
            self._drop(stop - _CONTEXT)
            at = _CONTEXT
            self._refill()
            if self._trouble:
                raise self._trouble
        tail = mbox.trailing_blank(collector.tail, 0, len(collector.tail)) if in_mbox and is_mail else 0
        return LongMail(
            offset=start + after,
            separators=after + tail,
            size=collector.size - tail if is_mail else 0,
            header=header,
            raw=collector.raw(tail),
            content_key=collector.content_key(),
            gap=0 if is_mail else collector.size,
            end=self.offset,
            sha256=self._hasher.digest(),
            odd=odd,
        )

    def _is_cut(self, tail: bytes) -> bool:
        return self._doubted is not None and (not tail.rstrip(b"\0").endswith(b"\n") or self._doubted())
