"""Splits a stretch of an mbox into mails, so that every byte has its place.

Each byte belongs to one mail, to one separator (the `From ` line and the empty line that mbox puts after a
mail) or to one reported gap. The dialects differ in how a body line that begins with "From " is kept:

* mboxo quotes it as `>From ` and cannot tell it from a line that was so already; mboxrd quotes that again;
* mboxcl and mboxcl2 write a Content-Length, the latter without any quoting.

Read as `mbox` (nothing forced) a Content-Length that ends at a separator or at the end of the file is
believed and the bytes are taken as they are; everything else is unquoted as mboxrd.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from ingestor.intake.files.separators import (
    CANDIDATE,
    IN_LINE,
    MAX_LINE,
    USUAL,
    is_header_line,
    is_odd,
    next_separator,
    separator_end,
)

BELIEVED_LENGTH = 1 << 20
"""A mail longer than this (1 MiB, separator included) is cut at the next separator whatever its
Content-Length says: the length could only be checked by keeping it all in memory."""


class Dialect(StrEnum):
    """How an mbox is read; `MBOX` decides mail by mail."""

    MBOX = "mbox"
    MBOXO = "mboxo"
    MBOXRD = "mboxrd"
    MBOXCL = "mboxcl"
    MBOXCL2 = "mboxcl2"


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of an input that are neither mail nor separator, and why."""

    offset: int
    length: int
    reason: str


@dataclass(slots=True)
class Split:
    """What a stretch consists of: mails as (start, end, verbatim), bytes of separators, gaps; and how many
    separators were `odd`: of no usual form."""

    mails: list[tuple[int, int, bool]] = field(default_factory=list)
    separators: int = 0
    gaps: list[Gap] = field(default_factory=list)
    odd: int = 0

    def add_separator(self, data: bytes, start: int, end: int) -> None:
        """Place the separator line `data[start:end]`."""
        self.separators += end - start
        self.odd += is_odd(data[start:end]) or (start > 0 and data[start - 1] not in b"\n\0")

    @property
    def covered(self) -> int:
        """How many bytes have their place; must be the length of the stretch."""
        return (
            sum(end - start for start, end, _ in self.mails)
            + self.separators
            + sum(gap.length for gap in self.gaps)
        )


_EMPTY_LINE = re.compile(rb"\n\r*+\n")
_LENGTH_MARK = re.compile(rb"(?i)-length:")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,15})[ \t]*\r?$")
_RD_QUOTED = re.compile(rb"(?m)^>(?=>*From )")
_O_QUOTED = re.compile(rb"(?m)^>(?=From )")


def has_lengths(data: bytes | bytearray, end: int) -> bool:
    """Say whether a Content-Length may stand in `data[:end]`."""
    return _LENGTH_MARK.search(data, 0, end) is not None


def uses_lengths(dialect: Dialect) -> bool:
    """Say whether `dialect` looks at Content-Length at all."""
    return dialect not in (Dialect.MBOXO, Dialect.MBOXRD)


def next_boundary(
    data: bytes | bytearray, start: int, end: int, *, with_lengths: bool
) -> tuple[int, int, int]:
    """Return where the mail whose separator line ended at `start` stops: (its end, next separator, its end).

    The first is the end of a believed Content-Length, or -1. The separator is (-1, -1) when the mail runs
    up to `end`.
    """
    if with_lengths:
        stop = _believed_end(data, start, end)
        if stop >= 0:
            after = _skip_blank(data, stop, end)
            return stop, after if after < end else -1, separator_end(data, after, end) if after < end else -1
    return -1, *next_separator(data, max(0, start - 1), end)


def _believed_end(data: bytes | bytearray, start: int, end: int) -> int:
    limit = min(end, start + BELIEVED_LENGTH)
    body = header_end(data, start, limit)
    if body < 0 or data.find(CANDIDATE, start, body) >= 0:
        return -1
    found = _LENGTH.search(data, start, body)
    if not found:
        return -1
    stop = body + int(found.group(1))
    if stop > limit:
        return -1
    after = _skip_blank(data, stop, end)
    if after == end:
        return stop
    if after > 0 and data[after - 1] == 0x0A and data[after : after + 5] == b"From ":
        return stop if separator_end(data, after, end) else -1
    return -1


def header_end(data: bytes | bytearray, start: int, end: int) -> int:
    """Return where the body begins, -1 without an empty line before `end`."""
    if data[start : start + 1] == b"\n":
        return start + 1
    found = _EMPTY_LINE.search(data, start, end)
    return found.end() if found else -1


