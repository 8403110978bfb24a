"""Splits a stretch of an mbox into mails, so that every byte has its place.

Each byte belongs to one mail, to one separator (the `From ` line and the empty line that mbox puts after a
mail) or to one reported gap.
"""

import re
from dataclasses import dataclass, field

from ingestor.intake.files.mbox import (
    Dialect,
    Gap,
    has_lengths,
    is_header_line,
    is_odd,
    next_boundary,
    next_separator,
    separator_end,
    trailing_blank,
    uses_lengths,
)

_RD_QUOTED = re.compile(rb"(?m)^>(?=>*From )")
_O_QUOTED = re.compile(rb"(?m)^>(?=From )")


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
    while start >= 0:
        stop, separator, after = next_boundary(data, start, end, with_lengths=with_lengths)
        mail_end = separator if separator >= 0 else end
        _add(data, start, mail_end, stop, result)
        if separator >= 0:
            result.add_separator(data, separator, after)
        start = after
    return result


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


def unquoted(mail: bytes, dialect: Dialect, *, verbatim: bool) -> bytes:
    """Return the mail as it was before it was put into an mbox of `dialect`.

    `verbatim` says that a believed Content-Length measured it.
    """
    if b">From " not in mail or dialect is Dialect.MBOXCL2 or (verbatim and dialect is Dialect.MBOX):
        return mail
    if dialect in (Dialect.MBOXO, Dialect.MBOXCL):
        return _O_QUOTED.sub(b"", mail)
    return _RD_QUOTED.sub(b"", mail)


def leading_separator(mail: bytes) -> int:
    """Return the length of the `From ` line that some programs write into single mails, 0 without one."""
    return separator_end(mail, 0, len(mail)) if mail.startswith(b"From ") else 0
