"""What stood in a folder at the last pass: its UIDs, and marks by which its newest mails are known again.

A UID is a promise of the server (RFC 3501, 2.3.1.1) that some do not keep: Courier-IMAP 5.0.13 numbers what
lies in Maildir/new anew at each EXAMINE, and a mailbox restored from a backup gives the numbers of lost mails
to new ones; the UIDVALIDITY stays. So a mail counts as read only if that very mail was seen there.
"""

import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from ingestor.archive.items import Item
from ingestor.archive.rows import keyed
from ingestor.intake.mailbox.answers import Header
from ingestor.intake.mailbox.fetch import Fetch
from ingestor.providers.contract import NotOurs

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
    """Return the mark of a mail; `content_key` is the archive's key of one of ours, empty for any other."""
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

    def newest(self, count: int) -> list[int]:
        found: list[int] = []
        for first, last in zip(reversed(self._first), reversed(self._last), strict=True):
            found += range(last, max(first, last - (count - len(found)) + 1) - 1, -1)
            if len(found) >= count:
                break
        return found[::-1]


class Standing:
    """The mails of one folder that were read, as far as they stand there still."""

    def __init__(self, uids: str = "", marks: bytes = b"") -> None:
        self.uids = Uids(uids)
        self.marks = {uid: Mark(*mark) for uid, *mark in _MARK.iter_unpack(marks)}

    def met(self, uids: Iterable[int], marks: dict[int, Mark]) -> None:
        self.uids.add(uids)
        self.marks |= marks
        self.marks = {uid: self.marks[uid] for uid in sorted(self.marks)[-MARKED:]}

    def replace(self, uids: Uids) -> None:
        self.uids = uids
        self.marks = {uid: mark for uid, mark in self.marks.items() if uid in uids}

    def kept_marks(self) -> bytes:
        return b"".join(_MARK.pack(uid, *mark) for uid, mark in sorted(self.marks.items()))


def marks_of(
    headers: Mapping[int, Header], items: Mapping[int, Item | NotOurs], secret: bytes
) -> dict[int, Mark]:
    """Return the marks of the newest of `headers`; `items` are those mails among them that are ours."""
    marks = {}
    for uid in sorted(headers)[-MARKED:]:
        header, item = headers[uid], items.get(uid)
        key = keyed(item.content_key, secret) if isinstance(item, Item) else b""
        marks[uid] = mark_of(header.lines, header.size, key, secret)
    return marks


def renumbered(standing: Standing, fetch: Fetch, secret: bytes) -> bool:
    """Say whether a mail of `standing` is another one now, or none is left that could tell.

    Of ours the content decides, wherever size and header leave room for doubt: some servers only guess sizes,
    and a mail without a Message-ID may look like the next one. Then its mark is brought up to date.
    """
    headers = _headers(sorted(standing.marks), fetch)
    now = marks_of(headers, {}, secret)
    alike = {uid for uid, mark in now.items() if mark.looks_like(standing.marks[uid])}
    ours = {uid for uid in now if standing.marks[uid].ours}
    # Of strangers' mail a Message-ID is enough: nothing depends on its size, which may be guessed each time.
    alike |= {
        uid for uid, mark in now.items()
        if mark.head == standing.marks[uid].head and uid not in ours and names_itself(headers[uid].lines)
    }  # fmt: skip
    if not now.keys() <= alike | ours:
        return True
    doubtful = {uid: headers[uid] for uid in ours if uid not in alike or not names_itself(headers[uid].lines)}
    items = _items(doubtful, fetch)
    if not doubtful.keys() <= alike | items.keys():  # a body that does not come says nothing by itself
        return True
    now = marks_of({uid: doubtful[uid] for uid in items}, items, secret)
    if any(mark.content != standing.marks[uid].content for uid, mark in now.items()):
        return True
    standing.marks |= now
    return not headers and len(standing.uids) > len(standing.marks) > 0


def mark_newest(standing: Standing, fetch: Fetch, secret: bytes) -> None:
    """Give marks to the newest mails of `standing` that have none yet."""
    bare = [uid for uid in standing.uids.newest(MARKED) if uid not in standing.marks]
    headers = _headers(bare, fetch)
    standing.met((), marks_of(headers, _items(fetch.wanted(headers), fetch), secret))


def _headers(uids: Sequence[int], fetch: Fetch) -> dict[int, Header]:
    return {uid: h for portion in fetch.portions(uids) for uid, h in fetch.headers(portion).items()}


def _items(wanted: dict[int, Header], fetch: Fetch) -> dict[int, Item | NotOurs]:
    return {uid: item for group in fetch.groups(wanted) for uid, item in fetch.items(group, wanted).items()}