def ends_whole(data: bytes | bytearray, start: int, end: int) -> bool:
    """Say whether the last mail of an mbox, `data[start:end]`, ends where its program would end it.

    It has its last line end (NULs of a crash behind it are no part of it) and a whole header; and where a
    length is stated that goes beyond the end, at least the empty line that stands behind each mail.
    """
    stop = end
    while stop > start and data[stop - 1] == 0:
        stop -= 1
    if data[stop - 1] != 0x0A:
        return False
    if start >= stop:
        return True  # a separator and nothing else
    body = header_end(data, start, stop)
    if body < 0:
        return False
    stated = _LENGTH.search(data, start, body)
    return stated is None or body + int(stated.group(1)) <= stop or trailing_blank(data, start, stop) > 0


def _skip_blank(data: bytes | bytearray, at: int, end: int) -> int:
    """Return the place after the line end and the empty line that may follow a counted body."""
    for _ in range(2):
        if data[at : min(end, at + 2)] == b"\r\n":
            at += 2
        elif data[at : min(end, at + 1)] == b"\n":
            at += 1
    return at


def split(data: bytes, dialect: Dialect = Dialect.MBOX) -> Split:
    """Split `data`, which begins at a separator (or is the start of the file) and ends before one (or at
    the end of the file)."""
    result = Split()
    end = len(data)
    with_lengths = uses_lengths(dialect) and has_lengths(data, end)
    first = separator_end(data, 0, end) if data.startswith(b"From ") else 0
    start = 0
    if first:
        result.add_separator(data, 0, first)
        start = first
    else:
        start = _lead(data, end, result)
    usual_only = not with_lengths
    while start >= 0:
        if usual_only:
            start = _split_usual(data, start, result)
        stop, separator, after = next_boundary(data, start, end, with_lengths=with_lengths)
        mail_end = separator if separator >= 0 else end
        _add(data, start, mail_end, stop, result)
        if separator >= 0:
            result.add_separator(data, separator, after)
        start = after
    return result


def _split_usual(data: bytes, start: int, result: Split) -> int:
    """Place the mails from `start` on as long as each ends at an empty line and a separator of the usual
    form; return where the first other one begins. This only saves steps: the general way finds the same.
    """
    find, match, add = data.find, USUAL.match, result.mails.append
    separators = 0
    while True:
        here = find(IN_LINE, start)
        if here <= start + 1 or data[here - 1] != 0x0A or data[here - 2] != 0x0A:
            break
        line = match(data, here, here + MAX_LINE)
        if line is None or find(b"\0", start, here) >= 0:
            break
        add((start, here - 1, False))
        start = line.end()
        separators += start - here + 1
    result.separators += separators
    return start


def _lead(data: bytes, end: int, result: Split) -> int:
    """Place what stands before the first separator: a mail whose separator is lost, or a gap.

    Returns where the first mail begins, -1 when there is none.
    """
    if is_header_line(data, 0, end):
        return 0
    separator, after = next_separator(data, 0, end)
    lead = separator if separator >= 0 else end
    if lead:
        blank = not data[:lead].strip(b"\r\n\0")
        result.gaps.append(Gap(0, lead, "empty lines" if blank else "no mail before the first separator"))
    if separator >= 0:
        result.add_separator(data, separator, after)
    return after


def _add(data: bytes, start: int, mail_end: int, counted: int, result: Split) -> None:
    """Place `data[start:mail_end]`: the mail, what mbox adds after it, and NULs left by a crash."""
    if counted >= 0:
        result.mails.append((start, counted, True))
        result.separators += mail_end - counted
        return
    stop = mail_end
    if stop > start and data[stop - 1] == 0:
        while stop > start and data[stop - 1] == 0:
            stop -= 1
        if stop == start or data[stop - 1] == 0x0A:
            result.gaps.append(Gap(stop, mail_end - stop, "NUL bytes"))
        else:
            stop = mail_end
    tail = trailing_blank(data, start, stop)
    result.separators += tail
    result.mails.append((start, stop - tail, False))


def trailing_blank(data: bytes | bytearray, start: int, stop: int) -> int:
    """Return the length of the empty line that mbox adds after the mail `data[start:stop]`."""
    ending = bytes(data[max(start, stop - 4) : stop])
    if ending.endswith(b"\n\r\n") or ending == b"\r\n":
        return 2
    return 1 if ending.endswith(b"\n\n") or ending == b"\n" else 0


def unquoted(mail: bytes, dialect: Dialect, *, verbatim: bool) -> bytes:
    """Return the mail as it was before it was put into an mbox of `dialect`.

    `verbatim` says that a believed Content-Length measured it.
    """
    if b">From " not in mail or dialect is Dialect.MBOXCL2 or (verbatim and dialect is Dialect.MBOX):
        return mail
    if dialect in (Dialect.MBOXO, Dialect.MBOXCL):
        return _O_QUOTED.sub(b"", mail)
    return _RD_QUOTED.sub(b"", mail)


def mails(data: bytes, dialect: Dialect = Dialect.MBOX) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, mail) of each mail in `data`; a short way for whole files in memory."""
    for start, end, verbatim in split(data, dialect).mails:
        yield start, unquoted(data[start:end], dialect, verbatim=verbatim)
