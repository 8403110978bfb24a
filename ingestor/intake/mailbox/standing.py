"""What stood in a folder at the last pass: its UIDs, and marks by which its newest mails are known again.

A UID is a promise of the server (RFC 3501, 2.3.1.1) that some do not keep: Courier-IMAP 5.0.13 numbers what
lies in Maildir/new anew at each EXAMINE, and a mailbox restored from a backup gives the numbers of lost mails
to new ones; the UIDVALIDITY stays. So a mail counts as read only if that very mail was seen there.
"""

import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

MARKED: Final = 100
"""How many of the newest mails are known again by their marks."""

_MARK = struct.Struct(">Q8s4s8s")
_LINES = re.compile(
    rb"^(?:From|Subject|Date|Message-ID)[ \t]*:.*(?:\r?\n[ \t].*)*", re.IGNORECASE | re.MULTILINE
)
_MESSAGE_ID = re.compile(rb"^Message-ID[ \t]*:\s*[^\s]", re.IGNORECASE | re.MULTILINE)


class Mark(NamedTuple):
    """A mail under the archive's key: header, size, and of one of ours the content; zeros: unknown."""

    head: bytes
    size: bytes = bytes(4)
    content: bytes = bytes(8)

    @property
    def ours(self) -> bool:
        return any(self.content)

    def looks_like(self, other: "Mark") -> bool:
        """Say whether header and size are the same, as far as both are known."""
        sizes = {self.size, other.size} - {bytes(4)}
        return self.head == other.head and len(sizes) < 2


def mark_of(lines: bytes, size: int | None, content_key: bytes, secret: bytes) -> Mark:
    """Return the mark of a mail by its From, Subject, Date and Message-ID lines, its size and content.

    `content_key` is the archive's key of one of ours, empty for any other.
    """
    taken = b"\n".join(b" ".join(line.split()) for line in _LINES.findall(lines))
    return Mark(
        blake2b(taken, key=secret, digest_size=8).digest(),
        bytes(4) if size is None else blake2b(b"%d" % size, key=secret, digest_size=4).digest(),
        content_key[-8:] if content_key else bytes(8),
    )


def names_itself(lines: bytes) -> bool:
    """Say whether header `lines` hold a Message-ID: two mails with equal heads are one then."""
    return _MESSAGE_ID.search(lines) is not None


class Uids:
    """A set of UIDs as ascending ranges: of a folder of 200,000 mails that nobody thinned out, one."""

    def __init__(self, written: str = "") -> None:
        """Take them from `1:5,7,9:20`."""
        ranges = [part.partition(":") for part in written.split(",") if part]
        self._first = [int(first) for first, _, _ in ranges]
        self._last = [int(last or first) for first, _, last in ranges]

    def __str__(self) -> str:
        ranges = zip(self._first, self._last, strict=True)
        return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in ranges)

    def __len__(self) -> int:
        return sum(self._last) - sum(self._first) + len(self._first)

    def __contains__(self, uid: int) -> bool:
        at = bisect_right(self._first, uid) - 1
        return at >= 0 and uid <= self._last[at]

    def add(self, uids: Iterable[int]) -> None:
        for uid in uids:
            at = bisect_left(self._last, uid - 1)  # the first range that `uid` may join
            if at == len(self._last) or uid < self._first[at] - 1:
                self._first.insert(at, uid)
                self._last.insert(at, uid)
                continue
            self._first[at] = min(self._first[at], uid)
            self._last[at] = max(self._last[at], uid)
            if at + 1 < len(self._first) and self._first[at + 1] == self._last[at] + 1:
                self._last[at] = self._last.pop(at + 1)
                del self._first[at + 1]

    def discard(self, uids: Iterable[int]) -> None:
        for uid in uids:
            if uid not in self:
                continue
            at = bisect_right(self._first, uid) - 1
            first, last = self._first[at], self._last[at]
            left = [(a, b) for a, b in ((first, uid - 1), (uid + 1, last)) if a <= b]
            self._first[at : at + 1] = [a for a, _ in left]
            self._last[at : at + 1] = [b for _, b in left]

    def newest(self, count: int) -> list[int]:
        """Return the `count` highest, ascending."""
        found: list[int] = []
        for first, last in zip(reversed(self._first), reversed(self._last), strict=True):
            found += range(last, max(first, last - (count - len(found)) + 1) - 1, -1)
            if len(found) >= count:
                break
        return found[::-1]


class Standing:
    """The mails of one folder that were read, as far as they stand there still."""

    def __init__(self, uids: str = "", marks: bytes = b"") -> None:
        """Take what `cursors` keeps."""
        self.uids = Uids(uids)
        self.marks = dict(_read_marks(marks))

    def met(self, uids: Iterable[int], marks: dict[int, Mark]) -> None:
        """Remember that `uids` were met; `marks` are of the newest of them."""
        self.uids.add(uids)
        self.marks |= marks
        self.marks = {uid: self.marks[uid] for uid in sorted(self.marks)[-MARKED:]}

    def gone(self, uids: Iterable[int]) -> None:
        """Forget `uids`: should a mail stand there one day, it is another one, or has come back."""
        gone = list(uids)
        self.uids.discard(gone)
        for uid in gone:
            self.marks.pop(uid, None)

    def replace(self, uids: Uids) -> None:
        """Take `uids` for what stands in the folder now."""
        self.uids = uids
        self.marks = {uid: mark for uid, mark in self.marks.items() if uid in uids}

    def kept_marks(self) -> bytes:
        """Return the marks as `cursors` keeps them."""
        return b"".join(_MARK.pack(uid, *mark) for uid, mark in sorted(self.marks.items()))


def _read_marks(kept: bytes) -> Iterator[tuple[int, Mark]]:
    for uid, *mark in _MARK.iter_unpack(kept):
        yield uid, Mark(*mark)
